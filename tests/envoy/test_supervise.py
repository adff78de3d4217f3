"""The supervisor with the real Envoy: life, death, drain, and controllers that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from meshgw.emit.bootstrap import Bootstrap, build_bootstrap
from meshgw.standalone.process import start_time
from meshgw.standalone.runtime import ProxyDirectory, RuntimeDirectory
from meshgw.standalone.supervise import EnvoyFailedError, Supervisor, SupervisorEvent, Timing
from tests.rig.backends import Backends
from tests.rig.clients import request
from tests.rig.envoy import validate
from tests.rig.load import Load
from tests.rig.waiting import eventually

TYPE = "type.googleapis.com/envoy.extensions"
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


@pytest.fixture
def runtime() -> Iterator[RuntimeDirectory]:
    """A runtime directory with short paths."""
    with tempfile.TemporaryDirectory(prefix="meshgw-envoy-") as scratch:
        yield RuntimeDirectory(Path(scratch))


@pytest.fixture
def proxy(runtime: RuntimeDirectory) -> ProxyDirectory:
    """The directory of one proxy."""
    return runtime.proxy("default", "web")


def static_bootstrap(proxy: ProxyDirectory, host: str, port: int, upstream: tuple[str, int]) -> dict[str, Any]:
    """A bootstrap that proxies one port without any xDS."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}],
    }
    endpoint = {"endpoint": {"address": {"socket_address": {"address": upstream[0], "port_value": upstream[1]}}}}
    return {
        "admin": {"address": {"pipe": {"path": str(proxy.admin_socket), "mode": 0o600}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "web",
                    "address": {"socket_address": {"address": host, "port_value": port}},
                    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "up",
                    "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [endpoint]}]},
                }
            ],
        },
    }


@asynccontextmanager
async def supervised(
    envoy: Path, proxy: ProxyDirectory, bootstrap: dict[str, Any], **options: Any
) -> AsyncIterator[tuple[Supervisor, list[SupervisorEvent]]]:
    """A running supervisor and its events; leaving ends it as its controller's end would."""
    events: list[SupervisorEvent] = []
    supervisor = Supervisor(
        name="default/web",
        binary=envoy,
        bootstrap=bootstrap,
        directory=proxy,
        concurrency=1,
        on_event=events.append,
        **options,
    )
    task = asyncio.get_running_loop().create_task(supervisor.run())
    try:
        yield supervisor, events
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def live(supervisor: Supervisor) -> int:
    """Wait for LIVE and return the process id."""
    async with asyncio.timeout(20):
        await supervisor.wait_live()
    assert supervisor.pid is not None
    return supervisor.pid


async def test_a_killed_envoy_serves_again(
    envoy: Path, proxy: ProxyDirectory, backends: Backends, loopback: str
) -> None:
    echo = await backends.echo("v1")
    async with supervised(envoy, proxy, static_bootstrap(proxy, loopback, 8080, echo.address)) as (supervisor, events):
        first = await live(supervisor)
        assert (await request((loopback, 8080))).pod == "v1"
        assert proxy.admin_socket.stat().st_mode & 0o777 == 0o600
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: [event.kind for event in events].count("live") == 2, within=20)
        assert (await request((loopback, 8080))).pod == "v1"
        await supervisor.stop()
        assert [event.kind for event in events] == ["started", "live", "died", "started", "live", "stopped"]


async def test_stopping_lets_requests_in_flight_finish(
    envoy: Path, proxy: ProxyDirectory, backends: Backends, loopback: str
) -> None:
    echo = await backends.echo("v1")
    async with supervised(envoy, proxy, static_bootstrap(proxy, loopback, 8080, echo.address)) as (supervisor, _):
        await live(supervisor)
        async with asyncio.TaskGroup() as tasks:
            slow = tasks.create_task(request((loopback, 8080), "/?delay=0.5"))
            await echo.wait_hits()
            await supervisor.stop()
        assert slow.result().status == 200
        assert slow.result().header("connection") == "close"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(loopback, 8080)


async def test_stopping_does_not_wait_for_idle_clients_beyond_the_bound(
    envoy: Path, proxy: ProxyDirectory, backends: Backends, loopback: str
) -> None:
    echo = await backends.echo()
    bootstrap = static_bootstrap(proxy, loopback, 8080, echo.address)
    async with supervised(envoy, proxy, bootstrap, timing=Timing(drain_within=0.3)) as (supervisor, _):
        await live(supervisor)
        reader, writer = await asyncio.open_connection(loopback, 8080)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(4):
            await supervisor.stop()
        writer.close()
        await writer.wait_closed()


async def test_a_rejected_bootstrap_is_told_in_envoys_words(envoy: Path, proxy: ProxyDirectory) -> None:
    bootstrap = {"admin": {"address": {"pipe": {"path": str(proxy.admin_socket)}}}, "nonsense": True}
    supervisor = Supervisor(name="default/web", binary=envoy, bootstrap=bootstrap, directory=proxy)
    async with asyncio.timeout(20):
        with pytest.raises(EnvoyFailedError, match=r"default/web: Envoy rejected its bootstrap: .*nonsense") as caught:
            await supervisor.run()
    assert "\n" not in str(caught.value)


async def test_a_port_in_use_is_named(envoy: Path, proxy: ProxyDirectory, backends: Backends) -> None:
    taken = await backends.echo()
    bootstrap = static_bootstrap(proxy, taken.host, taken.port, taken.address)
    supervisor = Supervisor(name="default/web", binary=envoy, bootstrap=bootstrap, directory=proxy)
    async with asyncio.timeout(20):
        with pytest.raises(EnvoyFailedError, match=rf"{taken.host}:{taken.port} is in use; stop what listens there"):
            await supervisor.run()


async def test_envoy_accepts_every_kind_of_bootstrap(runtime: RuntimeDirectory, proxy: ProxyDirectory) -> None:
    plain = Bootstrap(node_id="n", cluster="c", xds=runtime.xds, admin=proxy.admin)
    other = Bootstrap(
        node_id="n",
        cluster="c",
        xds="127.0.0.1:18000",
        admin="127.0.0.1:19000",
        metadata={"gateway": "default/web"},
        all_stats=True,
        state_of_the_world=True,
    )
    for options in (plain, other):
        verdict = await validate(build_bootstrap(options))
        assert verdict.ok, verdict.error


class EmptyAds(grpc.GenericRpcHandler):
    """An xDS server with nothing in it, on a unix socket; `types` lists what was asked for."""

    def __init__(self) -> None:
        self.types: list[str] = []
        self.nodes: list[str] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Answer the aggregated delta stream."""
        assert handler_call_details.method == ADS

        async def stream(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
            async for data in requests:
                message = DeltaDiscoveryRequest.FromString(data)
                if not message.response_nonce:
                    self.types.append(message.type_url.rsplit(".", 1)[-1])
                    self.nodes += [message.node.id] if message.node.id else []
                    yield DeltaDiscoveryResponse(type_url=message.type_url, nonce="1").SerializeToString()

        return grpc.stream_stream_rpc_method_handler(stream)


async def test_it_is_live_once_the_xds_server_has_answered(
    envoy: Path, runtime: RuntimeDirectory, proxy: ProxyDirectory
) -> None:
    bootstrap = build_bootstrap(Bootstrap(node_id="web", cluster="meshgw", xds=runtime.xds, admin=proxy.admin))
    async with supervised(envoy, proxy, bootstrap) as (supervisor, _):
        await eventually(supervisor.admin.state, what="the admin interface answers", within=20)
        assert not supervisor.live
        ads, server = EmptyAds(), grpc.aio.server()
        server.add_generic_rpc_handlers((ads,))
        server.add_insecure_port(runtime.xds)
        await server.start()
        try:
            await live(supervisor)
        finally:
            await server.stop(grace=None)
        assert ads.types == ["Cluster", "Listener"]
        assert ads.nodes == ["web"]
        await supervisor.stop()


CONTROLLER = """
import asyncio, json, sys
from pathlib import Path
from meshgw.standalone.runtime import ProxyDirectory
from meshgw.standalone.supervise import Supervisor

async def main():
    binary, directory, detach, bootstrap = sys.argv[1:]
    supervisor = Supervisor(
        name="default/web", binary=Path(binary), bootstrap=json.loads(bootstrap), concurrency=1,
        directory=ProxyDirectory(Path(directory)), detach=detach == "detach",
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await supervisor.wait_live()
        print(supervisor.pid, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def controller(
    envoy: Path, proxy: ProxyDirectory, bootstrap: dict[str, Any], *, detach: bool
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A controller in a process of its own, and its Envoy's process id."""
    arguments = [str(envoy), str(proxy.path), "detach" if detach else "attach", json.dumps(bootstrap)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CONTROLLER, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            yield process, int(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_an_attached_envoy_dies_with_a_killed_controller(
    envoy: Path, proxy: ProxyDirectory, backends: Backends, loopback: str
) -> None:
    echo = await backends.echo()
    bootstrap = static_bootstrap(proxy, loopback, 8080, echo.address)
    async with controller(envoy, proxy, bootstrap, detach=False) as (process, pid):
        assert start_time(pid) is not None
        process.kill()
        await eventually(lambda: start_time(pid) is None, what="Envoy is gone")


async def test_a_detached_envoy_serves_on_and_is_taken_over_without_an_error(
    envoy: Path, proxy: ProxyDirectory, backends: Backends, loopback: str
) -> None:
    echo = await backends.echo("v1")
    bootstrap = static_bootstrap(proxy, loopback, 8080, echo.address)
    async with controller(envoy, proxy, bootstrap, detach=True) as (process, pid):
        async with Load((loopback, 8080), clients=2) as load:
            await load.at_least(50)
            process.kill()
            await process.wait()
            await load.at_least(50)
            async with supervised(envoy, proxy, bootstrap, detach=True) as (supervisor, events):
                assert await live(supervisor) == pid
                assert [event.kind for event in events] == ["adopted", "live"]
                await load.at_least(50)
                report = await load.stop()
                await supervisor.stop()
        assert report.failed == 0, report.samples
        assert start_time(pid) is None
