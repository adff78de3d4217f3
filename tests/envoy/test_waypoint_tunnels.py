"""Who may open a tunnel at a waypoint on real Envoy, and to where."""

from __future__ import annotations

import ssl

import pytest

from meshgw.ir.gateway import Settings
from meshgw.names import HBONE_PORT
from tests.envoy.waypoint_world import ECHO, REFUSED, World, allow, connect, deny
from tests.rig.certs import CertificateAuthority, authority, spiffe
from tests.rig.hbone import HboneClient, TunnelRefusedError
from tests.rig.http2 import StreamResetError
from tests.rig.mesh import policy


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
