"""The server as other machines reach it: by TLS, authenticated, for a time, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from msgspec.structs import replace

from meshgw.emit.resource import Resource
from meshgw.xds.cache import Cache
from meshgw.xds.proxy import Account, Limits, Peer, Refused
from meshgw.xds.server import SERVICE, AdsServer
from meshgw.xds.transport import check_loopback, tls_credentials
from tests.rig.certs import CertificateAuthority, authority
from tests.rig.tls import describe
from tests.unit.xds.peers import DEADLINE, NAME, Clock, Proxy, Recorder, connected, names, open_channel, serving, until
from tests.unit.xds.playbook import CDS, EDS, GROUP, LDS, authorize_all, cluster, edit, subscribe

TOKENS: dict[str, Peer | Refused] = {
    "Bearer good": Peer(
        address="", account=Account(namespace="default", service_account="gw", pod="gw-1", pod_uid="uid-1")
    ),
    "Bearer brief": Peer(
        address="",
        account=Account(namespace="default", service_account="gw", pod="gw-2", pod_uid="uid-2"),
        proven_for=0.2,
    ),
    "Bearer early": Refused("the API server is away", "UNAVAILABLE"),
}
GOOD = (("authorization", "Bearer good"),)
BRIEF = (("authorization", "Bearer brief"),)
ROOTS = authority().root


async def authenticate(peer: Peer) -> Peer | Refused:
    found = TOKENS.get(peer.headers.get("authorization", ""), Refused("no such token", "UNAUTHENTICATED"))
    if isinstance(found, Refused):
        return found
    return replace(peer, account=found.account, proven_for=found.proven_for)


class Certificate:
    """What the server shows, to be replaced."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.leaf = authority().issue(NAME)

    def __call__(self) -> tuple[bytes, bytes]:
        return self.leaf.key, self.leaf.chain


@pytest.fixture
def certificate() -> Certificate:
    return Certificate()


@asynccontextmanager
async def guarded(certificate: Certificate, **options: Any) -> AsyncIterator[AdsServer]:
    """A server that listens on every address of the machine."""
    options = {"authenticate": authenticate, "listen": "0.0.0.0:0", **options}
    async with serving(credentials=tls_credentials(certificate), **options) as server:
        server.address = f"127.0.0.1:{server.address.rpartition(':')[2]}"
        yield server


def trusting(certificate_authority: CertificateAuthority | None = None) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=(certificate_authority or authority()).root.decode())


async def handshake(address: str, context: ssl.SSLContext) -> Any:
    """Connect and tell how it went; raises what Python raises."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(DEADLINE):
        _reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
        facts = writer.get_extra_info("ssl_object")
        writer.close()
    return facts


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.1.2.3:9", "[::1]:9", "unix:/run/x"])
def test_loopback_and_unix_sockets_need_no_guard(listen: str) -> None:
    check_loopback(listen)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "10.0.0.1:80", "localhost:80", "[::]:80", "80"])
@pytest.mark.parametrize("missing", ["credentials", "authenticate"])
def test_other_addresses_need_all_of_it(certificate: Certificate, listen: str, missing: str) -> None:
    options: dict[str, Any] = {"credentials": tls_credentials(certificate), "authenticate": authenticate}
    AdsServer(Cache(), authorize=authorize_all, listen=listen, **options)
    del options[missing]
    with pytest.raises(ValueError, match="loopback"):
        AdsServer(Cache(), authorize=authorize_all, listen=listen, **options)


async def test_a_proxy_with_a_token_is_served_by_tls(certificate: Certificate) -> None:
    peers: list[Peer] = []

    def authorize(peer: Peer, node_id: str, metadata: Mapping[str, object]) -> str:
        peers.append(peer)
        return GROUP

    async with guarded(certificate, authorize=authorize) as server:
        server.publish(GROUP, edit(cluster("a")).changes, ready=True)
        async with connected(server, roots=ROOTS, metadata=GOOD) as proxy:
            assert names(await proxy.ask(subscribe(CDS, node_id="n"))) == ["a"]
    assert [peer.account and peer.account.pod for peer in peers] == ["gw-1"]
    assert "good" not in str([peer.headers for peer in peers])


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED),
        ((("authorization", "Bearer bad"),), grpc.StatusCode.UNAUTHENTICATED),
        ((("authorization", "Bearer early"),), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_others_are_refused_before_a_word_of_theirs_is_read(
    certificate: Certificate, metadata: Any, code: grpc.StatusCode, *, delta: bool
) -> None:
    recorder = Recorder()

    def authorize(*_: object) -> str:
        raise AssertionError("nobody gets here")

    async with guarded(certificate, authorize=authorize, observer=recorder) as server:
        server.publish(GROUP, edit(cluster("a")).changes, ready=True)
        async with connected(server, roots=ROOTS, metadata=metadata, delta=delta) as proxy:
            assert (await proxy.ending())[0] is code
        assert server.proxies() == ()
    assert recorder.told == [("refused", code.name)]


async def test_there_is_nothing_else_to_call(certificate: Certificate) -> None:
    async with guarded(certificate) as server, open_channel(server.address, ROOTS) as channel:
        for method in (f"/{SERVICE}/FetchResources", "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters"):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await channel.unary_unary(method, bytes, bytes)(b"", metadata=GOOD)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_what_is_allowed_is_asked_for_every_message(certificate: Certificate) -> None:
    allowed = True

    def authorize(peer: Peer, node_id: str, metadata: Mapping[str, object]) -> str | Refused:
        return GROUP if allowed else Refused("no more")

    async with guarded(certificate, authorize=authorize) as server:
        server.publish(GROUP, edit(cluster("a")).changes, ready=True)
        async with connected(server, roots=ROOTS, metadata=GOOD) as proxy:
            response = await proxy.ask(subscribe(CDS, node_id="n"))
            allowed = False
            await proxy.answer(response)
            assert await proxy.ending() == (grpc.StatusCode.PERMISSION_DENIED, "no more")


async def test_plain_text_is_not_understood(certificate: Certificate) -> None:
    async with guarded(certificate) as server, connected(server, metadata=GOOD) as proxy:
        assert (await proxy.ending())[0] is grpc.StatusCode.UNAVAILABLE
        assert server.proxies() == ()


async def test_a_proxy_does_not_speak_to_a_server_it_does_not_trust(certificate: Certificate) -> None:
    other = CertificateAuthority.create("other")
    async with guarded(certificate) as server:
        async with connected(server, roots=other.root, metadata=GOOD) as proxy:
            assert (await proxy.ending())[0] is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(ssl.SSLCertVerificationError):
            await handshake(server.address, trusting(other))


@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        (ssl.TLSVersion.TLSv1, None),
        (ssl.TLSVersion.TLSv1_1, None),
        (ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        (ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
    ],
)
async def test_tls_below_1_2_is_refused_by_the_server(
    certificate: Certificate, version: ssl.TLSVersion, spoken: str | None, tmp_path: Path
) -> None:
    context = only(version, trusting())
    server_context = only(version, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert speak(context, server_context, certificate, tmp_path) in {"TLSv1", "TLSv1.1", spoken}  # this side would
    async with guarded(certificate) as server:
        if spoken is None:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await handshake(server.address, context)
        else:
            assert (await handshake(server.address, context)).version() == spoken


def only(version: ssl.TLSVersion, context: ssl.SSLContext) -> ssl.SSLContext:
    """The context, made to speak this version whatever else it thinks of it."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def speak(client: ssl.SSLContext, server: ssl.SSLContext, certificate: Certificate, folder: Path) -> str | None:
    """The version that two sides agree on, without a network."""
    (folder / "both.pem").write_bytes(certificate.leaf.key + certificate.leaf.chain)
    server.load_cert_chain(folder / "both.pem")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(back, there, server_hostname=NAME),
        server.wrap_bio(there, back, server_side=True),
    ]
    for side in sides * 4:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return sides[0].version()


async def test_a_renewed_certificate_is_shown_at_the_next_handshake_and_streams_live_on(
    certificate: Certificate,
) -> None:
    async with guarded(certificate) as server:
        server.publish(GROUP, edit(cluster("a")).changes, ready=True)
        async with connected(server, roots=ROOTS, metadata=GOOD) as proxy:
            await proxy.answer(await proxy.ask(subscribe(CDS, node_id="n")))
            shown = []
            for _ in range(3):
                shown.append(
                    describe(await handshake(server.address, trusting())).peer_serial == certificate.leaf.serial
                )
                certificate.renew()
            assert shown == [True] * 3
            server.publish(GROUP, edit(cluster("b")).changes)
            assert names(await proxy.receive()) == ["b"]
            async with connected(server, roots=ROOTS, metadata=GOOD) as second:
                assert names(await second.ask(subscribe(CDS, node_id="m"))) == ["a", "b"]


async def test_an_old_stream_ends_once_its_proxy_has_answered(certificate: Certificate) -> None:
    async with guarded(certificate, limits=Limits(age=0.2)) as server:
        server.publish(GROUP, edit(cluster("a")).changes, ready=True)
        async with connected(server, roots=ROOTS, metadata=GOOD) as proxy:
            response = await proxy.ask(subscribe(CDS, node_id="n"))
            (stream,) = server._streams.values()
            await until(lambda: stream.is_old)
            server.publish(GROUP, edit(Resource.of(LDS, "l", b"l")).changes)  # changes still come
            listeners = await proxy.ask(subscribe(LDS))
            assert names(listeners) == ["l"]
            await proxy.answer(response)
            await proxy.answer(listeners)
            assert (await proxy.ending())[0] is grpc.StatusCode.OK
            await until(lambda: not server._streams)


async def test_an_old_stream_ends_after_a_while_without_an_answer(certificate: Certificate) -> None:
    async with guarded(certificate, limits=Limits(age=0.1, grace=0.1)) as server:
        server.publish(GROUP, edit(cluster("a")).changes, ready=True)
        async with connected(server, roots=ROOTS, metadata=GOOD) as proxy:
            await proxy.ask(subscribe(CDS, node_id="n"))
            assert (await proxy.ending())[0] is grpc.StatusCode.OK


async def test_no_stream_outlives_its_proof(certificate: Certificate) -> None:
    async with guarded(certificate) as server:
        server.publish(GROUP, {}, ready=True)
        async with (
            connected(server, roots=ROOTS, metadata=GOOD) as long,
            connected(server, roots=ROOTS, metadata=BRIEF) as brief,
        ):
            for proxy in (long, brief):
                await proxy.answer(await proxy.ask(subscribe(CDS, node_id="n")))
            assert (await brief.ending())[0] is grpc.StatusCode.OK
            server.publish(GROUP, edit(cluster("a")).changes)
            assert names(await long.receive()) == ["a"]


async def test_streams_of_this_machine_do_not_age() -> None:
    async with serving(limits=Limits(age=0.0, grace=0.0)) as server, connected(server) as proxy:
        server.publish(GROUP, {}, ready=True)
        await proxy.answer(await proxy.ask(subscribe(CDS, node_id="n")))
        for number in range(20):
            server.publish(GROUP, edit(cluster("a", version=number)).changes)
            await proxy.answer(await proxy.receive())
        assert len(server.proxies()) == 1


async def test_a_connection_takes_no_more_streams_before_its_stream_ends(certificate: Certificate) -> None:
    """So that the next stream of the same client has a new connection, perhaps to another replica."""
    addresses: list[str] = []

    async def note(peer: Peer) -> Peer | Refused:
        addresses.append(peer.address)
        return await authenticate(peer)

    async with guarded(certificate, authenticate=note, limits=Limits(age=2.0)) as server:
        server.publish(GROUP, {}, ready=True)
        async with open_channel(server.address, ROOTS) as channel:
            for _ in range(2):
                proxy = Proxy(channel, metadata=GOOD)
                await proxy.answer(await proxy.ask(subscribe(CDS, node_id="n")))
                assert (await proxy.ending())[0] is grpc.StatusCode.OK
    assert len(set(addresses)) == 2


async def test_a_pod_has_few_streams(certificate: Certificate) -> None:
    limits = Limits(streams_per_pod=1)
    async with guarded(certificate, limits=limits) as server:
        server.publish(GROUP, {}, ready=True)
        async with connected(server, roots=ROOTS, metadata=GOOD) as first:
            await first.ask(subscribe(CDS, node_id="n"))
            async with connected(server, roots=ROOTS, metadata=GOOD) as second:
                assert (await second.ending())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: not server.proxies())
        async with connected(server, roots=ROOTS, metadata=GOOD) as third:
            await third.ask(subscribe(CDS, node_id="n"))


async def test_who_does_not_shake_hands_is_let_go(certificate: Certificate) -> None:
    async with guarded(certificate, limits=Limits(patience=0.3)) as server:
        host, _, port = server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() == b""
        writer.close()


async def test_a_connection_without_streams_is_let_go(certificate: Certificate) -> None:
    async with guarded(certificate, limits=Limits(patience=0.2)) as server:
        host, _, port = server.address.rpartition(":")
        context = trusting()
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() != b""  # its settings, perhaps a farewell
        assert reader.at_eof()
        writer.close()


async def test_connections_are_limited(certificate: Certificate) -> None:
    async with guarded(certificate, limits=Limits(connections=2)) as server:
        server.publish(GROUP, {}, ready=True)
        async with connected(server, roots=ROOTS, metadata=GOOD) as proxy:
            await proxy.ask(subscribe(CDS, node_id="n"))
            host, _, port = server.address.rpartition(":")
            others = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
            async with asyncio.timeout(DEADLINE):
                ended = await asyncio.gather(*(asyncio.wait_for(reader.read(), 1.0) for reader, _ in others[1:]))
            assert ended == [b""] * 4
            server.publish(GROUP, edit(cluster("a")).changes)
            assert names(await proxy.receive()) == ["a"]
            for _, writer in others:
                writer.close()


async def test_garbage_inside_tls_costs_only_its_connection(certificate: Certificate) -> None:
    async with guarded(certificate) as server:
        server.publish(GROUP, {}, ready=True)
        async with connected(server, roots=ROOTS, metadata=GOOD) as proxy:
            await proxy.ask(subscribe(CDS, node_id="n"))
            context = trusting()
            context.set_alpn_protocols(["h2"])
            host, _, port = server.address.rpartition(":")
            for preface in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
                reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
                writer.write(preface + os.urandom(50_000))
                async with asyncio.timeout(DEADLINE):
                    with contextlib.suppress(ConnectionError, ssl.SSLError):
                        await reader.read()  # up to the end that the server makes
                writer.close()
            server.publish(GROUP, edit(cluster("a")).changes)
            assert names(await proxy.receive()) == ["a"]


async def test_a_flood_of_requests_is_read_at_its_pace(certificate: Certificate) -> None:
    """The flooding proxy is slowed down, not cut off, and the other one is served meanwhile."""
    limits = Limits(requests=100.0, request_burst=50.0)
    handled = 0

    def authorize(peer: Peer, node_id: str, metadata: Mapping[str, object]) -> str:
        nonlocal handled
        handled += node_id == "flood"
        return GROUP

    async with guarded(certificate, authorize=authorize, limits=limits) as server:
        server.publish(GROUP, edit(cluster("a"), Resource.of(EDS, "a", b"a")).changes, ready=True)
        async with (
            connected(server, roots=ROOTS, metadata=GOOD) as flood,
            connected(server, roots=ROOTS, metadata=GOOD) as other,
        ):
            await flood.ask(subscribe(CDS, node_id="flood"))
            await other.answer(await other.ask(subscribe(CDS, node_id="other")))
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.TaskGroup() as tasks:
                flooding = tasks.create_task(_flood(flood, 1_000))
                for number in range(2, 20):
                    server.publish(GROUP, edit(cluster("a", version=number)).changes)
                    await other.answer(await other.receive())
                await asyncio.sleep(max(0.0, began + 1.0 - loop.time()))
                took = loop.time() - began
                flooding.cancel()
            assert 50 <= handled <= 51 + took * limits.requests
            assert len(server.proxies()) == 2


async def _flood(proxy: Proxy, number: int) -> None:
    for _ in range(number):
        await proxy.send(subscribe(EDS, "a"))


async def test_what_is_pushed_counts_too() -> None:
    """Asking for much again and again is not answered without end."""
    clock = Clock()
    limits = Limits(requests=1.0, request_burst=8.0)
    big = Resource.of(EDS, "a", bytes(1_000_000))
    async with serving(limits=limits, clock=clock) as server, connected(server) as proxy:
        server.publish(GROUP, edit(big).changes, ready=True)
        await proxy.ask(subscribe(EDS, "a", node_id="n"))
        received = 1
        for _ in range(10):
            await proxy.send(subscribe(EDS, "a"))
        try:
            while True:
                async with asyncio.timeout(0.5):
                    await proxy.receive()
                received += 1
        except TimeoutError:
            pass
        assert received < 5
