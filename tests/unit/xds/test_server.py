"""The server over real gRPC on loopback."""

import logging
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from meshgw.emit.resource import Resource
from meshgw.xds.cache import Cache
from meshgw.xds.proxy import Limits, Peer, ProxyState, Refused
from meshgw.xds.server import AdsServer
from tests.unit.xds.peers import Clock, Proxy, Recorder, connected, names, serving, until
from tests.unit.xds.playbook import (
    CDS,
    EDS,
    GROUP,
    LDS,
    RDS,
    authorize_all,
    cluster,
    edit,
    plain,
    subscribe,
    want,
)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged as an error: no task died, no call was handled badly."""
    yield
    assert [found.getMessage() for found in caplog.get_records("call") if found.levelno >= logging.ERROR] == []


async def test_a_delta_proxy_gets_what_it_asks_for_and_every_change() -> None:
    async with serving() as server, connected(server) as proxy:
        server.publish(GROUP, edit(cluster("a")).changes, ready=True)
        first = await proxy.ask(subscribe(CDS, node_id="n"))
        assert names(first) == ["a"]
        assert first.resources[0].resource.value == cluster("a").body
        server.publish(GROUP, edit(cluster("b")).changes)
        assert names(await proxy.receive()) == ["b"]


async def test_a_state_of_the_world_proxy_gets_whole_sets() -> None:
    async with serving() as server, connected(server, delta=False) as proxy:
        server.publish(GROUP, edit(cluster("a")).changes, ready=True)
        assert len((await proxy.ask(want(CDS, node_id="n"))).resources) == 1
        server.publish(GROUP, edit(cluster("b")).changes)
        assert len((await proxy.receive()).resources) == 2


async def test_an_unready_group_is_silent_until_marked() -> None:
    async with serving() as server, connected(server) as proxy:
        server.publish(GROUP, edit(cluster("a")).changes)
        await proxy.send(subscribe(CDS, node_id="n"))
        await until(server.proxies)
        server.publish(GROUP, edit(cluster("b")).changes)
        server.mark_ready(GROUP)
        assert names(await proxy.receive()) == ["a", "b"]


async def test_one_proxys_ack_lets_a_cluster_leave_from_all(recorder: Recorder) -> None:
    site = edit(cluster("a"), plain(RDS, "r"))
    async with serving(observer=recorder) as server, connected(server) as one, connected(server) as other:
        server.publish(GROUP, site.changes, ready=True)
        for proxy, node_id in ((one, "n"), (other, "m")):
            await proxy.ask(subscribe(CDS, node_id=node_id))
            await proxy.answer(await proxy.ask(subscribe(RDS, "r")))
        await until(lambda: sum(told[0] == "acked" for told in recorder.told) == 2)
        server.publish(GROUP, edit(plain(RDS, "r", version=2), remove=[(CDS, "a")]).changes)
        routes = [await proxy.receive() for proxy in (one, other)]
        assert [found.type_url for found in routes] == [RDS, RDS]
        await one.answer(routes[0])
        await until(lambda: sum(told[0] == "acked" for told in recorder.told) == 3)
        await other.answer(routes[1])
        for proxy in (one, other):
            assert list((await proxy.receive()).removed_resources) == ["a"]


async def test_time_lets_a_cluster_leave_when_routes_are_never_acknowledged() -> None:
    clock = Clock()
    async with serving(clock=clock) as server, connected(server) as proxy:
        server.publish(GROUP, edit(cluster("a"), plain(RDS, "r")).changes, ready=True)
        await proxy.ask(subscribe(CDS, node_id="n"))
        await proxy.ask(subscribe(RDS, "r"))
        server.publish(GROUP, {(CDS, "a"): None})
        clock.now += 30
        server.tick()
        assert list((await proxy.receive()).removed_resources) == ["a"]


async def test_the_server_ticks_by_itself() -> None:
    every_reading_a_second_later = count().__next__
    async with serving(clock=every_reading_a_second_later) as server, connected(server) as proxy:
        server.publish(GROUP, {}, ready=True)
        await proxy.send(subscribe(CDS, versions={"old": "1"}, node_id="n"))
        assert list((await proxy.receive()).removed_resources) == ["old"]


async def test_observer_and_callback_see_pushes_acks_nacks_and_connections(recorder: Recorder) -> None:
    clock = Clock()
    states: list[ProxyState] = []
    async with serving(observer=recorder, on_proxy=states.append, clock=clock) as server:
        async with connected(server) as proxy:
            server.publish(GROUP, edit(plain(RDS, "r"), plain(LDS, "l")).changes, ready=True)
            routes = await proxy.ask(subscribe(RDS, "r", node_id="n"))
            listeners = await proxy.ask(subscribe(LDS))
            clock.now += 0.5
            await proxy.answer(routes)
            await proxy.answer(listeners, error="port in use")
            await until(lambda: ("nacked", GROUP, LDS) in recorder.told)
            (state,) = server.proxies()
            assert (state.node_id, state.group, state.connected_at) == ("n", GROUP, 50.0)
            assert state.types[RDS].ack_seconds == 0.5
            assert (state.types[LDS].nack, state.types[LDS].refused) == ("port in use", ("l",))
            await until(lambda: states[-1] == state)
        await until(lambda: not server.proxies())
        assert not states[-1].connected
    assert recorder.told == [
        ("connected", 1),
        ("pushed", GROUP, RDS, True, 1),
        ("pushed", GROUP, LDS, True, 1),
        ("acked", GROUP, RDS, 0.5),
        ("nacked", GROUP, LDS),
        ("connected", 0),
    ]


async def test_a_proxy_that_does_not_read_stalls_only_itself(recorder: Recorder) -> None:
    """The stalled proxy is sent what its transport takes and then nothing, while the other follows every change."""
    edits = 60

    def big(version: int) -> dict[Any, Any]:
        return edit(Resource.of(EDS, "a", bytes([version]) * 2_000_000)).changes

    async with serving(observer=recorder) as server, connected(server) as slow, connected(server) as fast:
        server.publish(GROUP, big(0), ready=True)
        await slow.send(subscribe(EDS, "a", node_id="slow"))
        await until(lambda: ("pushed", GROUP, EDS, True, 1) in recorder.told)
        await fast.answer(await fast.ask(subscribe(EDS, "a", node_id="fast")))
        for version in range(1, edits):
            server.publish(GROUP, big(version))
            response = await fast.receive()
            assert response.resources[0].resource.value[:1] == bytes([version])
            await fast.answer(response)
        pushes = sum(told[0] == "pushed" for told in recorder.told)
        assert edits < pushes < edits + 8
        received = 0
        newest = b""
        while newest != bytes([edits - 1]):
            response = await slow.receive()
            await slow.answer(response)
            newest = response.resources[0].resource.value[:1]
            received += 1
        assert received < 10


async def test_refusals_reach_the_proxy_with_their_reason() -> None:
    def authorize(peer: Peer, node_id: str, metadata: object) -> Refused:
        return Refused(f"no gateway for {node_id} with {peer.headers['x-token']}")

    async with serving(authorize=authorize) as server, grpc.aio.insecure_channel(server.address) as channel:
        proxy = Proxy(channel, metadata=[("x-token", "t")])
        await proxy.send(subscribe(CDS, node_id="n"))
        assert await proxy.ending() == (grpc.StatusCode.PERMISSION_DENIED, "no gateway for n with t")
        assert server.proxies() == ()


async def test_a_changed_node_id_ends_the_stream() -> None:
    async with serving() as server, connected(server) as proxy:
        server.publish(GROUP, {}, ready=True)
        await proxy.ask(subscribe(CDS, node_id="n"))
        await proxy.send(subscribe(LDS, node_id="m"))
        assert (await proxy.ending())[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_bytes_that_are_no_request_end_the_stream() -> None:
    async with serving() as server, connected(server) as proxy:
        await proxy.call.write(b"\xff\xff\xff")
        assert (await proxy.ending())[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_too_large_a_request_ends_the_stream() -> None:
    async with serving(limits=Limits(message_bytes=1000)) as server, connected(server) as proxy:
        await proxy.send(subscribe(EDS, "x" * 2000, node_id="n"))
        assert (await proxy.ending())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: not server.proxies())


async def test_streams_are_limited() -> None:
    async with serving(limits=Limits(streams=1)) as server, connected(server) as first:
        server.publish(GROUP, {}, ready=True)
        await first.ask(subscribe(CDS, node_id="n"))
        async with connected(server) as second:
            assert (await second.ending())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        server.publish(GROUP, edit(cluster("a")).changes)
        assert names(await first.receive()) == ["a"]


async def test_a_proxy_that_finishes_its_stream_is_let_go() -> None:
    async with serving() as server, connected(server) as proxy:
        server.publish(GROUP, {}, ready=True)
        await proxy.ask(subscribe(CDS, node_id="n"))
        await proxy.call.done_writing()
        assert (await proxy.ending())[0] is grpc.StatusCode.OK
        assert server.proxies() == ()


async def test_forgetting_a_group_ends_its_streams_and_no_others() -> None:
    def authorize(peer: Peer, node_id: str, metadata: object) -> str:
        return node_id

    async with serving(authorize=authorize) as server, connected(server) as one, connected(server) as other:
        for proxy, group in ((one, "one"), (other, "other")):
            server.publish(group, {}, ready=True)
            await proxy.ask(subscribe(CDS, node_id=group))
        server.forget("one")
        assert (await one.ending())[0] is grpc.StatusCode.UNAVAILABLE
        server.publish("other", edit(cluster("a")).changes)
        assert names(await other.receive()) == ["a"]


async def test_stopping_ends_every_stream_and_a_restarted_server_resumes_them(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'xds.sock'}"
    site = edit(cluster("a"), cluster("b")).changes
    async with grpc.aio.insecure_channel(address) as channel:
        async with serving(listen=address) as server:
            assert stat.S_IMODE((tmp_path / "xds.sock").stat().st_mode) == 0o600
            server.publish(GROUP, site, ready=True)
            proxy = Proxy(channel)
            held = {found.name: found.version for found in (await proxy.ask(subscribe(CDS, node_id="n"))).resources}
        assert await proxy.ending() == (grpc.StatusCode.UNAVAILABLE, "the control plane is stopping")
        async with serving(listen=address) as server:
            server.publish(GROUP, {**site, **edit(cluster("b", version=2)).changes}, ready=True)
            proxy = Proxy(channel)
            assert names(await proxy.ask(subscribe(CDS, versions=held, node_id="n"))) == ["b"]
            proxy.call.cancel()


async def test_a_taken_address_is_an_error_that_names_it() -> None:
    async with serving() as server:
        with pytest.raises(OSError, match=server.address):
            await AdsServer(Cache(), authorize=authorize_all, listen=server.address).run()


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "10.0.0.1:80", "localhost:80", "[::]:80", "80"])
def test_only_loopback_is_listened_on(listen: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        AdsServer(Cache(), authorize=authorize_all, listen=listen)
