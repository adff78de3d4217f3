"""What emitted listeners, clusters and secrets do with real connections."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from pathlib import Path

import httpcore
import pytest

from meshgw.api.meta import Key
from meshgw.emit.secret import SYSTEM_ROOTS_FILE
from meshgw.ir.backend import (
    Bundle,
    Certificate,
    Endpoint,
    SanKind,
    UpstreamProtocol,
    UpstreamTls,
    WorkloadCertificate,
    bundle_name,
    certificate_name,
)
from meshgw.ir.gateway import ClientValidation, ListenerTls, Protocol, TlsMode, ValidationMode
from meshgw.ir.keys import BackendTarget, RouteKey
from meshgw.ir.route import Backend, HostKind, Rule
from meshgw.resolve import tables as t
from tests.rig.backends import Backends
from tests.rig.certs import CertificateAuthority, Leaf, spiffe
from tests.rig.clients import HttpClient, Response, request, tcp_exchange, tls_handshake, udp_exchange, websocket
from tests.rig.envoy import run_static
from tests.rig.hbone import HboneServer
from tests.rig.tls import ClientTls, ServerTls
from tests.unit.emit.world import GATEWAY, World, backend, https, listener, match, route, target

HTTPS = 8443


def hold(world: World, name: str, leaf: Leaf) -> str:
    secret = certificate_name("default", name)
    world.put(t.CERTIFICATES, Key("default", name), Certificate(name=secret, chain=leaf.chain, key=leaf.key))
    return secret


def trust(world: World, name: str, ca: CertificateAuthority) -> str:
    bundle = bundle_name("ConfigMap", "default", name)
    world.put(t.BUNDLES, ("ConfigMap", Key("default", name)), Bundle(name=bundle, roots=ca.root))
    return bundle


def everything(name: str = "app") -> Rule:
    return Rule(matches=(match(),), backends=(backend(name),))


async def test_https_listeners_are_chosen_by_sni_and_keep_to_their_hosts(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    world = World(bind=loopback)
    one = https("one", "one.test", hold(world, "one", ca.issue("one.test")), port=HTTPS)
    wild = https("wild", "*.wild.test", hold(world, "wild", ca.issue("*.wild.test")), port=HTTPS)
    world.listen(one, wild)
    world.serve(one, route(everything("one"), name="one"), "one.test")
    world.serve(wild, route(everything("wild"), name="wild"), "*.wild.test")
    world.claim(one, "*.wild.test", RouteKey("", "", "one"), HostKind.MISDIRECTED)
    world.claim(wild, "one.test", RouteKey("", "", "wild"), HostKind.MISDIRECTED)
    for name in ("one", "wild"):
        world.reach(target(name), (await backends.echo(name)).address)
    world.commit()
    async with run_static(world.static()):

        async def get(sni: str, host: str, http: str = "2") -> Response:
            tls = ClientTls(ca.root, sni=sni, alpn=("h2",) if http == "2" else ())
            return await request((loopback, HTTPS), host=host, tls=tls, http=http)  # type: ignore[arg-type]

        assert (await get("one.test", "one.test")).pod == "one"
        assert (await get("a.wild.test", "b.wild.test")).pod == "wild"
        assert (await get("one.test", "one.test", "1.1")).version == "HTTP/1.1"
        assert (await get("one.test", "a.wild.test")).status == 421
        assert (await get("a.wild.test", "one.test")).status == 421
        assert (await get("one.test", "other.test")).status == 404
        with pytest.raises((httpcore.ConnectError, ssl.SSLError, ConnectionError, httpcore.ReadError)):
            await get("other.test", "one.test")


async def test_tls_and_https_share_a_port_by_sni(loopback: str, backends: Backends, ca: CertificateAuthority) -> None:
    world = World(bind=loopback)
    web = https("web", "", hold(world, "web", ca.issue("web.test", "*.thru.test")), port=HTTPS)
    thru = listener("thru", HTTPS, Protocol.TLS, "*.thru.test", tls=ListenerTls(mode=TlsMode.PASSTHROUGH))
    ended = hold(world, "ended", ca.issue("ended.test"))
    ends = listener("ends", HTTPS, Protocol.TLS, "ended.test", tls=ListenerTls(certificates=(ended,)))
    world.listen(web, thru, ends)
    world.serve(web, route(everything("web")))
    world.forward(thru, (("a.thru.test", "*.b.thru.test"), (Backend(target=target("thru", protocol="tcp")),)))
    world.forward(ends, (("ended.test",), (Backend(target=target("ended", protocol="tcp")),)))
    behind = ca.issue("a.thru.test", "*.b.thru.test")
    world.reach(target("web"), (await backends.echo("web")).address)
    thru_at = (await backends.tcp("thru", tls=ServerTls(behind))).address
    world.reach(target("thru", protocol="tcp"), thru_at, protocol=UpstreamProtocol.TCP)
    world.reach(target("ended", protocol="tcp"), (await backends.tcp("ended")).address, protocol=UpstreamProtocol.TCP)
    world.commit()
    async with run_static(world.static()):
        place = (loopback, HTTPS)
        assert (await request(place, host="web.test", tls=ClientTls(ca.root, sni="web.test"))).pod == "web"
        for sni in ("a.thru.test", "x.b.thru.test"):
            assert (await tls_handshake(place, ClientTls(ca.root, sni=sni)))[0]
            assert (await tcp_exchange(place, b"hi", tls=ClientTls(ca.root, sni=sni), banner=True))[0] == b"thru"
        tls = ClientTls(ca.root, sni="ended.test")
        assert await tcp_exchange(place, b"hi", tls=tls, banner=True) == (b"ended", b"hi")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await tls_handshake(place, ClientTls(ca.root, sni="unrouted.thru.test"))


async def test_tcp_is_forwarded_by_weight_and_closed_where_it_cannot_be(loopback: str, backends: Backends) -> None:
    world = World(bind=loopback)
    rows = [listener(name, port, Protocol.TCP) for name, port in (("both", 9001), ("bad", 9002), ("idle", 9003))]
    world.listen(*rows)
    first, second = (target(name, protocol="tcp") for name in ("one", "two"))
    world.forward(
        rows[0], ((), (Backend(target=first, weight=3), Backend(target=second), Backend(target=None, weight=0)))
    )
    world.forward(rows[1], ((), (Backend(target=None),)))
    for name in ("one", "two"):
        address = (await backends.tcp(name)).address
        world.reach(target(name, protocol="tcp"), address, protocol=UpstreamProtocol.TCP)
    world.commit()
    async with run_static(world.static()):
        seen = Counter([(await tcp_exchange((loopback, 9001), b"x", banner=True))[0] for _ in range(60)])
        assert set(seen) == {b"one", b"two"}
        assert seen[b"one"] > seen[b"two"]
        for port in (9002, 9003):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await tcp_exchange((loopback, port), b"x")


async def test_udp_shares_follow_the_endpoints_weights(loopback: str, backends: Backends) -> None:
    world, row = World(bind=loopback), listener("dns", 9053, Protocol.UDP)
    idle = listener("idle", 9054, Protocol.UDP)
    world.listen(row, idle)
    whole = BackendTarget("UDPRoute", "default", "dns", 0, "udp")
    world.forward(row, ((), (Backend(target=whole),)))
    one, two = [await backends.udp(name) for name in ("one", "two")]
    endpoints = [Endpoint(address=pod.address[0], port=pod.address[1], weight=w) for pod, w in ((one, 3), (two, 1))]
    world.reach(whole, *endpoints, protocol=UpstreamProtocol.UDP, members=((target("one"), 3), (target("two"), 1)))
    world.commit()
    async with run_static(world.static()):
        seen = Counter([(await udp_exchange((loopback, 9053), b"x"))[:3] for _ in range(80)])
        assert 45 <= seen[b"one"] <= 75, seen
        with pytest.raises(TimeoutError):
            await udp_exchange((loopback, 9054), b"x", within=0.3)


@pytest.mark.parametrize("mode", list(ValidationMode))
async def test_client_certificates_are_judged_as_the_port_says(
    loopback: str, backends: Backends, ca: CertificateAuthority, mode: ValidationMode
) -> None:
    world, other = World(bind=loopback), CertificateAuthority.create("another root")
    second = CertificateAuthority.create("a second root")
    client = ClientValidation(bundles=(trust(world, "roots", ca), trust(world, "more", second)), mode=mode)
    row = https("web", "", hold(world, "web", ca.issue("web.test")), port=HTTPS, client=client)
    world.listen(row)
    world.serve(row, route(everything()))
    world.reach(target(), (await backends.echo("app")).address)
    world.commit()
    async with run_static(world.static()):

        async def status(identity: Leaf | None) -> int | str:
            tls = ClientTls(ca.root, identity=identity, sni="web.test")
            try:
                return (await request((loopback, HTTPS), host="web.test", tls=tls)).status
            except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError):
                return "refused"

        assert await status(ca.issue("me")) == 200
        assert await status(second.issue("me")) == 200
        bad = [await status(identity) for identity in (None, other.issue("me"), ca.expired("me"))]
        assert bad == (["refused"] * 3 if mode is ValidationMode.VALID_ONLY else [200] * 3)


async def test_backends_prove_their_names_before_they_get_a_request(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    world, row = World(bind=loopback), listener("http", 8080)
    world.listen(row)
    app = await backends.echo("app", tls=ServerTls(ca.issue("app.test", uris=("spiffe://td/app",))))
    plain = await backends.echo("plain")
    roots, other = trust(world, "roots", ca), trust(world, "other", CertificateAuthority.create("other root"))
    cases = {
        "good": (app, UpstreamTls(sni="app.test", bundles=(roots,)), 200),
        "both": (app, UpstreamTls(sni="app.test", bundles=(other, roots)), 200),
        "san": (app, UpstreamTls(sni="x.test", bundles=(roots,), sans=((SanKind.URI, "spiffe://td/app"),)), 200),
        "name": (app, UpstreamTls(sni="wrong.test", bundles=(roots,)), 503),
        "uri": (app, UpstreamTls(sni="app.test", bundles=(roots,), sans=((SanKind.URI, "spiffe://td/no"),)), 503),
        "root": (app, UpstreamTls(sni="app.test", bundles=(other,)), 503),
        "bare": (app, UpstreamTls(sni="app.test"), 503),
        "plain": (plain, UpstreamTls(sni="app.test", bundles=(roots,)), 503),
    }
    for name, (pod, tls, _status) in cases.items():
        world.serve(row, route(everything(name), name=name), f"{name}.test")
        world.reach(target(name), pod.address, tls=tls)
    world.serve(row, route(everything("refused"), name="refused"), "refused.test")
    world.reach(target("refused"), app.address, refused="no such bundle")
    world.commit()
    async with run_static(world.static()), HttpClient((loopback, 8080), within=15) as client:
        got = {name: (await client.get(host=f"{name}.test")).status for name in cases}
        assert got == {name: status for name, (_, _, status) in cases.items()}
        assert (await client.get(host="refused.test")).status == 503
        echo = (await client.get(host="good.test")).echo
        assert echo.tls is not None
        assert (echo.tls.sni, echo.proto, echo.host) == ("app.test", "HTTP/2", "good.test")


async def test_the_gateways_certificate_is_shown_to_backends(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    world, row = World(bind=loopback), listener("http", 8080)
    world.listen(row)
    app = await backends.echo("app", tls=ServerTls(ca.issue("app.test"), client_ca=ca.root, alpn=("http/1.1",)))
    tls = UpstreamTls(sni="app.test", bundles=(trust(world, "roots", ca),))
    mine = hold(world, "mine", ca.issue("gateway.test"))
    shown = UpstreamTls(sni=tls.sni, bundles=tls.bundles, client_certificate=mine)
    for name, how in (("shown", shown), ("hidden", tls)):
        world.serve(row, route(everything(name), name=name), f"{name}.test")
        world.reach(target(name), app.address, tls=how)
    world.commit()
    async with run_static(world.static()), HttpClient((loopback, 8080)) as client:
        assert (await client.get(host="shown.test")).status == 200
        assert (await client.get(host="hidden.test")).status == 503
        async with websocket((loopback, 8080), "/", host="shown.test") as socket:
            await socket.send("ping")
            assert "ping" in str(await socket.recv())


@pytest.mark.skipif(not Path(SYSTEM_ROOTS_FILE).exists(), reason="this system keeps its CA certificates elsewhere")
async def test_system_roots_verify_where_nothing_else_is_named(loopback: str, backends: Backends) -> None:
    world, row = World(bind=loopback), listener("http", 8080)
    world.listen(row)
    ours = CertificateAuthority.create("not a public root")
    app = await backends.echo("app", tls=ServerTls(ours.issue("app.test")))
    world.serve(row, route(everything()))
    world.reach(target(), app.address, tls=UpstreamTls(sni="app.test", system_roots=True))
    world.commit()
    async with run_static(world.static()) as envoy:
        assert (await request((loopback, 8080))).status == 503
        assert (await envoy.admin.stats("ssl.fail_verify_error"))[
            "cluster.service/default/app/80.ssl.fail_verify_error"
        ]


async def test_hbone_endpoints_must_prove_their_very_identity(
    loopback: str, backends: Backends, mesh_ca: CertificateAuthority
) -> None:
    world, row = World(bind=loopback), listener("http", 8080)
    world.listen(row)
    identity = "spiffe://cluster.local/ns/default/sa/{}"
    app, plain = await backends.echo("app", host=loopback), await backends.echo("plain")
    gateway = spiffe("gw")
    world.put(
        t.WORKLOAD_CERTIFICATES,
        Key(GATEWAY.namespace, "gw"),
        WorkloadCertificate(chain=gateway.chain, key=gateway.key, roots=mesh_ca.root),
    )
    for name in ("app", "other", ""):
        host = name or "nobody"
        world.serve(row, route(everything(host), name=host), f"{host}.test")
        proven = Endpoint(
            address=loopback, port=app.address[1], hbone=True, identity=identity.format(name) if name else ""
        )
        world.reach(target(host), proven, hbone=True)
    world.serve(row, route(everything("plain"), name="plain"), "plain.test")
    world.reach(target("plain"), plain.address, hbone=True)
    world.commit()
    async with (
        HboneServer(spiffe("app"), mesh_ca.root, host=loopback, port=15008) as node,
        run_static(world.static()) as envoy,
        HttpClient((loopback, 8080)) as client,
    ):
        assert (await client.get(host="app.test")).pod == "app"
        assert [connect.authority for connect in node.connects] == [f"{loopback}:{app.address[1]}"]
        assert {connect.peer for connect in node.connects} == {identity.format("gw")}
        assert (await client.get(host="other.test")).status == 503
        assert (await client.get(host="nobody.test")).status == 503
        assert (await client.get(host="plain.test")).pod == "plain"
        assert len(node.connects) == 1
        stats = await envoy.admin.stats("connect_originate.*ssl")
        assert stats["cluster.connect_originate.ssl.fail_verify_san"] >= 1
