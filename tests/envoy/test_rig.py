"""The rig itself: backends answer, clients see, through a trivial Envoy and without one."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

import httpcore
import pytest
import websockets

from tests.rig.addresses import free_port, free_ports
from tests.rig.backends import Backends
from tests.rig.certs import CertificateAuthority, bundle, spiffe
from tests.rig.clients import (
    HttpClient,
    grpc_call,
    request,
    send_raw,
    tcp_exchange,
    tls_handshake,
    udp_exchange,
    websocket,
)
from tests.rig.envoy import run_static, validate, validate_many
from tests.rig.hbone import HboneClient, HboneServer, TunnelRefusedError
from tests.rig.load import Load
from tests.rig.tls import ClientTls, ServerTls
from tests.rig.waiting import eventually

TYPE = "type.googleapis.com/envoy.extensions"


def proxy_config(host: str, port: int, upstream: tuple[str, int]) -> dict[str, Any]:
    """A listener that sends everything to one HTTP/1.1 upstream, WebSocket included."""
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "rig",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}},
        ],
    }
    endpoint = {"endpoint": {"address": _socket(*upstream)}}
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": _socket(host, port),
                    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "up",
                    "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [endpoint]}]},
                }
            ],
        }
    }


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


async def test_static_envoy_serves_until_the_block_ends(backends: Backends, loopback: str) -> None:
    echo = await backends.echo("v1")
    async with run_static(proxy_config(loopback, 8080, echo.address)) as envoy:
        response = await request((loopback, 8080), "/a%2Fb?x=1", host="shop.example")
        assert response.status == 200
        assert response.pod == "v1"
        assert response.echo.path == "/a%2Fb?x=1"
        assert response.echo.host == "shop.example"
        assert (await request((loopback, 8080), http="2")).version == "HTTP/2"
        assert (await envoy.admin.stats("^http.rig.downstream_rq_2xx")) == {"http.rig.downstream_rq_2xx": 2}
        async with websocket((loopback, 8080), "/chat", host="ws.example") as chat:
            await chat.send("hello")
            assert await chat.recv() == "hello"
        pid = envoy.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_rejected_configuration_fails_with_envoys_own_words(loopback: str) -> None:
    with pytest.raises(RuntimeError, match="no_such_field"):
        async with run_static({"no_such_field": 1}):
            pass


async def test_validate_tells_good_from_bad_one_by_one(loopback: str) -> None:
    good = proxy_config(loopback, 8080, ("127.0.0.1", 1))
    bad = proxy_config(loopback, 8080, ("127.0.0.1", 1))
    bad["static_resources"]["clusters"] = []
    assert await validate(good)
    verdicts = await validate_many([("good", good), ("bad", bad)])
    assert verdicts["good"].ok
    assert not verdicts["bad"]
    assert "unknown cluster 'up'" in verdicts["bad"].error


@pytest.mark.parametrize("http", ["1.1", "2"])
async def test_echo_obeys_the_request(backends: Backends, http: Any) -> None:
    echo = await backends.echo("one")
    assert (await request(echo.address, "/x/status/418", http=http)).status == 418
    assert (await request(echo.address, "/?status=204", http=http)).status == 204
    answer = await request(
        echo.address,
        "/?size=100000",
        http=http,
        method="POST",
        body=b"payload",
        headers=[("x-echo-set-header", "X-One: 1, x-two: 2"), ("x-many", "a"), ("X-Many", "b")],
    )
    assert answer.header("x-one") == "1"
    assert answer.header_values("x-two") == ["2"]
    assert len(answer.body) > 100_000
    assert answer.echo.body == "payload"
    assert answer.echo.header("x-many") == "a,b"
    assert (await request(echo.address, "/", http=http, method="HEAD")).body == b""
    assert echo.count("/?size=") == 1


async def test_echo_fails_a_set_number_of_times(backends: Backends) -> None:
    echo = await backends.echo()
    statuses = [(await request(echo.address, "/?fail=2&id=a&code=502")).status for _ in range(3)]
    assert statuses == [502, 502, 200]
    with pytest.raises(httpcore.NetworkError):
        await request(echo.address, "/?fail=1&id=b&code=reset")
    assert (await request(echo.address, "/?fail=1&id=b&code=reset")).status == 200
    with pytest.raises(httpcore.RemoteProtocolError):
        await request(echo.address, "/?reset=1", http="2")


async def test_delay_runs_into_the_clients_timeout(backends: Backends) -> None:
    echo = await backends.echo()
    with pytest.raises(httpcore.ReadTimeout):
        await request(echo.address, "/?delay=5", within=0.1)


async def test_hits_can_be_awaited(backends: Backends) -> None:
    echo = await backends.echo()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(echo.wait_hits(2, lambda hit: hit.path == "/m"))
        for path in ("/m", "/other", "/m"):
            await request(echo.address, path)
    assert len(waiting.result()) == 2
    with pytest.raises(TimeoutError):
        await echo.wait_hits(4, within=0.01)


async def test_keep_alive_reuses_the_connection(backends: Backends) -> None:
    echo = await backends.echo()
    async with HttpClient(echo.address) as client:
        assert [(await client.get()).echo.connection for _ in range(3)] == [1, 1, 1]
    assert (await request(echo.address)).echo.connection == 2


async def test_tls_shows_both_sides_names(backends: Backends, ca: CertificateAuthority) -> None:
    other = CertificateAuthority.create("other")
    client = other.issue(uris=("spiffe://x/ns/a/sa/b",))
    trust = bundle(ca, other)
    echo = await backends.echo(tls=ServerTls(ca.intermediate().issue("shop.example"), client_ca=trust))
    tls = ClientTls(ca=ca.root, identity=client)
    answer = await request(echo.address, host="shop.example", tls=tls)
    assert answer.echo.tls is not None
    assert answer.echo.tls.sni == "shop.example"
    assert answer.echo.tls.peer_uris == ("spiffe://x/ns/a/sa/b",)
    assert (await request(echo.address, host="shop.example", tls=tls, http="2")).version == "HTTP/2"
    with pytest.raises(httpcore.ConnectError, match="Hostname mismatch"):
        await request(echo.address, host="else.example", tls=tls)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await tls_handshake(echo.address, ClientTls(ca=ca.root, sni="shop.example"))
    facts, certificate = await tls_handshake(echo.address, ClientTls(ca=ca.root, identity=client, sni="shop.example"))
    assert facts.peer_dns == ("shop.example",)
    assert certificate


async def test_expired_certificates_and_rsa_ones(backends: Backends, ca: CertificateAuthority) -> None:
    expired = await backends.tcp(tls=ServerTls(ca.expired("old.example")))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        await tls_handshake(expired.address, ClientTls(ca=ca.root, sni="old.example"))
    rsa = await backends.tcp("hi", tls=ServerTls(ca.issue("rsa.example", key="rsa")))
    exchange = await tcp_exchange(rsa.address, b"abc", banner=True, tls=ClientTls(ca=ca.root, sni="rsa.example"))
    assert exchange == (b"hi", b"abc")


async def test_tcp_udp_and_raw_exchanges(backends: Backends) -> None:
    tcp, udp = await backends.tcp("welcome"), await backends.udp("u1")
    assert await tcp_exchange(tcp.address, b"abc", banner=True) == (b"welcome", b"abc")
    assert await udp_exchange(udp.address, b"abc") == b"u1: abc"
    echo = await backends.echo()
    assert (await send_raw(echo.address, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).startswith(
        b"HTTP/1.1 200"
    )


async def test_grpc_echo_and_status(backends: Backends, ca: CertificateAuthority) -> None:
    plain = await backends.grpc("g1")
    result = await grpc_call(plain.address, "/a.B/C", messages=[b"1", b"2"], metadata=[("x-k", "v")])
    assert result.ok
    assert result.pod == "g1"
    assert [message["message"] for message in result.messages] == ["1", "2"]
    assert result.messages[0]["metadata"]["x-k"] == "v"
    assert (await grpc_call(plain.address, metadata=[("x-echo-status", "5")])).code.name == "NOT_FOUND"
    codes = [(await grpc_call(plain.address, metadata=[("x-echo-fail", "1")])).code.name for _ in range(2)]
    assert codes == ["UNAVAILABLE", "OK"]
    secure = await backends.grpc(tls=ServerTls(ca.issue("g.example")))
    assert (await grpc_call(secure.address, tls=ClientTls(ca=ca.root, sni="g.example"))).ok


async def test_hbone_carries_http_and_tcp(backends: Backends, mesh_ca: CertificateAuthority) -> None:
    echo, tcp = await backends.echo("inner"), await backends.tcp("first")
    async with (
        HboneServer(spiffe("node"), mesh_ca.root, routes={"10.9.9.9:80": echo.address}) as node,
        HboneClient(node.address, ca=mesh_ca.root, identity=spiffe("client")) as client,
    ):
        answer = await client.request("10.9.9.9:80", "/in?size=200000", host="svc")
        assert (answer.pod, answer.echo.host) == ("inner", "svc")
        assert len(answer.body) > 200_000
        assert (await client.request("10.9.9.9:80", http="2", host="svc")).version == "HTTP/2"
        tunnel = await client.connect(f"{tcp.host}:{tcp.port}", headers=[("baggage", "k=v")])
        assert await tunnel.read_exactly(6) == b"first\n"
        await tunnel.write(b"ping", end=True)
        assert await tunnel.read_exactly(4) == b"ping"
        assert await tunnel.read() == b""
        assert node.connects[-1].peer == "spiffe://cluster.local/ns/default/sa/client"
        assert node.connects[-1].headers["baggage"] == "k=v"
        assert client.info is not None
        assert client.info.peer_uris == ("spiffe://cluster.local/ns/default/sa/node",)


async def test_hbone_refusals_are_told_apart(backends: Backends, mesh_ca: CertificateAuthority) -> None:
    async with HboneServer(spiffe("node"), mesh_ca.root, allow=lambda peer: peer.endswith("/good")) as node:
        async with HboneClient(node.address, ca=mesh_ca.root, identity=spiffe("bad")) as client:
            with pytest.raises(TunnelRefusedError) as refused:
                await client.connect("127.0.0.1:1")
            assert refused.value.status == 403
        async with HboneClient(node.address, ca=mesh_ca.root, identity=spiffe("good")) as client:
            with pytest.raises(TunnelRefusedError) as unreachable:
                await client.connect(f"127.0.0.1:{free_port()}")
            assert unreachable.value.status == 503
        with pytest.raises((ConnectionError, ssl.SSLError)):
            async with HboneClient(node.address, ca=mesh_ca.root, identity=None) as client:
                await client.connect("127.0.0.1:1")


async def test_websocket_refused_by_a_plain_answer(backends: Backends, loopback: str) -> None:
    echo = await backends.echo()
    config = proxy_config(loopback, 8080, echo.address)
    hcm = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del hcm["upgrade_configs"]
    async with run_static(config):
        with pytest.raises(websockets.InvalidStatus):
            async with websocket((loopback, 8080)):
                pass


async def test_load_counts_answers_and_failures(backends: Backends) -> None:
    echo = await backends.echo("v1")
    async with Load(echo.address, lambda number: f"/?n={number}", clients=2, pause=0) as load:
        await load.at_least(20)
    assert load.report.failed == 0
    assert load.report.pods["v1"] == load.report.total == echo.count()
    assert load.report.percentile(0.99) >= load.report.percentile(0.5) > 0
    async with Load(echo.address, "/status/500", clients=1, limit=3, reuse=False) as load:
        await load.at_least(3)
    assert load.report.failed == load.report.total == 3
    async with Load(("127.0.0.1", free_port()), clients=1, limit=1) as load:
        await load.at_least(1)
    assert "ConnectError" in load.report.samples[0]


async def test_eventually_reports_the_last_outcome() -> None:
    outcomes = iter([0, 0, 7])
    assert await eventually(lambda: next(outcomes), interval=0) == 7
    with pytest.raises(AssertionError, match="a miracle; last: False"):
        await eventually(lambda: False, what="a miracle", within=0.01, interval=0)


def test_free_ports_are_distinct() -> None:
    assert len(set(free_ports(20))) == 20
