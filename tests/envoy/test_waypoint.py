"""A waypoint on real Envoy: who gets through, to whom, and what a refused client learns."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshgw.ir.gateway import Settings
from meshgw.names import HBONE_PORT
from tests.envoy.waypoint_mesh import Mesh
from tests.rig.addresses import next_loopback
from tests.rig.backends import Backends, EchoBackend, TcpBackend
from tests.rig.certs import CertificateAuthority, authority, spiffe
from tests.rig.clients import HttpClient, Response
from tests.rig.hbone import HboneClient, HboneServer, Tunnel, TunnelRefusedError
from tests.rig.http2 import StreamResetError
from tests.rig.mesh import endpoints, pod, policy, service
from tests.rig.waiting import eventually

ECHO, DB = "10.96.0.1:80", "10.96.0.2:3306"
BEHIND = "{istio.io/use-waypoint: waypoint}"
REFUSED = (ConnectionError, ssl.SSLError, StreamResetError)


class World:
    """An HTTP service `echo` and a TCP service `db` whose server speaks first, both on the Pod `app`."""

    def __init__(self, mesh: Mesh, echo: EchoBackend, db: TcpBackend, node: HboneServer, address: str) -> None:
        self.mesh, self.echo, self.db, self.node, self.address = mesh, echo, db, node, address

    async def get(
        self, account: str = "client", path: str = "/", *, namespace: str = "default", **options: object
    ) -> int:
        """Return the status that a client gets from `echo`."""
        async with self.mesh.client(account, namespace) as client:
            response: Response = await client.request(ECHO, path, **options)  # type: ignore[arg-type]
            return response.status

    async def connect(self, authority: str, account: str = "client", *, namespace: str = "default") -> int:
        """Return the status of a CONNECT."""
        async with self.mesh.client(account, namespace) as client:
            return await connect(client, authority)


async def connect(client: HboneClient, authority: str) -> int:
    try:
        tunnel = await client.connect(authority)
    except TunnelRefusedError as refusal:
        return refusal.status
    await tunnel.close()
    return 200


async def greeting(tunnel: Tunnel) -> bytes:
    return await tunnel.read_exactly(6)


@pytest.fixture
async def world(backends: Backends) -> AsyncIterator[World]:
    async with Mesh() as mesh:
        echo, db, address = await backends.echo("v1"), await backends.tcp("hello"), next_loopback()
        node = await mesh.node(address, p8080=echo.address, p3306=db.address)
        mesh.add(
            service("echo", "10.96.0.1", "[{name: http, port: 80}]"),
            endpoints("echo", {"http": 8080}, address),
            service("db", "10.96.0.2", "[{name: tcp, port: 3306}]"),
            endpoints("db", {"tcp": 3306}, address),
            pod("app", address, labels=BEHIND),
        )
        yield World(mesh, echo, db, node, address)


def allow(rules: str) -> str:
    return f"rules: [{rules}]"


def deny(rules: str) -> str:
    return f"action: DENY\n  rules: [{rules}]"


# --- The path ------------------------------------------------------------------------------------------------------


async def test_http_goes_through_both_tunnels_as_the_waypoint(world: World) -> None:
    async with world.mesh.run(), world.mesh.client() as client:
        response = await client.request(ECHO, "/hello?x=1")
        assert (response.status, response.echo.path) == (200, "/hello?x=1")
        assert (await client.request(ECHO, http="2")).status == 200
    assert {(item.authority, item.peer) for item in world.node.connects} == {
        (f"{world.address}:8080", "spiffe://cluster.local/ns/default/sa/waypoint")
    }


async def test_a_server_may_speak_first(world: World) -> None:
    async with world.mesh.run(), world.mesh.client() as client:
        tunnel = await client.connect(DB)
        assert await greeting(tunnel) == b"hello\n"
        await tunnel.write(b"ping")
        assert await tunnel.read_exactly(4) == b"ping"


async def test_a_workload_is_reached_at_any_of_its_ports(world: World) -> None:
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(f"{world.address}:8080")).status == 200
        assert await greeting(await client.connect(f"{world.address}:3306")) == b"hello\n"
    assert [item.authority for item in world.node.connects] == [f"{world.address}:8080", f"{world.address}:3306"]


async def test_a_workload_outside_of_the_mesh_is_reached_directly(world: World, backends: Backends) -> None:
    host = next_loopback()
    plain = await backends.echo("plain", host=host)
    world.mesh.add(
        pod("plain", host, hbone=False, labels=BEHIND),
        service("plain", "10.96.0.3", "[{name: http, port: 80}]"),
        endpoints("plain", {"http": plain.port}, host),
    )
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(f"{host}:{plain.port}")).echo.pod == "plain"
        assert (await client.request("10.96.0.3:80")).echo.pod == "plain"
    assert world.node.connects == []


async def test_both_ip_families_are_served(world: World) -> None:
    dual = '"10.96.0.1", clusterIPs: ["10.96.0.1", "FD00:10:0::1"]'
    world.mesh.text = world.mesh.text.replace('clusterIP: "10.96.0.1"', f"clusterIP: {dual}")
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request("[fd00:10::1]:80")).status == 200
        assert (await client.request(ECHO)).status == 200


async def test_routes_of_the_service_decide_where_requests_go(world: World, backends: Backends) -> None:
    second, address = await backends.echo("v2"), next_loopback()
    await world.mesh.node(address, account="app-v2", p8080=second.address)
    world.mesh.add(
        service("echo-v2", "10.96.0.9", "[{name: http, port: 80}]", waypoint="none"),
        endpoints("echo-v2", {"http": 8080}, address),
        pod("app-v2", address, account="app-v2"),
        """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: echo, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: echo}]
  rules:
  - matches: [{path: {value: /v}, headers: [{name: x-version, value: v2}]}]
    backendRefs: [{name: echo-v2, port: 80}]
  - matches: [{path: {value: /v}}]
    backendRefs: [{name: echo, port: 80}]
""",
        policy("p", deny("{from: [{source: {principals: [cluster.local/ns/default/sa/evil]}}]}")),
    )
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(ECHO, "/v")).echo.pod == "v1"
        assert (await client.request(ECHO, "/v", headers={"x-version": "v2"})).echo.pod == "v2"
        assert (await client.request(ECHO, "/other")).status == 404
        async with world.mesh.client("evil") as evil:
            assert (await evil.request(ECHO, "/v")).status == 403
            assert (await evil.request(ECHO, "/other")).status == 403
        assert await connect(client, "10.96.0.9:80") == 404


# --- Identity of the destination -----------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ["other", "app2", "ap"])
async def test_a_destination_that_is_someone_else_is_not_talked_to(
    world: World, backends: Backends, account: str
) -> None:
    address, trap = next_loopback(), await backends.echo("trap")
    await world.mesh.node(address, account=account, p8080=trap.address, p3306=trap.address)
    world.mesh.text = world.mesh.text.replace(world.address, address)
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(ECHO)).status == 503
        for target in (DB, f"{address}:8080"):
            with pytest.raises((TunnelRefusedError, StreamResetError, ConnectionError)):
                await (await client.connect(target)).read_exactly(1)
    assert trap.hits == []


# --- Who may open a tunnel -----------------------------------------------------------------------------------------


async def refused(client: HboneClient) -> bool:
    """Whether a connection ends in the TLS handshake (which a TLS 1.3 client may notice at its first stream only)."""
    try:
        async with client:
            await client.connect(ECHO)
    except TunnelRefusedError:
        return False
    except (*REFUSED, TimeoutError):
        return True
    return False


async def test_no_certificate_no_tunnel(world: World) -> None:
    target = (world.mesh.address, HBONE_PORT)
    async with world.mesh.run():
        assert await refused(HboneClient(target, ca=authority("mesh").root, identity=None))
        assert not await refused(world.mesh.client())


async def test_a_certificate_of_another_authority_opens_no_tunnel(world: World) -> None:
    stranger = CertificateAuthority.create("stranger").issue(uris=["spiffe://cluster.local/ns/default/sa/client"])
    async with world.mesh.run():
        assert await refused(world.mesh.client(leaf=stranger))


@pytest.mark.parametrize("domain", ["foreign", "cluster.local.evil", "cluster"])
async def test_another_trust_domain_opens_no_tunnel(world: World, domain: str) -> None:
    async with world.mesh.run():
        assert await refused(world.mesh.client(leaf=spiffe("client", trust_domain=domain)))


async def test_an_alias_of_the_trust_domain_opens_tunnels(world: World) -> None:
    world.mesh.settings = Settings(mesh=True, loopback_endpoints=True, trust_domain_aliases=("old.td",))
    world.mesh.add(policy("p", allow("{from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]}")))
    async with world.mesh.run(), world.mesh.client(leaf=spiffe("client", trust_domain="old.td")) as client:
        assert (await client.request(ECHO)).status == 200


async def test_tls_1_2_opens_no_tunnel(world: World) -> None:
    target, mesh_root = (world.mesh.address, HBONE_PORT), authority("mesh").root
    old = HboneClient(target, ca=mesh_root, identity=spiffe("client"), maximum=ssl.TLSVersion.TLSv1_2)
    async with world.mesh.run():
        assert await refused(old)


@pytest.mark.parametrize(
    "uris",
    [
        ["spiffe://cluster.local/ns/default/sa/client", "spiffe://cluster.local/ns/admin/sa/root"],
        ["spiffe://cluster.local/workload/client"],
        ["spiffe://cluster.local/ns/default/sa/client/more"],
    ],
)
async def test_a_peer_that_is_not_exactly_one_workload_opens_no_tunnel(world: World, uris: list[str]) -> None:
    leaf = authority("mesh").issue(uris=uris)
    async with world.mesh.run(), world.mesh.client(leaf=leaf) as client:
        assert await connect(client, ECHO) == 403


async def test_http_2_is_negotiated_without_a_server_name(world: World) -> None:
    async with world.mesh.run(), world.mesh.client() as client:
        assert client.info is not None
        assert client.info.alpn == "h2"


# --- Authorities ---------------------------------------------------------------------------------------------------

SPELLINGS = [
    "10.96.0.9:80",
    "10.96.0.1:81",
    "10.96.0.1",
    "10.96.0.1:",
    "010.96.0.1:80",
    "10.96.0.1:080",
    "10.96.0.1:0080",
    "10.096.0.1:80",
    "10.96.1:80",
    "0x0a.96.0.1:80",
    "10.96.0.2:03306",
    "[::ffff:10.96.0.2]:3306",
    "[::ffff:a60:2]:3306",
    "user@10.96.0.2:3306",
    "10.96.0.2.:3306",
    "10.96.0.2:3306.",
    "10.96.0.2:3306@",
    "10.96.0.2:3306:3306",
    "echo.default.svc.cluster.local:80",
    "127.0.0.1:15000",
    "*",
]


@pytest.mark.parametrize("account", ["client", "evil"])
async def test_only_known_authorities_in_their_one_spelling_are_opened(world: World, account: str) -> None:
    for target in ("Service db", "Gateway waypoint"):
        name = target.split()[1]
        spec = deny("{from: [{source: {principals: [cluster.local/ns/default/sa/evil]}}]}")
        world.mesh.add(policy(name, spec, target=target))
    wrong = [f"{world.address}{port}" for port in (":08080", ":0", ":", ":8080x", "")]
    opened = {}
    async with world.mesh.run(), world.mesh.client(account) as client:
        for authority_ in [*SPELLINGS, *wrong]:
            try:
                opened[authority_] = await connect(client, authority_)
            except StreamResetError:
                opened[authority_] = 400
    assert {authority_: status for authority_, status in opened.items() if status < 400} == {}
    assert world.node.connects == []


async def test_an_ipv6_address_has_one_spelling(world: World) -> None:
    world.mesh.text = world.mesh.text.replace('"10.96.0.2"', '"fd00:10::2"')
    world.mesh.add(policy("p", deny("{from: [{source: {namespaces: [evil]}}]}"), target="Service db"))
    others = ["[fd00:10:0::2]:3306", "[fd00:0010::2]:3306", "[fd00:10:0:0:0:0:0:2]:3306", "fd00:10::2:3306"]
    async with world.mesh.run():
        assert await world.connect("[fd00:10::2]:3306") == 200
        assert [await world.connect(item) for item in others] == [404] * 4
        for item in ["[fd00:10::2]:3306", "[FD00:10::2]:3306"]:
            assert await world.connect(item, namespace="evil") == 403


async def test_only_connect_is_understood(world: World) -> None:
    async with world.mesh.run(), world.mesh.client() as client:
        assert client._link is not None
        for method in ("GET", "POST"):
            request = [(":method", method), (":scheme", "http"), (":authority", ECHO), (":path", "/")]
            stream = await client._link.open(request)
            assert dict(await stream.headers)[":status"] == "403"
        websocket = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/")]
        stream = await client._link.open([*websocket, (":authority", ECHO)])
        assert int(dict(await stream.headers)[":status"]) >= 400
    assert world.node.connects == []


# --- Authorization of HTTP -----------------------------------------------------------------------------------------


async def test_a_refused_request_gets_403_and_reaches_nobody(world: World) -> None:
    world.mesh.add(policy("p", allow("{from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]}")))
    async with world.mesh.run():
        assert await world.get() == 200
        async with world.mesh.client("other") as client:
            response = await client.request(ECHO)
        assert (response.status, response.body) == (403, b"RBAC: access denied")
    assert world.echo.count() == 1


async def test_namespaces_methods_paths_and_hosts_decide(world: World) -> None:
    world.mesh.add(
        policy(
            "p",
            allow(
                "{from: [{source: {namespaces: [web]}}], to: [{operation: {methods: [GET], paths: [/open*],"
                " notPaths: [/open/secret], hosts: [echo.example]}}]},"
                " {from: [{source: {principals: ['*/sa/admin'], notNamespaces: [web]}}]}"
            ),
        ),
    )
    good = {"namespace": "web", "path": "/open/x", "host": "Echo.EXAMPLE"}
    async with world.mesh.run():
        assert await world.get(**good) == 200  # type: ignore[arg-type]
        for wrong in (
            {"namespace": "web2"},
            {"path": "/shut"},
            {"path": "/open/secret?x=/open"},
            {"host": "other.example"},
            {"method": "PUT"},
        ):
            assert await world.get(**{**good, **wrong}) == 403, wrong  # type: ignore[arg-type]
        assert await world.get("admin", "/shut") == 200
        assert await world.get("admin", "/shut", namespace="web") == 403


@pytest.mark.parametrize(("rules", "status"), [("rules: []", 403), ("rules: [{}]", 200)])
async def test_an_allow_policy_with_and_without_rules(world: World, rules: str, status: int) -> None:
    world.mesh.add(policy("p", rules))
    async with world.mesh.run():
        assert await world.get() == status


async def test_deny_beats_allow(world: World) -> None:
    world.mesh.add(policy("a", allow("{}")), policy("d", deny("{to: [{operation: {methods: [GET]}}]}")))
    async with world.mesh.run():
        assert await world.get() == 403
        assert await world.get(method="PUT") == 200


async def test_an_unsupported_policy_denies_its_target_and_no_other(world: World) -> None:
    world.mesh.add(policy("p", allow("{when: [{key: source.ip, values: [127.0.0.1]}]}")))
    async with world.mesh.run():
        assert await world.get() == 403
        assert await world.connect(DB) == 200


NORMALIZED = [
    "/admin",
    "/admin?x=1",
    "//admin",
    "/./admin",
    "/x/../admin",
    "/%2e/admin",
    "/x/%2e%2e/admin",
    "/%61dmin",
    "/x%2F..%2Fadmin",
    "/%2Fadmin",
    "/x%5C..%5Cadmin",
    "/admin#x",
    "/secret/a",
    "/secret%2Fa",
    "/x/..//secret/./a",
]


async def test_no_spelling_of_a_denied_path_gets_through(world: World) -> None:
    world.mesh.add(policy("p", deny("{to: [{operation: {paths: [/admin, /secret/*]}}]}")))
    async with world.mesh.run(), world.mesh.client() as client:
        for http in ("1.1", "2"):
            for path in NORMALIZED:
                status = (await client.request(ECHO, path, http=http)).status  # type: ignore[arg-type]
                assert status in {307, 400, 403}, path
        assert (await client.request(ECHO, "/administrator")).status == 200
    assert world.echo.count() == 1


HOSTS = [
    "bad.example",
    "BAD.Example",
    "bad.example:80",
    "bad.example.",
    "bad.example.:80",
    "bad.example:",
    "x.BAD.org:1",
]


async def test_no_spelling_of_a_denied_host_gets_through(world: World) -> None:
    world.mesh.add(policy("p", deny("{to: [{operation: {hosts: [bad.example, '*.bad.org']}}]}")))
    async with world.mesh.run(), world.mesh.client() as client:
        for host in HOSTS:
            assert (await client.request(ECHO, host=host)).status == 403, host
            assert (await client.request(ECHO, host=host, http="2")).status == 403, host
        assert (await client.request(ECHO, host="good.example")).status == 200


async def test_bytes_that_are_no_utf_8_do_not_slip_past_a_negative_condition(world: World) -> None:
    world.mesh.add(policy("p", allow("{to: [{operation: {notPaths: ['*/admin'], notHosts: ['*.bad.org']}}]}")))
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(ECHO, "/ok")).status == 200
        assert (await client.request(ECHO, "/%ff/admin")).status == 403
        tunnel = await client.connect(ECHO)
        await tunnel.write(b"GET /ok HTTP/1.1\r\nhost: \xff.bad.org\r\n\r\n")
        assert (await tunnel.read()).split()[1] in {b"400", b"403"}
    assert world.echo.count() == 1


# --- Authorization of connections ----------------------------------------------------------------------------------


async def test_a_refused_connection_gets_nothing_of_what_the_server_says_first(world: World) -> None:
    spec = deny("{from: [{source: {principals: [cluster.local/ns/default/sa/evil]}}]}")
    world.mesh.add(policy("p", spec, target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB, "evil") == 403
        assert world.node.connects == []
        assert world.db.received == []
        async with world.mesh.client() as client:
            assert await greeting(await client.connect(DB)) == b"hello\n"


async def test_connections_are_allowed_by_peer_and_port(world: World) -> None:
    rule = "{from: [{source: {namespaces: [web]}}], to: [{operation: {ports: ['3306']}}]}"
    world.mesh.add(policy("p", allow(rule), target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB, namespace="web") == 200
        assert await world.connect(DB) == 403


async def test_http_conditions_close_a_tcp_port(world: World) -> None:
    world.mesh.add(policy("p", allow("{to: [{operation: {methods: [GET]}}]}"), target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB) == 403


async def test_http_conditions_do_not_narrow_a_denial_on_tcp(world: World) -> None:
    rule = "{from: [{source: {namespaces: [evil]}}], to: [{operation: {paths: [/admin]}}]}"
    world.mesh.add(policy("p", deny(rule), target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB, namespace="evil") == 403
        assert await world.connect(DB) == 200


async def test_the_waypoints_policies_guard_workloads_by_port(world: World) -> None:
    world.mesh.add(
        policy("p", deny("{to: [{operation: {ports: ['3306']}}]}"), target="Gateway waypoint"),
        policy("q", deny("{from: [{source: {namespaces: [evil]}}]}"), target="Gateway waypoint"),
    )
    async with world.mesh.run():
        assert await world.connect(f"{world.address}:8080") == 200
        assert await world.connect(f"{world.address}:3306") == 403
        assert await world.connect(f"{world.address}:33060") == 200
        assert await world.connect(f"{world.address}:8080", namespace="evil") == 403
        assert await world.connect(DB) == 403
        assert await world.get(namespace="evil") == 403
        assert await world.get() == 200


async def test_a_services_policy_does_not_reach_its_workloads(world: World) -> None:
    world.mesh.add(policy("p", "rules: []", target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB) == 403
        assert await world.connect(f"{world.address}:3306") == 200


# --- Changes while it runs -----------------------------------------------------------------------------------------


async def test_a_policy_holds_for_connections_that_are_open_already(world: World, tmp_path: Path) -> None:
    async with world.mesh.serve(tmp_path) as (_envoy, push), world.mesh.client() as client, client.http(ECHO) as http:
        assert (await http.request("GET")).status == 200
        first = (await http.request("GET")).echo.connection
        push(policy("p", deny("{to: [{operation: {paths: [/shut]}}]}")))
        await eventually(lambda: _status(http, "/shut", 403), what="403")
        assert (await http.request("GET", "/open")).echo.connection == first
        push(policy("p", deny("{to: [{operation: {paths: [/other]}}]}")))
        await eventually(lambda: _status(http, "/shut", 200), what="200 again")


async def test_a_policy_for_tcp_holds_for_the_next_tunnel_of_an_open_connection(world: World, tmp_path: Path) -> None:
    async with world.mesh.serve(tmp_path) as (_envoy, push), world.mesh.client() as client:
        assert await connect(client, DB) == 200
        push(policy("p", "rules: []", target="Service db"))

        async def refused() -> bool:
            return await connect(client, DB) == 403

        await eventually(refused, what="403")


async def test_a_new_service_disturbs_no_tunnel(world: World, tmp_path: Path) -> None:
    async with world.mesh.serve(tmp_path) as (envoy, push), world.mesh.client() as client:
        tunnel = await client.connect(DB)
        assert await greeting(tunnel) == b"hello\n"
        push(service("new", "10.96.0.7", "[{name: http, port: 80}]"))

        async def served() -> bool:
            return await connect(client, "10.96.0.7:80") == 200

        await eventually(served, what="the new service")
        await tunnel.write(b"still here")
        assert await tunnel.read_exactly(10) == b"still here"
        stats = await envoy.admin.stats("listener_manager")
        assert stats["listener_manager.listener_in_place_updated"] == 1
        assert stats["listener_manager.total_filter_chains_draining"] == 0
        assert stats["listener_manager.total_listeners_draining"] == 0


async def _status(client: HttpClient, path: str, status: int) -> bool:
    return (await client.request("GET", path)).status == status


# --- What is said --------------------------------------------------------------------------------------------------


async def test_the_log_names_the_client(world: World) -> None:
    async with world.mesh.run() as envoy:
        assert await world.get("teller") == 200
        await eventually(
            lambda: '"principal":"spiffe://cluster.local/ns/default/sa/teller"' in envoy.log(), what="the principal"
        )
