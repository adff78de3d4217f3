"""Gateways and listeners that come back, move, change their protocol or change hands while the instance runs."""

from __future__ import annotations

import asyncio

import httpcore

from tests.envoy.application import Instance, alive, application, placed
from tests.envoy.gateway import listener, route, service, to
from tests.rig.addresses import next_loopback
from tests.rig.backends import Backends
from tests.rig.clients import Target, request, tcp_exchange
from tests.rig.load import Load
from tests.rig.waiting import eventually


async def outcome(target: Target) -> int | None:
    """The status of one request, None where nobody listens."""
    try:
        return (await request(target, host="site.test", within=2)).status
    except (httpcore.NetworkError, httpcore.RemoteProtocolError):
        return None


async def serves(instance: Instance, port: int = 80) -> None:
    async def check() -> bool:
        return await outcome(instance.target(port)) == 200

    await eventually(check, what=f"port {port} serves", within=15)


async def test_a_listener_that_returns_at_once_serves(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    rest = [service("a", pod.address), route([to("a")])]
    both = placed(loopback, listener(), listener("more", port=8080))
    async with application(loopback, both, *rest) as instance:
        await serves(instance, 8080)
        for _ in range(5):
            instance.write("main", placed(loopback), *rest)
            instance.app.reload()
            instance.write("main", both, *rest)
            instance.app.reload()
            await serves(instance, 8080)
        assert not instance.findings("MG6")


async def test_a_gateway_that_returns_at_once_serves(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    rest = [service("a", pod.address), route([to("a")])]
    async with application(loopback, placed(loopback), *rest) as instance:
        for _ in range(3):
            before = instance.pid()
            assert before
            instance.write("main", *rest)
            await eventually(lambda: not instance.app.control.gateways(), interval=0.001)
            instance.write("main", placed(loopback), *rest)
            instance.app.reload()
            await eventually(lambda old=before: not alive(old), what="the old Envoy is gone", within=15)
            await serves(instance)
            await eventually(lambda: not instance.findings("MG6"), within=15)
        assert instance.pid() not in {None, before}


async def test_a_renamed_gateway_takes_over_its_address(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    rest = [service("a", pod.address), route([to("a")], parents=[{"name": "gw"}, {"name": "new"}])]
    async with application(loopback, placed(loopback), *rest) as instance:
        before = instance.pid()
        assert before
        instance.write("main", placed(loopback, name="new"), *rest)
        await eventually(lambda: not alive(before), what="the old Envoy is gone", within=15)
        await serves(instance)
        await eventually(lambda: not instance.findings("MG6"), within=15)


async def test_a_listener_may_change_hands(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    rest = [service("a", pod.address), route([to("a")], parents=[{"name": "gw"}, {"name": "other"}])]
    plain, more = listener(port=8000), listener("more", port=8080)
    one, two = placed(loopback, listener(), more), placed(loopback, plain, name="other")
    async with application(loopback, one, two, *rest) as instance:
        await serves(instance, 8080)
        instance.write("main", placed(loopback), placed(loopback, plain, more, name="other"), *rest)
        async with Load(instance.target(), clients=1) as load:
            await asyncio.sleep(0)
            await serves(instance, 8080)
            await eventually(lambda: not instance.findings("MG6"), within=15)
        assert load.report.failed == 0, load.report.samples
        await serves(instance, 8000)


async def test_a_gateway_moves_to_another_address(loopback: str, backends: Backends) -> None:
    pod, elsewhere = await backends.echo("a"), next_loopback()
    rest = [service("a", pod.address), route([to("a")])]
    async with application(loopback, placed(loopback), *rest) as instance:
        pid = instance.pid()
        instance.write("main", placed(elsewhere), *rest)
        instance.address = elsewhere
        await serves(instance)

        async def left() -> bool:
            return await outcome((loopback, 10_080)) is None

        await eventually(left, what="the old address is closed", within=15)
        assert instance.pid() == pid


async def test_a_port_changes_its_protocol(loopback: str, backends: Backends) -> None:
    pod, raw = await backends.echo("a"), await backends.tcp("hello")
    forward = [{"backendRefs": [{"name": "raw", "port": 80}]}]
    rest = [
        service("a", pod.address),
        service("raw", raw.address),
        route([to("a")]),
        route(forward, kind="TCPRoute", name="raw", version="v1alpha2"),
    ]
    async with application(loopback, placed(loopback, listener(port=8080)), *rest) as instance:
        await serves(instance, 8080)
        instance.write("main", placed(loopback, listener(port=8080, protocol="TCP")), *rest)

        async def is_tcp() -> bool:
            try:
                return await tcp_exchange(instance.target(8080), b"x", banner=True, within=1) == (b"hello", b"x")
            except (TimeoutError, asyncio.IncompleteReadError):
                return False

        await eventually(is_tcp, what="bytes are forwarded")
        instance.write("main", placed(loopback, listener(port=8080)), *rest)
        await serves(instance, 8080)
