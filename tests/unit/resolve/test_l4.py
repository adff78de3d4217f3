from __future__ import annotations

from typing import Any

import pytest

from meshgw.api.meta import Key
from meshgw.ir.gateway import Listener, ListenerTls, Protocol, TlsMode
from meshgw.ir.keys import BackendTarget, ListenerKey, RouteKey
from meshgw.ir.mesh import Action, AuthorizationPolicy, AuthorizationRule
from meshgw.ir.route import Attachment, Backend, L4Binding, L4Chain, RefsReason
from meshgw.resolve import tables as t
from meshgw.resolve.authorization import WORKLOADS_OF
from meshgw.resolve.l4 import l4_listener
from tests.unit.resolve.route_graph import GATEWAY, World, codes, service, web

LISTENER = ListenerKey(GATEWAY, "Gateway", GATEWAY, "l")
DEFAULT_REFS = "[{name: web, port: 80}]"


def route(kind: str, name: str = "r", refs: str = DEFAULT_REFS, created: str = "2026-01-01T00:00:00Z") -> str:
    return (
        f"---\nkind: {kind}\nmetadata: {{name: {name}, namespace: default, creationTimestamp: '{created}'}}\n"
        f"spec: {{rules: [{{name: n, backendRefs: {refs}}}]}}\n"
    )


def attached(world: World, *routes: tuple[str, str, tuple[str, ...]], **listener: Any) -> L4Binding | None:
    row = Listener(**{"key": LISTENER, "port": 9000, "protocol": Protocol.TCP, "serving": True} | listener)
    attachments = {}
    for kind, name, hostnames in routes:
        key = RouteKey(kind, "default", name)
        attachments[key, LISTENER] = Attachment(route=key, listener=LISTENER, hostnames=hostnames)
    world.commit({t.LISTENERS: {LISTENER: row}, t.ATTACHMENTS: attachments})
    return world.graph.get(t.L4_BINDINGS, LISTENER)


@pytest.mark.parametrize(("kind", "protocol"), [("TCPRoute", "tcp"), ("TLSRoute", "tcp")])
def test_connections_go_to_weighted_backends(kind: str, protocol: str) -> None:
    world = World(service() + route(kind, refs="[{name: web, port: 80, weight: 7}, {name: gone, port: 1, weight: 0}]"))
    rule = world.rule("r", kind=kind)
    assert rule.name == "n"
    assert rule.matches == ()
    assert rule.backends == (Backend(target=web(protocol=protocol), weight=7), Backend(target=None, weight=0))
    assert world.route("r", kind).refs is RefsReason.NOT_FOUND


def test_no_weight_at_all_closes() -> None:
    world = World(service() + route("TCPRoute", refs="[{name: web, port: 80, weight: 0}]"))
    assert world.rule("r", kind="TCPRoute").backends == ()
    assert codes(world.route("r", "TCPRoute").findings) == ["MG2004"]


def test_only_the_first_rule_counts() -> None:
    text = route("TCPRoute").replace("rules: [", "rules: [{backendRefs: [{name: web, port: 80, weight: 2}]}, ")
    world = World(service() + text)
    assert [rule.backends for rule in world.route("r", "TCPRoute").rules] == [
        (Backend(target=web(protocol="tcp"), weight=2),)
    ]
    assert codes(world.route("r", "TCPRoute").findings) == ["MG4006"]


def test_only_l4_routes_bind_listeners() -> None:
    row = Attachment(route=RouteKey("HTTPRoute", "default", "r"), listener=LISTENER)
    assert l4_listener((row.route, LISTENER), row) == ()
    assert l4_listener((RouteKey("UDPRoute", "default", "r"), LISTENER), row) == (LISTENER,)


def test_the_oldest_route_serves_a_tcp_listener() -> None:
    world = World(
        service()
        + service("old")
        + route("TCPRoute", "a", created="2026-02-01T00:00:00Z")
        + route("TCPRoute", "z", "[{name: old, port: 80}]")
    )
    binding = attached(world, ("TCPRoute", "a", ("",)), ("TCPRoute", "z", ("",)))
    assert binding is not None
    assert binding.chains == (
        L4Chain(
            route=RouteKey("TCPRoute", "default", "z"),
            server_names=("",),
            backends=(Backend(target=web(name="old", protocol="tcp")),),
        ),
    )
    world.remove(t.ATTACHMENTS, (RouteKey("TCPRoute", "default", "z"), LISTENER))
    later = world.graph.get(t.L4_BINDINGS, LISTENER)
    assert later is not None
    assert later.chains[0].route.name == "a"


def test_nothing_is_forwarded_that_a_policy_of_the_gateway_does_not_let_in() -> None:
    world = World(service() + route("TCPRoute"))
    assert attached(world, ("TCPRoute", "r", ()))
    denial = AuthorizationPolicy(key=Key("", ""), action=Action.DENY, targets=(), rules=(AuthorizationRule(),))
    world.guard(GATEWAY, denial)
    assert world.graph.get(t.L4_BINDINGS, LISTENER) is None
    world.guard(GATEWAY)
    assert world.graph.get(t.L4_BINDINGS, LISTENER)
    world.remove(t.AUTHORIZATIONS, (GATEWAY, WORKLOADS_OF))
    assert world.graph.get(t.L4_BINDINGS, LISTENER) is None


def test_of_equally_old_routes_the_first_name_serves() -> None:
    world = World(service() + route("TCPRoute", "b") + route("TCPRoute", "a"))
    binding = attached(world, ("TCPRoute", "b", ("",)), ("TCPRoute", "a", ("",)))
    assert binding is not None
    assert [chain.route.name for chain in binding.chains] == ["a"]


def test_server_names_go_to_the_oldest_route_each() -> None:
    world = World(service() + route("TLSRoute", "old") + route("TLSRoute", "young", created="2026-03-01T00:00:00Z"))
    binding = attached(
        world, ("TLSRoute", "old", ("a.x", "b.x")), ("TLSRoute", "young", ("b.x", "c.x", "*.x")), protocol=Protocol.TLS
    )
    assert binding is not None
    assert [(chain.route.name, chain.server_names) for chain in binding.chains] == [
        ("old", ("a.x", "b.x")),
        ("young", ("*.x", "c.x")),
    ]


def test_a_route_that_won_no_name_has_no_chain() -> None:
    world = World(service() + route("TLSRoute", "a") + route("TLSRoute", "b"))
    binding = attached(world, ("TLSRoute", "a", ("a.x",)), ("TLSRoute", "b", ("a.x",)), protocol=Protocol.TLS)
    assert binding is not None
    assert len(binding.chains) == 1


def test_a_listener_that_does_not_serve_forwards_nothing() -> None:
    world = World(service() + route("TCPRoute"))
    assert attached(world, ("TCPRoute", "r", ("",)), serving=False) is None
    assert world.graph.rows(t.CLUSTERS) == {}


@pytest.mark.parametrize(("mode", "protocol"), [(TlsMode.PASSTHROUGH, "tcp"), (TlsMode.TERMINATE, "tcp+tls")])
def test_backends_of_ended_tls_are_told_apart(mode: TlsMode, protocol: str) -> None:
    world = World(service() + route("TLSRoute", refs="[{name: web, port: 80}, {name: gone, port: 80}]"))
    binding = attached(world, ("TLSRoute", "r", ("a.x",)), protocol=Protocol.TLS, tls=ListenerTls(mode=mode))
    assert binding is not None
    assert binding.chains[0].backends == (Backend(target=web(protocol=protocol)), Backend(target=None))
    assert world.cluster(web(protocol=protocol)) is not None


def test_a_udp_listener_forwards_to_one_composite_cluster() -> None:
    ports = "[{port: 53, protocol: UDP}]"
    refs = "[{name: web, port: 53, weight: 3}, {name: b, port: 53}, {name: web, port: 53}, {name: gone, port: 53}]"
    world = World(service(ports=ports) + service("b", ports=ports) + route("UDPRoute", refs=refs))
    binding = attached(world, ("UDPRoute", "r", ("",)), protocol=Protocol.UDP)
    target = BackendTarget("UDPRoute", "default", "r", 0, "udp")
    assert binding is not None
    assert binding.chains[0].backends == (Backend(target=target),)
    cluster = world.cluster(target)
    assert cluster is not None
    assert cluster.members == ((web(53, "udp", "b"), 1), (web(53, "udp"), 4))
    assert list(world.graph.rows(t.CLUSTERS)) == [cluster.key]


def test_a_udp_route_without_usable_backends_drops() -> None:
    world = World(route("UDPRoute"))
    binding = attached(world, ("UDPRoute", "r", ("",)), protocol=Protocol.UDP)
    assert binding is not None
    assert binding.chains[0].backends == ()


def test_a_listener_set_has_listeners_of_its_own() -> None:
    world = World(service() + route("TCPRoute"))
    key = ListenerKey(GATEWAY, "ListenerSet", Key("default", "set"), "l")
    name = RouteKey("TCPRoute", "default", "r")
    row = Listener(key=key, port=1, protocol=Protocol.TCP, serving=True)
    world.commit({t.LISTENERS: {key: row}, t.ATTACHMENTS: {(name, key): Attachment(route=name, listener=key)}})
    binding = world.graph.get(t.L4_BINDINGS, key)
    assert binding is not None
    assert binding.chains[0].server_names == ("",)
