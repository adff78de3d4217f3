"""What is watched follows the namespaces that are served."""

from __future__ import annotations

from typing import Any

from meshgw.cluster.observations import Observations
from meshgw.cluster.scope import Scope, parse_selector
from meshgw.control import Outcome
from meshgw.engine import Graph
from meshgw.pipeline import build_graph
from tests.unit.cluster.world import KINDS, batch
from tests.unit.write.parts import FakeClient, refusal

SERVED = "\n---\n".join(
    f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{edge: 'yes'}}}}" for name in ("a", "b")
)


def unserved(name: str) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}"


class Replica:
    """Watches that nobody runs, and what is followed when a namespace leaves."""

    def __init__(self) -> None:
        client: Any = FakeClient(lambda _request: refusal(404, "NotFound"))
        self.left: list[tuple[str, set[str]]] = []
        self.watched = Observations(
            client,
            Scope(selector=parse_selector("edge")),
            KINDS,
            sink=lambda _kind, _seen: None,
            owned_sink=lambda _kind, _seen: None,
            on_leave=lambda namespace: self.left.append((namespace, self.followed())),
            root="istio-system",
        )
        self.graph: Graph = build_graph()

    def followed(self) -> set[str]:
        return {wanted.namespace for wanted in self.watched.owned._reflectors}

    def commit(self, text: str) -> None:
        delta = self.graph.commit(batch(text))
        self.watched.follow(Outcome((delta,), 0.0, gateways=False), self.graph)


def test_a_namespace_that_leaves_is_told_before_its_objects_are_dropped() -> None:
    replica = Replica()
    replica.commit(SERVED)
    assert replica.followed() == {"a", "b"}
    assert replica.left == []
    replica.commit(unserved("b"))
    assert replica.left == [("b", {"a", "b"})]
    assert replica.followed() == {"a"}
    replica.commit(SERVED)
    assert replica.followed() == {"a", "b"}
    assert len(replica.left) == 1
