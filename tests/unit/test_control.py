"""The pipeline and the addresses and resources that follow from it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from meshgw import features
from meshgw.api.meta import Key
from meshgw.control import Control
from meshgw.emit.resource import LISTENER, Resource
from meshgw.engine import WiringError
from meshgw.ir.gateway import Settings
from meshgw.observe.metrics import Metrics
from meshgw.resolve import tables as t
from meshgw.standalone.addresses import LoopbackPlacing
from meshgw.standalone.facts import read_text
from tests.unit.poison import poisonous

GATEWAY = Key("default", "gw")


def gateway(address: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: default}}
spec:
  gatewayClassName: meshgw
  addresses: [{{type: IPAddress, value: {address}}}]
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""


def test_a_gateway_that_asks_for_another_address_moves_there() -> None:
    published: list[tuple[Key, Mapping[tuple[str, str], Resource | None]]] = []
    control = Control(
        settings=Settings(),
        publish=lambda key, changes: published.append((key, changes)),
        metrics=Metrics(),
        placing=LoopbackPlacing(10_000),
    )
    control.commit(read_text(gateway("127.0.0.8"))[0])
    published.clear()
    outcome = control.commit(read_text(gateway("127.0.0.9"))[0])
    assert outcome.gateways
    assert control.binding(GATEWAY).bind == "127.0.0.9"
    ((key, changes),) = published
    assert key == GATEWAY
    moved = changes[LISTENER, "tcp/80"]
    assert moved is not None
    assert b"127.0.0.9" in moved.body


Published = list[tuple[Key, Mapping[tuple[str, str], Resource | None]]]

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: default}}
spec: {{parentRefs: [{{name: gw}}], hostnames: [{host}.example.com]}}
---
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: poison, namespace: default}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}], rules: [{}]}
---
"""


def serving(published: Published, *others: str) -> Control:
    """A pipeline with a Gateway and other objects; `published` gets what it sends."""
    control = Control(
        settings=Settings(),
        publish=lambda key, changes: published.append((key, changes)),
        metrics=Metrics(),
        placing=LoopbackPlacing(10_000),
    )
    control.commit(read_text("---".join((gateway("127.0.0.8"), *others)))[0])
    return control


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "FEATURES", (poisonous(t.HTTP_ROUTES), *features.FEATURES))


def route(name: str, host: str = "") -> str:
    return ROUTE.format(name=name, host=host or name)


@pytest.mark.usefixtures("poisoned")
def test_what_no_commit_gets_past_is_set_aside_and_costs_nothing_else() -> None:
    published: Published = []
    control = serving(published, route("known"))
    published.clear()
    outcome = control.commit(read_text(route("a") + route("poison") + route("z"))[0])
    assert [finding.message for finding in outcome.set_aside] == [
        "cannot be taken in (WiringError): what was known before stays"
    ]
    (finding,) = [finding for finding in control.findings() if finding.code == "MG9001"]
    assert str(finding.object) == "HTTPRoute default/poison"
    assert {key.name for key in control.graph.rows(t.HTTP_ROUTES)} == {"known", "a", "z"}
    assert len(published) == 1, "the good ones are published, at once"
    assert control.commit(control.aside).set_aside == (), "that is known already"
    assert control.aside.keys() == {t.HTTP_ROUTES}
    control.commit({t.HTTP_ROUTES: {Key("default", "poison"): None}})
    assert not control.aside
    assert not [finding for finding in control.findings() if finding.code == "MG9001"]


@pytest.mark.usefixtures("poisoned")
def test_a_first_commit_is_published_once_whatever_is_in_it() -> None:
    published: Published = []
    serving(published, route("poison"), *(route(f"r{number}") for number in range(5)))
    (_key, changes), *rest = published
    assert changes[LISTENER, "tcp/80"] is not None
    assert rest == []


def test_a_policy_that_no_commit_gets_past_denies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "FEATURES", (poisonous(t.AUTHORIZATION_POLICIES), *features.FEATURES))
    published: Published = []
    control = serving(published)
    control.commit(read_text(POLICY)[0])
    assert control.graph.rows(t.AUTHORIZATION_POLICIES)[Key("default", "poison")].unreadable
    assert {finding.code for finding in control.findings()} >= {"MG9001", "MG4004"}

    published.clear()
    with pytest.raises(WiringError):  # what denies cannot be taken in either: nothing is published without it
        control.commit({**read_text(route("r"))[0], **read_text(POLICY.replace("poison", "venom"))[0]})
    assert not published
    outcome = control.commit({})
    assert Key("default", "r") in control.graph.rows(t.HTTP_ROUTES)
    assert any(delta.changed(t.HTTP_ROUTES) for delta in outcome.deltas), "what was taken in before is told"
    assert published, "and published"


def test_a_gateway_that_cannot_be_published_costs_no_other_and_is_sent_again() -> None:
    published: Published = []
    broken: set[Key] = set()

    def publish(key: Key, changes: Mapping[tuple[str, str], Resource | None]) -> None:
        if key in broken:
            raise RuntimeError("a bug")
        published.append((key, changes))

    control = Control(settings=Settings(), publish=publish, metrics=Metrics(), placing=LoopbackPlacing(10_000))
    broken.add(GATEWAY)
    other = gateway("127.0.0.9").replace("name: gw", "name: other")
    control.commit(read_text(gateway("127.0.0.8") + "---" + other)[0])
    assert {key.name for key, _changes in published} == {"other"}
    published.clear()
    broken.clear()
    control.commit({})
    ((key, changes),) = published
    assert key == GATEWAY
    assert (LISTENER, "tcp/80") in changes
