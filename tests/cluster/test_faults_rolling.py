"""Replicas of the controller and of a Gateway's proxies that are replaced, and killed: no request fails for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster import controller_image
from tests.cluster.access import KubectlError
from tests.cluster.cluster import Cluster
from tests.cluster.controllers import condition
from tests.cluster.local import LocalCluster
from tests.cluster.mesh import gateway, route
from tests.cluster.workloads import Echo
from tests.rig.clients import Target, request
from tests.rig.load import Load
from tests.rig.waiting import eventually

pytestmark = [pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]

BASE = Path(__file__).parents[2] / "manifests" / "overlays" / "kind"
HOME = "rolling-system"
SPACE = "rolling"
PROXIES = "edge-meshgw"
"""The name of the Gateway's objects."""
DEFINITION = "crd/gatewayparameters.meshgw.dev"
DRAIN = 6
"""Seconds for which a proxy that is to end serves on: longer than kube-proxy takes to forget it."""


class Site:
    """An installation of two replicas, and a Gateway whose load balancer is at `target`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.target: Target = ("", 0)

    async def run(self, *arguments: str | Path, within: float = 60.0) -> str:
        return await asyncio.to_thread(lambda: self.cluster.kubectl(*arguments, within=within))

    async def get(self, namespace: str, *arguments: str) -> Any:
        return await asyncio.to_thread(self.cluster.get, "-n", namespace, *arguments)

    async def apply(self, *documents: dict[str, Any] | str) -> None:
        await asyncio.to_thread(self.cluster.apply, *documents)

    async def rolled(self, namespace: str, name: str) -> None:
        await asyncio.to_thread(lambda: self.cluster.wait_deployed(namespace, name, within=120))

    async def pods(self, namespace: str, selector: str) -> dict[str, str]:
        """Return the nodes' ids of the containers of pods, by name: those that are to end too."""
        found = (await self.get(namespace, "pods", "-l", selector))["items"]
        return {
            pod["metadata"]["name"]: status["containerID"].rpartition("/")[2]
            for pod in found
            for status in pod["status"].get("containerStatuses", ())
            if "containerID" in status
        }

    async def change(self, number: int) -> None:
        """Make a route, and wait until it is served, and said to be."""
        await self.apply(route(SPACE, f"r{number}", {"name": "edge"}, {f"/{number}": "echo"}))

        async def is_served() -> bool:
            answer = await request(self.target, f"/{number}", within=5.0)
            assert answer.status == 200, answer
            return True

        async def is_told() -> bool:
            parents = (await self.get(SPACE, "httproute", f"r{number}")).get("status", {}).get("parents", ())
            assert [condition({"status": parent}, "Accepted")[0] for parent in parents] == ["True"]
            return True

        await eventually(is_served, what=f"change {number} is served", within=30, interval=0.1)
        await eventually(is_told, what=f"change {number} is told", within=40, interval=0.2)

    async def leader(self) -> str:
        """Return the pod that holds the Lease."""
        lease = await self.get(HOME, "lease", "meshgw")
        return str(lease["spec"].get("holderIdentity", "")).rpartition("_")[0]


CONTROLLERS = "app.kubernetes.io/component=controller"
ENVOYS = "gateway.networking.k8s.io/gateway-name=edge"


def installation(cluster: Cluster) -> str:
    """Return the manifests of an installation in a namespace of its own: two replicas, no mesh."""
    text = cluster.kubectl("kustomize", BASE).replace("meshgw-system", HOME)
    for before, after in (("replicas: 1", "replicas: 2"), ("- controller\n", "- controller\n        - --no-mesh\n")):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def parameters(level: str) -> dict[str, Any]:
    return {
        "apiVersion": "meshgw.dev/v1alpha1",
        "kind": "GatewayParameters",
        "metadata": {"name": "edge", "namespace": SPACE},
        "spec": {"envoy": {"logLevel": level, "drainSeconds": DRAIN}},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(cluster: Cluster) -> AsyncIterator[Site]:
    made = Site(cluster)
    await asyncio.to_thread(cluster.provide, controller_image.NAME)
    await asyncio.to_thread(cluster.create_namespace, SPACE)
    manifests = await asyncio.to_thread(installation, cluster)
    try:
        await made.apply(manifests)
        await asyncio.to_thread(cluster.wait_defined)
        await asyncio.to_thread(Echo(cluster, SPACE, "echo", replicas=2).deploy)
        edge = gateway(SPACE, "edge", "meshgw", {"name": "http", "port": 80, "protocol": "HTTP"})
        reference = {"group": "meshgw.dev", "kind": "GatewayParameters", "name": "edge"}
        edge["spec"]["infrastructure"] = {"parametersRef": reference}
        await made.apply(parameters("warning"), edge, route(SPACE, "load", {"name": "edge"}, {"/load": "echo"}))
        await made.rolled(HOME, "meshgw")
        await made.run("-n", SPACE, "wait", "gateway/edge", "--for=condition=Programmed", "--timeout=60s", within=70)
        made.target = cluster.reach(await asyncio.to_thread(cluster.load_balancer, SPACE, PROXIES), 80)
        await made.change(0)
        yield made
    except KubectlError as error:
        logs = await made.run("-n", HOME, "logs", "-l", CONTROLLERS, "--tail=30")
        pytest.fail(f"{error}\n{logs}\n{await made.run('get', 'pods,events', '-A')}")
    finally:
        # Namespaces take their time, and nobody else has these; others install the same definition.
        await made.run("delete", "namespace", SPACE, "--ignore-not-found", "--wait=false")
        await asyncio.to_thread(lambda: cluster.kubectl("delete", "--wait=false", "-f", "-", stdin=manifests))
        await made.run("wait", "--for=delete", DEFINITION, "--timeout=60s", within=70)


async def test_a_rolling_upgrade_of_the_controller_fails_no_request(site: Site) -> None:
    before = await site.pods(HOME, CONTROLLERS)
    async with Load(site.target, "/load", clients=2, pause=0.01) as load:
        await site.run("-n", HOME, "set", "env", "deployment/meshgw", "ANOTHER=1")
        rolling = asyncio.create_task(site.rolled(HOME, "meshgw"))
        number = 1
        while not rolling.done():
            await site.change(number)
            number += 1
        await rolling
        await eventually(lambda: all_new(site, HOME, CONTROLLERS, before), what="former ones end", within=60)
        await site.change(number)
    assert (load.report.failed, load.report.samples) == (0, [])
    assert number > 2, "changes were made meanwhile"
    # Who ended gave the Lease back, and was not killed for ending too late.
    assert await site.leader() in await site.pods(HOME, CONTROLLERS)
    for event in (await site.get(HOME, "events"))["items"]:
        assert event["reason"] not in {"FailedKillPod", "ExceededGracePeriod"}, event["message"]


async def all_new(site: Site, namespace: str, selector: str, before: dict[str, str]) -> bool:
    return not (await site.pods(namespace, selector)).keys() & before.keys()


async def test_new_proxies_take_over_from_former_ones_without_a_failed_request(site: Site) -> None:
    before = await site.pods(SPACE, ENVOYS)
    async with (
        Load(site.target, "/load", clients=2, pause=0.01) as kept,
        Load(site.target, "/load", clients=2, pause=0.02, reuse=False) as opened,
    ):
        await site.apply(parameters("info"))
        await eventually(lambda: is_rolling(site, before), what="another pod", within=30)
        await eventually(lambda: all_new(site, SPACE, ENVOYS, before), what="the former ends", within=90, interval=0.2)
        await kept.at_least(100)
        await opened.at_least(20)
    assert (kept.report.failed, kept.report.samples) == (0, [])
    assert (opened.report.failed, opened.report.samples) == (0, [])


async def is_rolling(site: Site, before: dict[str, str]) -> bool:
    return bool((await site.pods(SPACE, ENVOYS)).keys() - before.keys())


async def test_leaders_that_are_frozen_and_killed_are_followed_by_others_and_fail_no_request(site: Site) -> None:
    if not isinstance(site.cluster, LocalCluster):
        pytest.skip("only on a local cluster a process of a node can be signalled")

    async def hit(pod: str, signal: str) -> None:
        assert isinstance(site.cluster, LocalCluster)
        container = (await site.pods(HOME, CONTROLLERS))[pod]
        command = ["ctr", "--namespace=k8s.io", "tasks", "kill", f"--signal={signal}", container]
        await asyncio.to_thread(site.cluster.run, command)

    async def is_followed() -> bool:
        assert await site.leader() not in {"", former}
        return True

    async with Load(site.target, "/load", clients=2, pause=0.01) as load:
        former = await site.leader()
        await hit(former, "SIGSTOP")
        try:
            await site.change(1000)
            await eventually(is_followed, what="another one leads", within=30, interval=0.5)
        finally:
            await hit(former, "SIGCONT")
        await site.change(1001)
        assert await site.leader() != former
        former = await site.leader()
        await hit(former, "SIGKILL")
        await site.change(1002)
        await eventually(is_followed, what="another one leads", within=30, interval=0.5)
    assert (load.report.failed, load.report.samples) == (0, [])
