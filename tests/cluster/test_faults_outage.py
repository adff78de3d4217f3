"""A minute without an API server, which comes back with a store of before: what it has then is what holds."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.apiserver import ApiServer
from tests.cluster.controllers import run_controller
from tests.cluster.site import HELD, LOST, Site, accepted, answers, backend, counted, gateway, has_routes, route, serves
from tests.rig.addresses import free_ports, own_address
from tests.rig.backends import Backends
from tests.rig.load import Load
from tests.rig.waiting import eventually

pytestmark = pytest.mark.timeout(300)

OUTAGE = 60.0
RECOVERY = 30.0
"""Seconds after which all that changed is served and told; it takes one on a quiet machine."""


def back_up(server: ApiServer) -> None:
    """Copy the store as it is at one moment."""
    server.etcd.freeze()
    try:
        shutil.copytree(server.folder / "etcd", server.folder / "backup")
    finally:
        server.etcd.thaw()


def restore(server: ApiServer) -> None:
    """Start again with the store as it was copied: its revisions are lower than those that were seen since."""
    shutil.rmtree(server.folder / "etcd")
    (server.folder / "backup").rename(server.folder / "etcd")
    server.start()


async def test_what_a_restored_store_has_holds_after_a_minute_without_one(
    start_apiserver: Callable[..., ApiServer], backends: Backends, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(lambda: start_apiserver(seeded=True))
    first, second = await backends.echo("first", host=own_address()), await backends.echo("second", host=own_address())
    (port,) = free_ports(1)
    clock = asyncio.get_running_loop().time
    async with run_controller(server, tmp_path, "restored", "--no-mesh") as controller:
        site = Site(server, controller)
        await site.apply(gateway(controller, "kept", port), *backend(controller, first))
        await site.apply(*(route(controller, name, ["kept"], f"/{name}") for name in ("kept", "edited", "removed")))
        await eventually(lambda: site.has_objects("kept"), what="the objects", within=15)
        async with site.envoy("kept") as log, Load(("127.0.0.1", port), "/kept", clients=2, pause=0.01) as load:
            for name in ("edited", "removed"):
                await eventually(lambda name=name: serves(port, f"/{name}"), what="it serves", within=20)
            await eventually(lambda: accepted(site, "removed"), within=15)
            load.report.errors.clear()  # of before it was served
            load.report.samples.clear()
            await asyncio.to_thread(back_up, server)
            # All this will not have happened.
            await site.apply(
                *(route(controller, f"lost-{number}", ["kept"], f"/lost-{number}") for number in range(30)),
                route(controller, "edited", ["kept"], "/lost"),
            )
            for path in ("/lost-29", "/lost"):
                await eventually(lambda path=path: serves(port, path), what=path, within=20)
                await eventually(lambda: accepted(site, "lost-29"), within=15)

            gone = clock()
            await asyncio.to_thread(server.server.kill)
            await asyncio.to_thread(server.etcd.kill)
            await eventually(lambda: LOST in controller.log(), what="it leads no longer", within=30)
            pushes = await counted(controller, "xds_push_bytes_count")
            await eventually(lambda: clock() - gone >= OUTAGE, what="a minute", within=OUTAGE + 5, interval=1.0)
            assert (await controller.ask("/readyz", controller.health))[0] == 200
            assert await answers(port, "/lost") == 200
            assert await counted(controller, "xds_push_bytes_count") == pushes

            await asyncio.to_thread(restore, server)
            back = clock()
            await site.apply(route(controller, "added", ["kept"], "/added"), *backend(controller, second))
            await asyncio.to_thread(server.kubectl, "-n", controller.name, "delete", "httproute", "removed")
            expected = {"/added": 200, "/edited": 200, "/removed": 404, "/lost": 404, "/lost-29": 404}
            for path, status in expected.items():
                await eventually(lambda p=path, s=status: serves(port, p, s), what=path, within=60)
            for name in ("added", "edited"):
                await eventually(lambda name=name: accepted(site, name), what=name, within=30)
            await eventually(lambda: "second" in load.report.pods, what="the endpoint that is new", within=30)
            await eventually(lambda: has_routes(site, 3), what="the status of the Gateway", within=30)
            assert clock() - back < RECOVERY
            # Nobody writes more than a change asks for.
            before = await counted(controller, "api_writes_total")
            await site.apply(route(controller, "edited", ["kept"], "/again"))
            await eventually(lambda: accepted(site, "edited"), what="the status of an edit", within=15)
            assert await counted(controller, "api_writes_total") == before + 1
        assert (load.report.failed, load.report.samples) == (0, []), log.read_text()
        assert (controller.log().count(LOST), controller.log().count(HELD)) == (1, 2)
