from __future__ import annotations

from typing import Any

import pytest

from meshgw.api.meta import Key
from meshgw.ir.backend import Cluster, SanKind, UpstreamProtocol, UpstreamTls
from meshgw.ir.gateway import Role
from meshgw.ir.keys import BackendTarget, ClusterKey, RouteConfigKey, RouteKey
from meshgw.ir.mesh import AppProtocol, WaypointPort, WaypointService
from meshgw.ir.route import HostEntry, HostKind
from meshgw.resolve import tables as t
from meshgw.resolve.clusters import route_targets
from tests.unit.resolve.route_graph import GATEWAY, World, http_route, service, web

TO_WEB = "backendRefs: [{name: web, port: 80}]"
POLICY = """---
kind: BackendTLSPolicy
metadata: {name: p, namespace: default}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  validation: {hostname: Web.example, wellKnownCACertificates: System}
""".replace("Web", "web")


def reached(world: World, target: BackendTarget | None = None) -> Cluster:
    world.reach(target or web())
    cluster = world.cluster(target or web())
    assert cluster is not None
    return cluster


def port(app_protocol: str, name: str = "") -> str:
    return service(ports=f"[{{port: 80, name: '{name}', appProtocol: {app_protocol or 'null'}}}]")


def test_only_claimed_routes_need_clusters() -> None:
    world = World(service() + http_route(f"[{{{TO_WEB}}}]"))
    assert world.graph.rows(t.CLUSTERS) == {}
    world.claim("r")
    assert set(world.graph.rows(t.CLUSTERS)) == {ClusterKey(GATEWAY, web())}
    world.remove(t.HOSTS, *world.graph.rows(t.HOSTS))
    assert world.graph.rows(t.CLUSTERS) == {}


def test_routes_and_hosts_share_a_cluster() -> None:
    world = World(service() + http_route(f"[{{{TO_WEB}}}, {{{TO_WEB}}}]") + http_route(f"[{{{TO_WEB}}}]", name="s"))
    world.claim("r", domain="a.x")
    world.claim("r", domain="b.x")
    world.claim("s", domain="a.x")
    assert len(world.graph.rows(t.CLUSTER_USES)) == 3
    assert len(world.graph.rows(t.CLUSTERS)) == 1


def test_each_gateway_has_clusters_of_its_own() -> None:
    other = Key("infra", "other")
    world = World(service() + http_route(f"[{{{TO_WEB}}}]"))
    world.gateway(other)
    world.claim("r")
    world.claim("r", gateway=other)
    assert set(world.graph.rows(t.CLUSTERS)) == {ClusterKey(GATEWAY, web()), ClusterKey(other, web())}


def test_everything_a_rule_talks_to_is_a_target() -> None:
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 80}}}"
    own = mirror.replace("name: m", "name: n")
    auth = "{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: a, port: 80}}}"
    backends = f"[{{name: web, port: 80, filters: [{own}]}}, {{name: gone, port: 1}}]"
    rule = f"{{filters: [{mirror}, {auth}], backendRefs: {backends}}}"
    world = World(service() + service("m") + service("n") + service("a") + http_route(f"[{rule}, {rule}]"))
    assert set(route_targets(world.route("r"))) == {web(), web(name="m"), web(name="n"), web(name="a", protocol="grpc")}
    assert len(route_targets(world.route("r"))) == 4


def test_redirects_and_broken_rules_need_no_backends() -> None:
    redirect = "{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}], " + TO_WEB + "}"
    broken = "{filters: [{type: ExtensionRef, extensionRef: {group: x, kind: Y, name: z}}], " + TO_WEB + "}"
    world = World(service() + http_route(f"[{redirect}, {broken}]"))
    assert route_targets(world.route("r")) == ()


def test_claims_without_routes_use_nothing() -> None:
    world = World(service())
    config = RouteConfigKey(GATEWAY, "http/80")
    for kind in (HostKind.EMPTY, HostKind.MISDIRECTED, HostKind.DEFAULT):
        world.commit({t.HOSTS: {(config, "*", RouteKey("", "", "l")): HostEntry(kind=kind, port=80)}})
        assert world.graph.rows(t.CLUSTER_USES) == {}
    world.claim("unknown")
    assert world.graph.rows(t.CLUSTER_USES) == {}


def test_ports_behind_a_waypoint_that_are_not_http_are_used_directly() -> None:
    world = World(service(ports="[{port: 80, name: http}, {port: 90, name: tcp}]"))
    row = WaypointService(
        gateway=GATEWAY,
        service=Key("default", "web"),
        hostname="web.default.svc.cluster.local",
        ports=(WaypointPort(port=80), WaypointPort(port=90, protocol=AppProtocol.TCP)),
    )
    world.commit({t.WAYPOINT_SERVICES: {(GATEWAY, row.service): row}})
    assert [key.target for key in world.graph.rows(t.CLUSTERS)] == [web(90, "tcp")]


@pytest.mark.parametrize(
    ("app_protocol", "asked", "spoken"),
    [
        ("", "", UpstreamProtocol.HTTP1),
        ("http", "", UpstreamProtocol.HTTP1),
        ("HTTPS", "", UpstreamProtocol.HTTP1),
        ("kubernetes.io/ws", "", UpstreamProtocol.WEBSOCKET),
        ("kubernetes.io/wss", "", UpstreamProtocol.WEBSOCKET),
        ("kubernetes.io/h2c", "", UpstreamProtocol.HTTP2),
        ("grpc", "", UpstreamProtocol.HTTP2),
        ("HTTP2", "", UpstreamProtocol.HTTP2),
        ("", "grpc", UpstreamProtocol.HTTP2),
        ("http", "grpc", UpstreamProtocol.HTTP2),
        ("grpc", "tcp", UpstreamProtocol.TCP),
        ("", "tcp+tls", UpstreamProtocol.TCP),
    ],
)
def test_what_is_spoken_upstream(app_protocol: str, asked: str, spoken: UpstreamProtocol) -> None:
    assert reached(World(port(app_protocol)), web(protocol=asked)).protocol is spoken


@pytest.mark.parametrize(
    ("name", "role", "spoken"),
    [
        ("grpc-api", Role.WAYPOINT, UpstreamProtocol.HTTP2),
        ("http2", Role.WAYPOINT, UpstreamProtocol.HTTP2),
        ("http", Role.WAYPOINT, UpstreamProtocol.HTTP1),
        ("grpc-api", Role.INGRESS, UpstreamProtocol.HTTP1),
    ],
)
def test_port_names_speak_in_meshes_only(name: str, role: Role, spoken: UpstreamProtocol) -> None:
    world = World(port("", name))
    world.gateway(role=role)
    assert reached(world).protocol is spoken


@pytest.mark.parametrize(("mesh", "asked", "hbone"), [(True, "", True), (False, "", False), (True, "tcp", True)])
def test_hbone_is_for_gateways_of_the_mesh(mesh: bool, asked: str, hbone: bool) -> None:  # noqa: FBT001 - parameters
    assert reached(World(service(), mesh=mesh), web(protocol=asked)).hbone is hbone


def test_udp_is_never_tunnelled() -> None:
    world = World(service(ports="[{port: 80, protocol: UDP}]"), mesh=True)
    assert reached(world, web(protocol="udp")) == Cluster(
        key=ClusterKey(GATEWAY, web(protocol="udp")), protocol=UpstreamProtocol.UDP
    )


@pytest.mark.parametrize(
    "text",
    [service("else"), service(ports="[{port: 81}]"), service(more=", type: ExternalName, externalName: x.example")],
)
def test_a_backend_that_is_not_there_has_no_cluster(text: str) -> None:
    world = World(text)
    world.reach(web())
    assert world.cluster(web()) is None


def test_a_foreign_gateway_has_no_clusters() -> None:
    world = World(service())
    world.reach(web(), gateway=Key("x", "y"))
    assert world.cluster(web(), gateway=Key("x", "y")) is None


def test_a_policy_demands_tls() -> None:
    world = World(service() + POLICY, mesh=True)
    cluster = reached(world)
    assert cluster.tls == UpstreamTls(sni="web.example", sans=((SanKind.DNS, "web.example"),), system_roots=True)
    assert cluster.hbone
    world.remove(t.BACKEND_TLS_POLICIES, Key("default", "p"))
    assert reached(world).tls is None


@pytest.mark.parametrize(("asked", "governed"), [("", True), ("grpc", True), ("tcp+tls", True), ("tcp", False)])
def test_a_policy_governs_what_the_gateway_itself_sends(asked: str, governed: bool) -> None:  # noqa: FBT001 - parameters
    assert (reached(World(service() + POLICY), web(protocol=asked)).tls is not None) is governed


def test_the_gateways_certificate_is_shown_to_tls_backends_only() -> None:
    world = World(service() + service("plain") + POLICY)
    world.gateway(client_certificate="certificate/infra/c")
    tls = reached(world).tls
    assert tls is not None
    assert tls.client_certificate == "certificate/infra/c"
    assert reached(world, web(name="plain")).tls is None


def test_without_its_certificate_a_gateway_reaches_no_tls_backend() -> None:
    world = World(service() + service("plain") + POLICY)
    world.gateway(client_certificate_refused=True)
    assert reached(world).refused == "the client certificate of Gateway infra/edge cannot be used"
    assert reached(world, web(name="plain")).refused == ""


@pytest.mark.parametrize(
    "change", [("wellKnownCACertificates: System", ""), ("System}", "System, subjectAltNames: [{type: URI}]}")]
)
def test_a_policy_that_cannot_be_applied_closes_the_backend(change: tuple[str, str]) -> None:
    cluster = reached(World(service() + POLICY.replace(*change), mesh=True))
    assert cluster.refused.startswith("BackendTLSPolicy default/p cannot be applied: ")
    assert (cluster.tls, cluster.hbone) == (None, False)


def test_one_service_edited_rebuilds_its_clusters_only() -> None:
    names = [f"s{number}" for number in range(10)]
    refs = ", ".join(f"{{name: {name}, port: 80}}" for name in names)
    world = World("".join(map(service, names)) + http_route(f"[{{backendRefs: [{refs}]}}]"))
    world.claim("r")
    delta: Any = world.put(service("s3", ports="[{port: 80, appProtocol: grpc}]"))
    assert delta.recomputed["clusters"] == 1
    assert "endpoints" in delta.recomputed
    assert set(delta.changed(t.CLUSTERS)) == {ClusterKey(GATEWAY, web(name="s3"))}
