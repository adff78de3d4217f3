"""Real Envoys at the xDS server of a cluster: let in or not, reconnecting, one of many stuck."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from envoy.config.route.v3 import route_pb2

from meshgw.cluster.roots import Plan, issue, renew, trust_of
from meshgw.emit.resource import ROUTE_CONFIGURATION, Resource
from meshgw.emit.tables import RESOURCES
from tests.envoy.gateway import OFFSET, evaluate, gateway, route, service, to
from tests.envoy.xds_site import GATEWAY, GROUP, Changes, XdsSite, resident_bytes
from tests.rig.backends import Backends
from tests.rig.certs import CertificateAuthority
from tests.rig.clients import HttpClient, Target
from tests.rig.envoy import RunningEnvoy
from tests.rig.load import Load
from tests.rig.waiting import eventually
from tests.unit.xds.peers import NAME
from tests.unit.xds.playbook import edit

AGE = 2.0


@pytest.fixture
def site(tmp_path: Path, ca: CertificateAuthority) -> XdsSite:
    return XdsSite(tmp_path, ca)


def configuration(address: str, backend: Target, *, mark: str = "") -> Changes:
    """A Gateway with a route to one backend, that says which edit of it answers."""
    edit = {"set": [{"name": "x-edit", "value": mark or "0"}]}
    rule = to("app", filters=[{"type": "ResponseHeaderModifier", "responseHeaderModifier": edit}])
    graph, _problems = evaluate(address, gateway(), route([rule]), service("app", backend))
    rows = [row for _key, row in graph.by(RESOURCES, "gateway", GATEWAY)]
    return {(row.type_url, row.name): row for row in rows}


async def counters(envoy: RunningEnvoy) -> dict[str, int]:
    """What an Envoy counts when it takes new configuration."""
    counted = await envoy.admin.stats(
        "(listener_manager.listener_(added|modified|removed)|cluster_manager.cluster_(added|modified|removed))$"
    )
    assert len(counted) == 6, counted
    return counted


async def answers(client: HttpClient, edit: str) -> bool:
    """Whether this edit answers."""
    return (await client.get(host="site.test")).header("x-edit") == edit


async def refuses(envoy: RunningEnvoy) -> bool:
    """Whether an Envoy has refused a certificate."""
    return sum((await envoy.admin.stats("cluster.xds_cluster.ssl.fail_verify_error")).values()) > 0


async def test_a_reconnection_by_age_costs_nothing(site: XdsSite, backends: Backends, loopback: str) -> None:
    """Under traffic: no failed request, nothing sent again, another connection, the newest certificate."""
    echo = await backends.echo()
    target = (loopback, 80 + OFFSET)
    async with site.run(age=AGE):
        site.publish(configuration(loopback, echo.address))
        async with site.envoy() as envoy, HttpClient(target) as client:
            assert (await client.get(host="site.test")).status == 200
            sent, taken, first = site.pushes(), await counters(envoy), site.leaf.serial
            assert {"Cluster", "Listener", "RouteConfiguration", "ClusterLoadAssignment"} <= set(sent)
            async with (
                Load(target, clients=2, host="site.test") as kept,
                Load(target, clients=1, host="site.test", reuse=False, pause=0.01) as new,
            ):
                site.renew()
                await eventually(lambda: len(site.peers) >= 4, what="three reconnections", within=30)
                await eventually(lambda: sum(state.connected for state in site.states.values()) == 1)
                assert site.pushes() == sent
                assert await counters(envoy) == taken
                site.publish(configuration(loopback, echo.address, mark="1"))

                await eventually(lambda: answers(client, "1"), what="an edit after reconnections", within=10)
            assert site.pushes() - sent == {"RouteConfiguration": 1}
            for report in (kept.report, new.report):
                assert (report.failed, report.samples) == (0, [])
                assert report.total > 50
            assert len({peer.address for peer in site.peers}) == len(site.peers)
            assert site.shown[-1] == site.leaf.serial != first


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"token": "nonsense"}, "UNAUTHENTICATED"),
        ({"account": "other"}, "PERMISSION_DENIED"),
        ({"node_id": f"{GROUP}/other-pod"}, "PERMISSION_DENIED"),
        ({"node_id": "default/other/pod", "pod": "pod"}, "PERMISSION_DENIED"),
    ],
)
async def test_an_envoy_that_is_not_let_in_has_no_configuration(
    site: XdsSite, loopback: str, options: dict[str, Any], code: str
) -> None:
    async with site.run():
        site.publish(configuration(loopback, (loopback, 1)))
        async with site.envoy(**options, wait=False) as envoy:
            await eventually(lambda: ("refused", code) in site.recorder.told, what=code, within=20)
            assert not await envoy.admin.ready()
        assert site.pushes() == {}


async def test_an_envoy_does_not_take_configuration_from_whom_it_does_not_trust(site: XdsSite, loopback: str) -> None:
    async with site.run():
        site.publish(configuration(loopback, (loopback, 1)))
        async with site.envoy(roots=CertificateAuthority.create("other").root, wait=False) as envoy:
            await eventually(lambda: refuses(envoy), what="a handshake the proxy refuses", within=20)
            assert not await envoy.admin.ready()
        assert site.peers == []


async def test_an_envoy_follows_the_server_from_one_root_to_the_next(site: XdsSite, loopback: str) -> None:
    """By the bundle of both, as the server's own CA has them; and each root alone vouches for its own only."""
    now = datetime.now(UTC)
    plan = Plan(root=timedelta(days=10), overlap=timedelta(hours=1))
    both = renew(renew((), now - timedelta(days=6), plan), now - timedelta(minutes=90), plan)
    old, new = ([root] for root in both)
    site.show(issue(both, [NAME], now - timedelta(minutes=45), plan))
    async with site.run(age=AGE):
        site.publish(configuration(loopback, (loopback, 1)))
        async with (
            site.envoy(roots=trust_of(both), pod="both"),
            site.envoy(roots=trust_of(old), pod="old") as only_old,
            site.envoy(roots=trust_of(new), pod="new", wait=False) as only_new,
        ):
            await eventually(lambda: refuses(only_new), what="the old certificate is refused", within=20)
            site.show(issue(both, [NAME], now, plan))  # the new root signs
            known = len(site.peers)

            def reconnected() -> bool:
                return {"both", "new"} <= {peer.account.pod for peer in site.peers[known:] if peer.account}

            await eventually(reconnected, what="streams by the new certificate", within=30)
            await eventually(only_new.admin.ready, within=10)
            await eventually(lambda: refuses(only_old), what="the new certificate is refused", within=20)
            connected = {state.node_id for state in site.states.values() if state.connected}
            assert f"{GROUP}/old" not in connected
            assert await only_old.admin.ready()  # it serves on with what it has


PROXIES, CHANGES = 20, 100


def routes(name: str, version: int) -> Changes:
    """A third of a megabyte of routes, each version different."""
    message = route_pb2.RouteConfiguration(name=name)
    for number in range(200):
        host = message.virtual_hosts.add(name=f"{version}-{number}", domains=[f"{version}-{number}.test"])
        answer = host.routes.add(name="x" * 1_500)
        answer.match.prefix = "/"
        answer.direct_response.status = 200
    return edit(Resource.of(ROUTE_CONFIGURATION, name, message.SerializeToString())).changes


class Fleet:
    """Many proxies of one Gateway."""

    def __init__(self, site: XdsSite, table: str) -> None:
        self.site, self.table = site, table
        self.version = 0

    async def change(self, number: int, *, proxies: int) -> list[float]:
        """Change the routes so often, each time once so many proxies have the change before; the seconds of each."""
        clock = asyncio.get_running_loop().time
        took = []
        for _ in range(number):
            self.version += 1
            wanted = self.site.recorder.acks[ROUTE_CONFIGURATION] + proxies
            changes = routes(self.table, self.version)
            began = clock()
            self.site.publish(changes)
            await self.acknowledged(wanted)
            took.append(clock() - began)
        return took

    async def acknowledged(self, wanted: int) -> None:
        acks = self.site.recorder.acks
        await eventually(lambda: acks[ROUTE_CONFIGURATION] >= wanted, what=f"{wanted} ACKs", within=30, interval=0.002)
        assert acks[ROUTE_CONFIGURATION] == wanted


@pytest.mark.slow
async def test_a_stuck_proxy_of_many_holds_nobody_up_and_costs_no_memory(site: XdsSite, loopback: str) -> None:
    first = configuration(loopback, (loopback, 1))
    (table,) = (name for type_url, name in first if type_url == ROUTE_CONFIGURATION)
    async with site.run(), contextlib.AsyncExitStack() as stack:
        site.publish(first)
        fleet = Fleet(site, table)
        envoys = [await stack.enter_async_context(site.envoy(within=60)) for _ in range(PROXIES)]
        await fleet.acknowledged(PROXIES)
        before = await fleet.change(20, proxies=PROXIES)
        stuck = envoys[7]
        os.kill(stuck.pid, signal.SIGSTOP)
        try:
            during = await fleet.change(20, proxies=PROXIES - 1)
            memory = settled_memory()
            during += await fleet.change(CHANGES, proxies=PROXIES - 1)
            grown = settled_memory() - memory
        finally:
            os.kill(stuck.pid, signal.SIGCONT)
        behind = sum(CHANGES * len(row.body) for row in routes(table, 0).values() if row)
        assert behind > 30_000_000
        assert grown < behind / 3
        assert median(during) < 2 * median(before) + 0.02
        sent = site.pushes()
        await eventually(lambda: site.recorder.acks[ROUTE_CONFIGURATION] >= sent["RouteConfiguration"], within=20)
        await fleet.change(1, proxies=PROXIES)
        # What was on its way when it stopped, what was tried while it did not answer, and the last one.
        for_others = (PROXIES - 1) * (1 + 20 + 20 + CHANGES + 1)
        assert site.pushes()["RouteConfiguration"] - for_others < 1 + 20 + 15


def settled_memory() -> int:
    gc.collect()
    return resident_bytes()
