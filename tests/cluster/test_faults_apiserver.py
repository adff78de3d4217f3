"""An API server that is away, or not what it was: proxies serve on, and what changed meanwhile holds afterwards."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import httpcore
import pytest

from tests.cluster.apiserver import ApiServer
from tests.cluster.controllers import Controller, run_controller
from tests.cluster.link import Link
from tests.cluster.site import HELD, LOST, Site, accepted, answers, backend, gateway, route, serves
from tests.rig.addresses import free_ports, own_address
from tests.rig.backends import Backends
from tests.rig.load import Load
from tests.rig.waiting import eventually

pytestmark = pytest.mark.timeout(300)


async def test_changes_while_the_api_server_is_away_hold_once_it_is_back(
    apiserver: ApiServer, backends: Backends, tmp_path: Path
) -> None:
    """Away for longer than the Lease lasts, for this controller alone: everybody else goes on changing things."""
    first, second = await backends.echo("first", host=own_address()), await backends.echo("second", host=own_address())
    (port,) = free_ports(1)
    async with Link(apiserver, tmp_path) as link:
        options = ("--no-mesh", "--kubeconfig", str(link.kubeconfig))
        async with run_controller(apiserver, tmp_path, "cut-off", *options) as controller:
            site = Site(apiserver, controller)
            await site.apply(gateway(controller, "kept", port), *backend(controller, first))
            await site.apply(*(route(controller, name, ["kept"], f"/{name}") for name in ("kept", "edited", "removed")))
            await eventually(lambda: site.has_objects("kept"), what="the objects", within=15)
            async with site.envoy("kept") as log:
                for name in ("kept", "edited", "removed"):
                    await eventually(lambda name=name: serves(port, f"/{name}"), what="it serves", within=20)
                await eventually(lambda: accepted(site, "edited"), within=15)
                async with Load(("127.0.0.1", port), "/kept", clients=2, pause=0.01) as load:
                    await link.cut()
                    await site.apply(
                        route(controller, "edited", ["kept"], "/other"),
                        route(controller, "added", ["kept"], "/added"),
                        *backend(controller, second),
                    )
                    await asyncio.to_thread(apiserver.kubectl, "-n", controller.name, "delete", "httproute", "removed")
                    await eventually(lambda: LOST in controller.log(), what="it leads no longer", within=30)
                    assert (await controller.ask("/readyz", controller.health))[0] == 200
                    assert await answers(port, "/edited") == 200
                    assert await answers(port, "/added") == 404
                    assert "status" not in await site.get("httproute", "added")

                    await link.mend()
                    for path, status in (("/added", 200), ("/other", 200), ("/edited", 404), ("/removed", 404)):
                        await eventually(lambda p=path, s=status: serves(port, p, s), what=path, within=30)
                    for name in ("added", "edited"):
                        await eventually(lambda name=name: accepted(site, name), what=name, within=30)
                    await eventually(lambda: "second" in load.report.pods, what="the endpoint that is new", within=30)
            assert (load.report.failed, load.report.samples) == (0, []), log.read_text()
            assert controller.log().count(HELD) == 2
            assert controller.process is not None
            assert controller.process.returncode is None


async def test_a_definition_that_is_removed_costs_nothing_that_was_served(
    start_apiserver: Callable[..., ApiServer], backends: Backends, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(start_apiserver)
    await asyncio.to_thread(server.install_gateway_api)
    echo = await backends.echo("echo", host=own_address())
    (port,) = free_ports(1)
    async with run_controller(server, tmp_path, "undefined", "--no-mesh") as controller:
        site = Site(server, controller)
        await site.apply(gateway(controller, "kept", port), *backend(controller, echo))
        await site.apply(route(controller, "kept", ["kept"], "/kept"))
        await eventually(lambda: site.has_objects("kept"), what="the objects", within=15)
        async with site.envoy("kept") as log:
            await eventually(lambda: serves(port, "/kept"), what="the proxy serves", within=20)
            async with Load(("127.0.0.1", port), "/kept", clients=2, pause=0.01) as load:
                await asyncio.to_thread(server.kubectl, "delete", "crd", "httproutes.gateway.networking.k8s.io")
                await site.apply({**gateway(controller, "more", port + 1)})
                await eventually(lambda: site.has_objects("more"), what="other kinds go on", within=30)
                assert (await controller.ask("/readyz", controller.health))[0] == 200

                # One that starts without the definition publishes nothing, and says what it waits for.
                await controller.end(signal.SIGKILL)
                await controller.start("--no-mesh")
                await eventually(lambda: waits_for("HTTPRoute", controller), what="it waits", within=30)
                await load.at_least(50)
            assert (load.report.failed, load.report.samples) == (0, []), log.read_text()
            await asyncio.to_thread(server.install_gateway_api)
            await site.apply(route(controller, "anew", ["kept"], "/anew"))
            await controller.ready()
            await eventually(lambda: serves(port, "/anew"), what="the kind is back", within=30)
            assert await answers(port, "/kept") == 404


async def waits_for(kind: str, controller: Controller) -> bool:
    try:
        status, text = await controller.ask("/readyz", controller.health)
    except httpcore.NetworkError:  # it is not up yet
        return False
    waiting = [line.rpartition(" ")[2] for line in text.splitlines() if "not seen yet" in line]
    assert (status, waiting) == (503, [kind]), text
    return True
