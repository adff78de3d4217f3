"""A controller that is killed again and again: no request fails, and who starts anew pushes nothing twice."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.cluster.apiserver import ApiServer
from tests.cluster.controllers import Controller, run_controller
from tests.cluster.site import Site, accepted, backend, counted, gateway, has_routes, route, serves
from tests.rig.addresses import free_ports, own_address
from tests.rig.backends import Backends
from tests.rig.load import Load
from tests.rig.waiting import eventually

pytestmark = pytest.mark.timeout(300)

CHANGES = 200
KILLS = 4


async def has_proxies(controller: Controller, number: int) -> bool:
    return await counted(controller, "xds_connected_proxies") == number


async def start_again(site: Site) -> None:
    """Start a controller after the former one was killed; it need not wait for the Lease of the dead one."""
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{site.controller.name}/leases"
    await site.send("DELETE", leases, None)
    await site.controller.start("--no-mesh")
    await site.controller.ready()


class Changes:
    """Changes of a site by number: what routes match, which routes there are, and where their backend is."""

    def __init__(self, site: Site, hosts: list[tuple[str, int]]) -> None:
        self.site, self.hosts = site, hosts
        space = site.controller.name
        self.routes = f"/apis/gateway.networking.k8s.io/v1/namespaces/{space}/httproutes"
        self.slice = f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices/echo"

    async def make(self, number: int) -> None:
        if number % 4 == 0:
            await self.site.send("POST", self.routes, route(self.site.controller, "passing", ["kept"], "/passing"))
        elif number % 4 == 2:
            await self.site.send("DELETE", f"{self.routes}/passing", None)
        elif number % 4 == 1:
            host, port = self.hosts[number // 4 % len(self.hosts)]
            body = {"ports": [{"port": port}], "endpoints": [{"addresses": [host]}]}
            await self.site.send("PATCH", self.slice, body, patch=True)
        else:
            body = {"spec": route(self.site.controller, "", ["kept"], f"/{number}")["spec"]}
            await self.site.send("PATCH", f"{self.routes}/moving", body, patch=True)


async def test_kills_at_random_points_cost_no_request_and_no_needless_push(
    apiserver: ApiServer, backends: Backends, tmp_path: Path
) -> None:
    echos = [await backends.echo(name, host=own_address()) for name in ("first", "second")]
    (port,) = free_ports(1)
    chance = random.Random(20261121)
    # Every other time the next one is up before changes go on.
    kills = {number: index % 2 == 0 for index, number in enumerate(sorted(chance.sample(range(CHANGES), KILLS)))}
    async with run_controller(apiserver, tmp_path, "killed", "--no-mesh") as controller:
        site = Site(apiserver, controller)
        await site.apply(gateway(controller, "kept", port), *backend(controller, echos[0]))
        await site.apply(route(controller, "kept", ["kept"], "/kept"), route(controller, "moving", ["kept"], "/moving"))
        await eventually(lambda: site.has_objects("kept"), what="the objects", within=15)
        async with site.envoy("kept") as log:
            await eventually(lambda: serves(port, "/moving"), what="the proxy serves", within=20)
            changes = Changes(site, [(echo.host, echo.port) for echo in echos])
            async with Load(("127.0.0.1", port), "/kept", clients=2, pause=0.01) as load:
                for number in range(CHANGES):
                    await changes.make(number)
                    if number in kills:
                        await controller.end(signal.SIGKILL)
                        await (start_again(site) if kills[number] else controller.start("--no-mesh"))
                await controller.ready()
                for path, status in ((f"/{CHANGES - 1}", 200), ("/passing", 404)):
                    await eventually(lambda p=path, s=status: serves(port, p, s), what=path, within=40)
                await eventually(lambda: has_routes(site, 2), what="the status is written", within=40)
                await eventually(lambda: accepted(site, "moving"), what="that of the last change too", within=40)

                await controller.end(signal.SIGKILL)
                await start_again(site)
                await eventually(lambda: has_proxies(controller, 1), what="the proxy is back", within=40)
                await site.apply(route(controller, "last", ["kept"], "/last"))
                await eventually(lambda: serves(port, "/last"), what="the last change", within=20)
                await eventually(lambda: has_routes(site, 3), what="the status is written", within=40)
                await eventually(lambda: accepted(site, "last"), what="that of the route too", within=40)
                await load.at_least(50)
            assert (load.report.failed, load.report.samples) == (0, []), log.read_text()
            assert set(load.report.pods) == {"first", "second"}
            # All that was pushed and written since is what the last change made: one table, and two statuses.
            assert await counted(controller, "xds_push_bytes_count") == 1
            metrics = (await controller.ask("/metrics", controller.metrics))[1]
            written = [line for line in metrics.splitlines() if line.startswith("meshgw_api_writes_total")]
            assert await counted(controller, "api_writes_total") == 2, written
