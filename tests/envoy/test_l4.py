"""Bytes and datagrams: TLSRoute, TCPRoute and UDPRoute."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter

import pytest

from tests.envoy.gateway import Document, backend_tls_policy, gateway, https_listener, listener, route, serve, service
from tests.rig.backends import Backends
from tests.rig.certs import CertificateAuthority
from tests.rig.clients import request, send_raw, tcp_exchange, tls_handshake, udp_exchange
from tests.rig.tls import ClientTls, ServerTls

CLOSED = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)
PORT = 9000


def refs(*weights: tuple[str, int]) -> list[Document]:
    return [{"backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in weights]}]


def tls(*weights: tuple[str, int], host: str = "*.site.test", name: str = "route") -> Document:
    return route(refs(*weights), host, kind="TLSRoute", name=name, version="v1")


def tcp(*weights: tuple[str, int], name: str = "route", **meta: str) -> Document:
    return route(refs(*weights), kind="TCPRoute", name=name, version="v1alpha2", **meta)


def udp(*weights: tuple[str, int]) -> Document:
    return route(refs(*weights), kind="UDPRoute", version="v1alpha2")


PASSTHROUGH = gateway(listener("tls", port=PORT, protocol="TLS", tls={"mode": "Passthrough"}))
TCP = gateway(listener("tcp", port=PORT, protocol="TCP"))
UDP = gateway(listener("udp", port=PORT, protocol="UDP"))


async def test_tls_passes_through_to_the_backend_of_its_name(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    one, two = ca.issue("one.site.test"), ca.issue("two.site.test")
    pods = {"a": await backends.echo("a", tls=ServerTls(one)), "b": await backends.echo("b", tls=ServerTls(two))}
    objects = [service(name, pod.address) for name, pod in pods.items()]
    routes = [tls(("a", 1), host="one.site.test", name="one"), tls(("b", 1), host="two.site.test", name="two")]
    async with serve(loopback, PASSTHROUGH, *routes, *objects) as served:
        for host, pod, leaf in (("one.site.test", "a", one), ("two.site.test", "b", two)):
            client = ClientTls(ca=ca.root, sni=host)
            assert (await tls_handshake(served.target(PORT), client))[1] == ssl.PEM_cert_to_DER_cert(
                leaf.chain.decode()
            )
            assert (await request(served.target(PORT), host=host, tls=client)).pod == pod


async def test_an_unknown_server_name_is_closed(loopback: str, backends: Backends, ca: CertificateAuthority) -> None:
    pod = await backends.echo("a", tls=ServerTls(ca.issue("one.site.test")))
    route_ = tls(("a", 1), host="one.site.test")
    async with serve(loopback, PASSTHROUGH, route_, service("a", pod.address)) as served:
        with pytest.raises(CLOSED):
            await tls_handshake(served.target(PORT), ClientTls(sni="other.site.test"))
        with pytest.raises(CLOSED):
            await tcp_exchange(served.target(PORT), b"plain text\r\n\r\n")
    assert pod.connections == 0


async def test_the_most_specific_server_name_wins(loopback: str, backends: Backends, ca: CertificateAuthority) -> None:
    leaf = ca.issue("one.site.test", "two.site.test")
    pods = {name: await backends.echo(name, tls=ServerTls(leaf)) for name in "ab"}
    routes = [tls(("a", 1), host="*.site.test", name="wild"), tls(("b", 1), host="one.site.test", name="exact")]
    objects = [service(name, pod.address) for name, pod in pods.items()]
    async with serve(loopback, PASSTHROUGH, *routes, *objects) as served:
        for host, pod in (("one.site.test", "b"), ("two.site.test", "a")):
            answer = await request(served.target(PORT), host=host, tls=ClientTls(ca=ca.root, sni=host))
            assert answer.pod == pod


async def test_a_tls_route_without_backend_accepts_and_closes(loopback: str) -> None:
    async with serve(loopback, PASSTHROUGH, tls(("missing", 1))) as served:
        with pytest.raises(CLOSED):
            await tls_handshake(served.target(PORT), ClientTls(sni="one.site.test"))


async def test_terminated_tls_reaches_the_backend_as_plain_bytes(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    ends = gateway(https_listener("tls", port=PORT, protocol="TLS"))
    pod = await backends.tcp("hello")
    objects = [tls(("a", 1), host="one.site.test"), service("a", pod.address), ca.issue("one.site.test").secret("cert")]
    async with serve(loopback, ends, *objects) as served:
        client = ClientTls(ca=ca.root, sni="one.site.test")
        assert await tcp_exchange(served.target(PORT), b"ping", tls=client, banner=True) == (b"hello", b"ping")
    assert pod.handshakes == []


async def test_tls_shares_connections_by_weight(loopback: str, backends: Backends, ca: CertificateAuthority) -> None:
    leaf = ca.issue("one.site.test")
    pods = {name: await backends.echo(name, tls=ServerTls(leaf)) for name in "ab"}
    objects = [service(name, pod.address) for name, pod in pods.items()]
    async with serve(loopback, PASSTHROUGH, tls(("a", 3), ("b", 1)), *objects) as served:
        client = ClientTls(ca=ca.root, sni="one.site.test")
        seen = Counter([(await request(served.target(PORT), host="one.site.test", tls=client)).pod for _ in range(80)])
    assert seen["a"] > seen["b"] > 4


async def test_a_server_may_speak_first_over_tcp(loopback: str, backends: Backends) -> None:
    pod = await backends.tcp("hello")
    async with serve(loopback, TCP, tcp(("a", 1)), service("a", pod.address)) as served:
        assert await tcp_exchange(served.target(PORT), b"ping", banner=True) == (b"hello", b"ping")


async def test_tcp_shares_connections_by_weight(loopback: str, backends: Backends) -> None:
    pods = {name: await backends.tcp(name) for name in "abc"}
    objects = [service(name, pod.address) for name, pod in pods.items()]
    async with serve(loopback, TCP, tcp(("a", 9), ("b", 3), ("c", 0)), *objects) as served:
        seen = Counter([(await tcp_exchange(served.target(PORT), b"x", banner=True))[0] for _ in range(120)])
    assert set(seen) == {b"a", b"b"}
    assert 10 <= seen[b"b"] <= 55


async def test_the_share_of_an_unusable_tcp_backend_is_closed(loopback: str, backends: Backends) -> None:
    pod = await backends.tcp("a")
    async with serve(loopback, TCP, tcp(("a", 1), ("missing", 1)), service("a", pod.address)) as served:
        outcomes: Counter[str] = Counter()
        for _ in range(60):
            try:
                await tcp_exchange(served.target(PORT), b"x", banner=True)
                outcomes["served"] += 1
            except CLOSED:
                outcomes["closed"] += 1
    assert min(outcomes["served"], outcomes["closed"]) > 10


async def test_the_oldest_of_two_tcp_routes_serves(loopback: str, backends: Backends) -> None:
    pods = {name: await backends.tcp(name) for name in "ab"}
    young = tcp(("a", 1), name="a", creationTimestamp="2024-06-01T00:00:00Z")
    old = tcp(("b", 1), name="b", creationTimestamp="2024-01-01T00:00:00Z")
    objects = [service(name, pod.address) for name, pod in pods.items()]
    async with serve(loopback, TCP, young, old, *objects) as served:
        assert {(await tcp_exchange(served.target(PORT), b"x", banner=True))[0] for _ in range(5)} == {b"b"}


async def test_datagrams_are_answered(loopback: str, backends: Backends) -> None:
    pod = await backends.udp("a")
    async with serve(loopback, UDP, udp(("a", 1)), service("a", pod.address, protocol="UDP")) as served:
        assert await udp_exchange(served.target(PORT), b"ping") == b"a: ping"


async def test_datagrams_are_shared_by_weight(loopback: str, backends: Backends) -> None:
    pods = {name: await backends.udp(name) for name in "abc"}
    objects = [service(name, pod.address, protocol="UDP") for name, pod in pods.items()]
    async with serve(loopback, UDP, udp(("a", 3), ("b", 1), ("c", 0)), *objects) as served:
        seen = Counter([(await udp_exchange(served.target(PORT), b"x")) for _ in range(160)])
    assert set(seen) == {b"a: x", b"b: x"}
    assert 15 <= seen[b"b: x"] <= 75


async def test_tcp_and_udp_share_a_port_number(loopback: str, backends: Backends) -> None:
    both = gateway(listener("tcp", port=PORT, protocol="TCP"), listener("udp", port=PORT, protocol="UDP"))
    tcp_pod, udp_pod = await backends.tcp("a"), await backends.udp("b")
    routes = [tcp(("a", 1), name="tcp"), {**udp(("b", 1))}]
    objects = [service("a", tcp_pod.address), service("b", udp_pod.address, protocol="UDP")]
    async with serve(loopback, both, *routes, *objects) as served:
        assert (await tcp_exchange(served.target(PORT), b"x", banner=True))[0] == b"a"
        assert await udp_exchange(served.target(PORT), b"x") == b"b: x"


async def test_https_and_tls_listeners_share_a_port_by_name(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    both = gateway(
        https_listener(port=PORT, hostname="web.site.test"),
        listener("tls", port=PORT, protocol="TLS", hostname="raw.site.test", tls={"mode": "Passthrough"}),
    )
    web, raw = await backends.echo("a"), await backends.echo("b", tls=ServerTls(ca.issue("raw.site.test")))
    objects = [
        route(refs(("a", 1)), name="web"),
        tls(("b", 1), host="raw.site.test"),
        service("a", web.address),
        service("b", raw.address),
        ca.issue("web.site.test").secret("cert"),
    ]
    async with serve(loopback, both, *objects) as served:
        for host, pod in (("web.site.test", "a"), ("raw.site.test", "b")):
            answer = await request(served.target(PORT), host=host, tls=ClientTls(ca=ca.root, sni=host))
            assert answer.pod == pod


async def test_a_client_may_finish_sending_before_it_is_answered(loopback: str, backends: Backends) -> None:
    pod = await backends.tcp("hello")
    async with serve(loopback, TCP, tcp(("a", 1)), service("a", pod.address)) as served:
        assert await send_raw(served.target(PORT), b"question") == b"hello\nquestion"


async def test_datagrams_of_one_client_stay_with_one_endpoint(loopback: str, backends: Backends) -> None:
    pods = [await backends.udp(f"pod-{number}") for number in range(3)]
    objects = service("a", *(pod.address for pod in pods), protocol="UDP")
    async with serve(loopback, UDP, udp(("a", 1)), objects) as served:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            await loop.sock_connect(client, served.target(PORT))
            answers = set()
            for _ in range(20):
                await loop.sock_sendall(client, b"x")
                async with asyncio.timeout(3):
                    answers.add(await loop.sock_recv(client, 100))
    assert len(answers) == 1


async def test_a_backend_tls_policy_covers_terminated_bytes(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    ends = gateway(https_listener("tls", port=PORT, protocol="TLS"))
    pod = await backends.tcp("hello", tls=ServerTls(ca.issue("backend.test"), alpn=()))
    objects = [
        tls(("a", 1), host="one.site.test"),
        service("a", pod.address),
        ca.issue("one.site.test").secret("cert"),
        ca.config_map("backend-ca"),
        backend_tls_policy("a"),
    ]
    async with serve(loopback, ends, *objects) as served:
        client = ClientTls(ca=ca.root, sni="one.site.test")
        assert await tcp_exchange(served.target(PORT), b"ping", tls=client, banner=True) == (b"hello", b"ping")
    assert pod.handshakes[0].sni == "backend.test"
