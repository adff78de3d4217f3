"""What is watched where."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from meshgw.api.meta import LabelSelector
from meshgw.api.registry import Kind
from meshgw.cluster.scope import (
    EVERYWHERE,
    SECRET,
    Scope,
    follow_served,
    parse_selector,
    secret_namespaces,
)
from meshgw.pipeline import build_graph
from meshgw.resolve.namespaces import selects
from tests.unit.cluster.world import KINDS, batch

CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: meshgw}
spec: {controllerName: meshgw.dev/gateway-controller}
"""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec: {gatewayClassName: meshgw, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
FOREIGN = GATEWAY.replace("edge", "foreign").replace("ClassName: meshgw", "ClassName: theirs")
GRANT = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: grant, namespace: vault}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: edge}]
  to: [{group: "", kind: Secret}]
"""
LISTENERS = """
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: team}
spec: {parentRef: {name: gw, namespace: edge}, listeners: [{name: http, port: 81, protocol: HTTP}]}
"""
ROOTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: roots, namespace: api}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  validation: {hostname: a.test, caCertificateRefs: [{group: "", kind: Secret, name: ca}]}
"""
NAMESPACES = "---".join(
    f"\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{tier: {tier}}}}}\n"
    for name, tier in (("edge", "front"), ("back", "rear"))
)
ALL = frozenset({EVERYWHERE})


def test_secrets_are_read_where_gateways_of_ours_are_and_where_they_are_granted() -> None:
    graph = build_graph()
    graph.commit(batch(f"{CLASS}---{FOREIGN}---{GRANT}---{ROOTS}"))
    assert secret_namespaces(graph, ALL) == frozenset()
    graph.commit(batch(GATEWAY))
    assert secret_namespaces(graph, ALL) == {"edge", "vault", "api"}
    graph.commit(batch(LISTENERS))
    assert secret_namespaces(graph, ALL) == {"edge", "vault", "api", "team"}
    assert secret_namespaces(graph, frozenset({"edge", "back"})) == {"edge"}


@pytest.mark.parametrize(("old", "new"), [("kind: Gateway,", "kind: HTTPRoute,"), ("namespace: edge", "namespace: x")])
def test_grants_to_others_open_no_namespace(old: str, new: str) -> None:
    graph = build_graph()
    graph.commit(batch("---".join((CLASS, GATEWAY, GRANT.replace(old, new)))))
    assert secret_namespaces(graph, ALL) == {"edge"}


def test_namespaces_are_all_or_listed_or_selected() -> None:
    graph = build_graph()
    graph.commit(batch(NAMESPACES))
    assert Scope().served(graph) == ALL
    assert Scope(namespaces=("a", "b")).served(graph) == {"a", "b"}
    assert Scope(selector=parse_selector("tier=front")).served(graph) == {"edge"}
    assert Scope(selector=parse_selector("kubernetes.io/metadata.name in (back)")).served(graph) == {"back"}


class Followed(dict[str, Collection[str] | None]):
    """What is followed where."""

    def follow(self, kind: Kind, namespaces: Collection[str] | None = None) -> None:
        self[kind.name] = namespaces


def test_every_kind_but_secrets_is_followed_where_it_is_served() -> None:
    followed = Followed()
    follow_served(followed, KINDS.kinds, ALL, root="istio-system")
    assert set(followed) == {kind.name for kind in KINDS.kinds} - {SECRET}
    assert set(followed.values()) == {None}
    follow_served(followed, KINDS.kinds, frozenset({"a", "b"}), root="istio-system")
    assert followed["Pod"] == {"a", "b"}
    assert followed["AuthorizationPolicy"] == {"a", "b", "istio-system"}, "it may hold for all from there"


@pytest.mark.parametrize(
    ("text", "picked", "passed"),
    [
        ("a=b", {"a": "b"}, {"a": "c"}),
        ("a == b, c!=d", {"a": "b"}, {"a": "b", "c": "d"}),
        ("a in (b, c),!x", {"a": "c"}, {"a": "c", "x": ""}),
        ("a notin (b,c),d", {"d": ""}, {"a": "b", "d": ""}),
    ],
)
def test_selectors_are_written_as_for_kubectl(text: str, picked: dict[str, str], passed: dict[str, str]) -> None:
    selector = parse_selector(text)
    assert isinstance(selector, LabelSelector)
    assert (selects(selector, picked), selects(selector, passed)) == (True, False)


@pytest.mark.parametrize("text", ["", "a in b", "!a=b", "a=b=c", "=b", "a,,b"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no label requirement"):
        parse_selector(text)
