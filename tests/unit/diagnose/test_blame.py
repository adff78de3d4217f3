"""Whose change it was that an Envoy refuses."""

from __future__ import annotations

import pytest

from meshgw.api.meta import Key, ObjectRef
from meshgw.diagnose.blame import FEW, blame
from meshgw.emit.resource import CLUSTER, LISTENER, ROUTE_CONFIGURATION
from meshgw.engine import Graph
from meshgw.ir.gateway import Settings
from meshgw.ir.keys import ResourceKey
from meshgw.pipeline import build_graph, list_kinds
from meshgw.resolve import tables as t
from meshgw.standalone.facts import read_text

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: meshgw, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: app}}
spec: {{ports: [{{port: 80, name: a{protocol}}}]}}
---
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard}
spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: gw}], rules: [{}]}
---
"""
ROUTES = ResourceKey(Key("default", "gw"), ROUTE_CONFIGURATION, "http/80")
CLUSTERS = ResourceKey(Key("default", "gw"), CLUSTER, "service/default/app/80")
PORT = ResourceKey(Key("default", "gw"), LISTENER, "tcp/80")


def route(name: str, path: str = "/") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: app, port: 80}}]}}]
---
"""


def put(graph: Graph, *texts: str) -> None:
    facts, problems = read_text("".join(texts))
    assert not problems
    graph.commit(facts)


@pytest.fixture
def graph() -> Graph:
    """A Gateway with two routes that have been there for long."""
    graph = build_graph()
    graph.commit({t.SETTINGS: {t.SINGLE: Settings()}})
    put(graph, GATEWAY, SERVICE.format(protocol=""), route("one", "/one"), route("two", "/two"))
    put(graph, route("later", "/later"))
    return graph


def named(graph: Graph, *refused: ResourceKey, said: str = "no") -> list[str]:
    return [str(ref) for ref in blame(graph, list_kinds(), refused, said)]


def test_it_is_who_changed_what_is_refused(graph: Graph) -> None:
    assert named(graph, ROUTES) == ["HTTPRoute default/later"]
    put(graph, route("two", "/changed"))
    assert named(graph, ROUTES) == ["HTTPRoute default/two"]
    put(graph, POLICY)
    assert named(graph, ROUTES) == ["AuthorizationPolicy default/guard"]


def test_a_change_of_something_else_is_nobodys_fault(graph: Graph) -> None:
    put(graph, SERVICE.format(protocol="b"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
    assert named(graph, ROUTES) == ["HTTPRoute default/later"]


def test_of_many_it_is_those_that_envoy_names() -> None:
    graph = build_graph()
    graph.commit({t.SETTINGS: {t.SINGLE: Settings()}})
    put(graph, GATEWAY, SERVICE.format(protocol=""), *(route(f"r{n}", f"/{n}") for n in range(FEW + 1)))
    assert named(graph, ROUTES, said="something is wrong") == []
    assert named(graph, ROUTES, said="bad route httproute/default/r2/0") == ["HTTPRoute default/r2"]


def test_of_what_is_gone_nobody_can_say(graph: Graph) -> None:
    graph.commit({t.GATEWAYS: {Key("default", "gw"): None}})
    assert named(graph, ROUTES, CLUSTERS, PORT) == []


def test_of_several_resources_all_count(graph: Graph) -> None:
    put(graph, route("two", "/changed"))
    put(graph, SERVICE.format(protocol="b"))
    refs = blame(graph, list_kinds(), (ROUTES, PORT), "no")
    assert ObjectRef("HTTPRoute", "default", "two") in refs
