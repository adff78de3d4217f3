"""Authorization of Gateways whose clients have no identity, and denial where a guard cannot be built."""

from __future__ import annotations

from typing import Any

import pytest

from meshgw.api.meta import Key
from meshgw.emit import tables as out
from meshgw.emit.dump import dump
from meshgw.emit.guards import deny_guards, deny_tunnels
from meshgw.emit.rbac import ALLOW_FILTER, DENY_FILTER
from meshgw.emit.resource import LISTENER, ROUTE_CONFIGURATION
from meshgw.engine import Delta, Graph
from meshgw.ir.gateway import Gateway, Role
from meshgw.ir.keys import ResourceKey, RouteConfigKey
from meshgw.pipeline import list_steps
from meshgw.protos import HttpRbacPerRoute, RouteConfiguration
from meshgw.resolve import tables as t
from tests.rig.mesh import feed, mesh_graph, policy, remove

EDGE = Key("default", "edge")
WORLD = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: meshgw}
spec: {controllerName: meshgw.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: default, labels: {meshgw.dev/role: ROLE}}
spec:
  gatewayClassName: meshgw
  listeners:
  - {name: web, port: 80, protocol: HTTP}
  - {name: more, port: 80, protocol: HTTP, hostname: more.example.com}
  - {name: other, port: 81, protocol: HTTP}
  - {name: tcp, port: 9000, protocol: TCP}
  - {name: udp, port: 9001, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: tcp, port: 80}, {name: udp, port: 53, protocol: UDP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: default}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: app, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: app, namespace: default}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: app, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: app, namespace: default}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: app, port: 53}]}]
"""
TCP, UDP = "service/default/app/80/tcp", "udproute/default/app/0/udp"
EVERYBODY = {"any": True}


def world(*texts: str, role: str = "ingress") -> Graph:
    return mesh_graph(WORLD.replace("ROLE", role) + "".join(texts))


def guarding(spec: str, *, target: str = "Gateway edge", namespace: str = "default") -> str:
    return policy("p", spec, target=target, namespace=namespace)


def guard(graph: Graph, name: str = "http/80") -> dict[str, dict[str, Any]]:
    """The rules of both filters in a RouteConfiguration; without a guard nothing."""
    row = graph.get(out.RESOURCES, ResourceKey(EDGE, ROUTE_CONFIGURATION, name))
    assert row is not None
    configs = dump(row).get("typed_per_filter_config", {})
    return {name: config.get("rbac", {}).get("rules", {}) for name, config in configs.items()}


def forwarded(graph: Graph) -> set[str]:
    """The clusters that the listeners name themselves."""
    rows = graph.by(out.RESOURCES, "gateway", EDGE)
    named = {str(row.body) for key, row in rows if key.type_url == LISTENER}
    return {name for name in (TCP, UDP) if any(name in text for text in named)}


def changed(delta: Delta) -> set[tuple[str, str]]:
    return {(key.type_url.rsplit(".", 1)[1], key.name) for key in delta.changed(out.RESOURCES)}


def test_a_gateway_without_policies_serves_everybody() -> None:
    graph = world()
    assert guard(graph) == {}
    assert forwarded(graph) == {TCP, UDP}


@pytest.mark.parametrize("role", ["ingress", "egress"])
def test_a_policy_of_a_gateway_is_asked_for_each_request(role: str) -> None:
    graph = world(guarding("rules: [{to: [{operation: {methods: [GET]}}]}]"), role=role)
    for config in ("http/80", "http/81"):
        found = guard(graph, config)
        assert found[DENY_FILTER] == {}
        (rule,) = found[ALLOW_FILTER]["policies"].values()
        assert rule["principals"] == [EVERYBODY]
        assert rule["permissions"] == [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}]


def test_a_new_policy_changes_routes_and_no_http_listener() -> None:
    graph = world()
    delta = feed(graph, guarding("action: DENY\n  rules: [{to: [{operation: {ports: ['80']}}]}]"))
    assert changed(delta) == {("RouteConfiguration", "http/80"), ("RouteConfiguration", "http/81")}
    assert guard(graph)[DENY_FILTER]["policies"]
    assert guard(graph, "http/81")[DENY_FILTER] == {}


def test_who_asks_for_an_identity_allows_nobody_and_denies_everybody() -> None:
    identity = "rules: [{from: [{source: {principals: ['*']}}]}]"
    graph = world(guarding(identity))
    assert guard(graph)[ALLOW_FILTER] == {}
    row = graph.get(out.GUARDS, RouteConfigKey(EDGE, "http/80"))
    assert row is not None
    assert is_shut(row, ALLOW_FILTER)
    assert forwarded(graph) == set()
    graph = world(guarding(f"action: DENY\n  {identity.replace('principals', 'notPrincipals')}"))
    (rule,) = guard(graph)[DENY_FILTER]["policies"].values()
    assert rule == {"permissions": [EVERYBODY], "principals": [EVERYBODY]}
    assert forwarded(graph) == set()


def test_a_policy_closes_connections_that_it_does_not_let_in_by_port() -> None:
    graph = world(guarding("rules: [{to: [{operation: {ports: ['9000']}}]}]"))
    assert forwarded(graph) == {TCP}
    feed(graph, guarding("rules: [{to: [{operation: {hosts: ['a']}}]}]"))
    assert forwarded(graph) == set()
    remove(graph, t.AUTHORIZATION_POLICIES, Key("default", "p"))
    assert forwarded(graph) == {TCP, UDP}


def test_a_policy_that_cannot_be_read_closes_the_gateway_it_names() -> None:
    graph = world(guarding("rules: [{when: [{key: source.ip, values: [b]}]}]"))
    (rule,) = guard(graph)[DENY_FILTER]["policies"].values()
    assert rule == {"permissions": [EVERYBODY], "principals": [EVERYBODY]}
    assert forwarded(graph) == set()


def test_a_policy_of_the_class_holds_for_its_gateways() -> None:
    graph = world(guarding("action: DENY\n  rules: [{}]", target="GatewayClass meshgw", namespace="istio-system"))
    assert guard(graph)[DENY_FILTER]["policies"]
    assert forwarded(graph) == set()


def test_a_policy_of_another_gateway_guards_nothing_here() -> None:
    graph = world(guarding("action: DENY\n  rules: [{}]", target="Gateway another"))
    assert guard(graph) == {}
    assert forwarded(graph) == {TCP, UDP}


def is_shut(fields: bytes, name: str) -> bool:
    """Whether a filter is told to allow nothing at all."""
    built = HttpRbacPerRoute()
    return (
        RouteConfiguration.FromString(fields).typed_per_filter_config[name].Unpack(built)
        and built.rbac.HasField("rules")
        and not built.rbac.rules.policies
    )


def test_a_guard_that_cannot_be_built_denies() -> None:
    config, error = RouteConfigKey(EDGE, "http/80"), ValueError()
    ((_key, fields),) = deny_guards(config, {}, error)
    assert is_shut(fields, DENY_FILTER)
    row = Gateway(key=EDGE, class_name="c", role=Role.WAYPOINT, accepted=True)
    ((_gateway, fields),) = deny_tunnels(EDGE, row, error)
    assert is_shut(fields, DENY_FILTER)


def test_every_step_that_carries_authorization_says_what_to_do_when_it_fails() -> None:
    carriers = {t.POLICIES, t.AUTHORIZATIONS, t.L4_BINDINGS, out.GUARDS, out.TUNNEL_GUARDS, out.CONNECT_HOSTS}
    steps = [step for step in list_steps() if step.table in carriers]
    assert len(steps) == len(carriers)
    assert all(step.on_fault for step in steps)
