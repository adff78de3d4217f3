"""Captured pods beside a real istiod: by HBONE from pod to pod, through a waypoint, and to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.access import KubectlError
from tests.cluster.discovery import ask_workloads
from tests.cluster.istiod import Istiod
from tests.cluster.local import LocalCluster
from tests.cluster.mesh import issue
from tests.cluster.workloads import HBONE, HTTP, Echo, lines_of
from tests.mesh.running import proxy_log, start_node_proxy, stop_node_proxy, wait_captured
from tests.rig.certs import CertificateAuthority, Leaf
from tests.rig.clients import request
from tests.rig.hbone import HboneClient, HboneServer, TunnelRefusedError
from tests.rig.waiting import eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

SPACE = "captured"
URL = f"http://shop.{SPACE}.svc.cluster.local/"


class Town:
    """A namespace in the mesh with a shop, and a client of it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.shop = Echo(cluster, SPACE, "shop")
        self.client = Echo(cluster, SPACE, "client")

    def deploy(self) -> None:
        self.cluster.create_namespace(SPACE, istio_io__dataplane_mode="ambient")
        for echo in (self.shop, self.client):
            echo.deploy()
        wait_captured(self.cluster, SPACE, "shop", "client")

    async def call(self, url: str = URL) -> list[str]:
        """Return who answers the client; raises KubectlError, with what the client's proxy says."""
        try:
            return lines_of(await asyncio.to_thread(self.client.call, url), "Hostname")
        except KubectlError as error:
            raise KubectlError("\n".join([str(error), *(await self.log(self.client))[-10:]])) from None

    async def log(self, echo: Echo) -> list[str]:
        """Return the lines of the proxy of the one pod."""
        (pod,) = await asyncio.to_thread(echo.pods)
        return proxy_log(self.cluster, SPACE, pod).splitlines()

    async def address(self) -> str:
        """Return the shop's virtual address."""
        service = await asyncio.to_thread(self.cluster.get, "-n", SPACE, "service", "shop")
        address: str = service["spec"]["clusterIP"]
        return address

    async def pod(self) -> tuple[str, str]:
        """Return name and address of the shop's pod."""
        (found,) = (await asyncio.to_thread(self.shop.pods)).items()
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(captured: LocalCluster) -> AsyncIterator[Town]:
    town = Town(captured)
    try:
        await asyncio.to_thread(town.deploy)
        yield town
    finally:
        await asyncio.to_thread(captured.kubectl, "delete", "namespace", SPACE, "--wait=false")


def spiffe(account: str) -> str:
    return f"spiffe://cluster.local/ns/{SPACE}/sa/{account}"


async def logged(town: Town, echo: Echo, check: Callable[[str], bool], what: str) -> None:
    async def is_logged() -> bool:
        lines = await town.log(echo)
        assert any(map(check, lines)), lines[-20:]
        return True

    await eventually(is_logged, what=what, within=20, interval=0.2)


async def test_service_without_a_waypoint_is_reached_by_hbone_as_the_client(town: Town, istiod: Istiod) -> None:
    pod, address = await town.pod()

    async def is_known() -> bool:
        return (await ask_workloads(istiod, SPACE, "client"))["workload", pod].hbone

    await eventually(is_known, what="istiod tells that the pod speaks HBONE", within=20, interval=0.2)
    tunnel = f"tunnel to={address}:{HTTP} from={spiffe('client')} status=200"

    async def is_tunnelled() -> bool:
        assert await town.call() == [pod]
        return any(line.startswith(tunnel) for line in await town.log(town.shop))

    await eventually(is_tunnelled, what="the shop's proxy ends a tunnel of the client", within=20, interval=0.2)
    assert await town.call(f"http://{address}:{HTTP}/") == [pod]  # of the workload itself
    said = (await request((address, HTTP), "/", within=10.0)).body.decode()  # of nobody in the mesh, in the clear
    assert lines_of(said, "Hostname") == [pod]


async def test_tunnels_are_of_the_mesh_and_lead_to_the_pod_alone(town: Town, istiod: Istiod) -> None:
    _, address = await town.pod()
    friend = await issue(istiod, SPACE, "friend")

    async def connect(identity: Leaf | None, authority: str) -> None:
        async with HboneClient((address, HBONE), ca=friend.root, identity=identity) as client:
            await (await client.connect(authority)).close()

    await connect(friend, f"{address}:{HTTP}")
    for authority in (f"{address}:15008", f"{address}:15006", f"{address}:15001", f"{await town.address()}:80"):
        with pytest.raises(TunnelRefusedError, match="400"):
            await connect(friend, authority)
    stranger = CertificateAuthority.create("another mesh").issue(uris=[spiffe("friend")])
    for identity in (None, stranger):
        with pytest.raises(OSError):
            await connect(identity, f"{address}:{HTTP}")


def by_hand(host: str) -> list[dict[str, Any]]:
    """A Gateway that istiod takes for a waypoint, and the pod that it leads to: what answers there is the test."""
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "by-hand", "namespace": SPACE},
            "spec": {
                "gatewayClassName": "by-hand",
                "listeners": [{"name": "mesh", "port": HBONE, "protocol": "HBONE"}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "by-hand", "namespace": SPACE, "labels": {"networking.istio.io/tunnel": "http"}},
            "spec": {
                "serviceAccountName": "by-hand",
                "schedulingGates": [{"name": "meshgw.dev/never"}],
                "containers": [{"name": "none", "image": "none"}],
            },
        },
    ]


async def test_service_with_a_waypoint_is_reached_through_who_proves_to_be_it(town: Town, istiod: Istiod) -> None:
    cluster, host = town.cluster, town.cluster.host
    leaf, impostor = await issue(istiod, SPACE, "by-hand"), await issue(istiod, SPACE, "impostor")
    await asyncio.to_thread(cluster.apply, *by_hand(host))
    pod, address = await town.pod()
    inside = f"{await town.address()}:80"
    routes = {inside: (address, HTTP), f"{host}:{HTTP}": (address, HTTP)}
    statuses = (
        ("/api/v1", "pods", {"phase": "Pending", "podIP": host, "podIPs": [{"ip": host}]}),
        ("/apis/gateway.networking.k8s.io/v1", "gateways", {"addresses": [{"type": "IPAddress", "value": host}]}),
    )
    for api, kind, status in statuses:
        path = f"{api}/namespaces/{SPACE}/{kind}/by-hand/status"
        body = {"status": status}
        merge = "application/merge-patch+json"
        code, said = await asyncio.to_thread(cluster.request, "PATCH", path, body, content_type=merge)
        assert code == 200, said
    label = ("-n", SPACE, "label", "service", "shop")

    async def is_bound(server: HboneServer) -> bool:
        assert await town.call() == [pod]
        return {connect.authority for connect in server.connects} == {inside}

    try:
        await asyncio.to_thread(cluster.kubectl, *label, "istio.io/use-waypoint=by-hand")
        async with HboneServer(leaf, leaf.root, host=host, port=HBONE, routes=routes) as server:
            await eventually(lambda: is_bound(server), what="the client goes through it", within=30, interval=0.2)
            assert {connect.peer for connect in server.connects} == {spiffe("client")}
            assert await town.call(f"http://{host}:{HTTP}/") == [pod]  # of a workload that speaks HBONE itself
            assert server.connects[-1].authority == f"{host}:{HTTP}"
        async with HboneServer(impostor, leaf.root, host=host, port=HBONE, routes=routes) as server:
            for url in (URL, f"http://{host}:{HTTP}/"):
                with pytest.raises(KubectlError):
                    await town.call(url)
            assert server.connects == []
        refused = "CERTIFICATE_VERIFY_FAILED"
        await logged(town, town.client, lambda line: refused in line, "the client's proxy tells why")
        with pytest.raises(KubectlError):  # nobody is there, and nobody goes past it
            await town.call()
    finally:
        await asyncio.to_thread(cluster.kubectl, *label, "istio.io/use-waypoint-")
        await asyncio.to_thread(cluster.kubectl, "-n", SPACE, "delete", "pod,gateway", "by-hand")

    async def is_direct() -> bool:
        try:
            return await town.call() == [pod]
        except KubectlError:
            return False

    await eventually(is_direct, what="the client needs no waypoint any more", within=30, interval=0.2)


async def test_pods_are_let_go_when_the_node_proxy_ends_and_taken_again(town: Town, istiod: Istiod) -> None:
    cluster = town.cluster
    pod, address = await town.pod()

    async def tells(*, hbone: bool) -> None:
        async def is_told() -> bool:
            return (await ask_workloads(istiod, SPACE, "client"))["workload", pod].hbone == hbone

        await eventually(is_told, what=f"HBONE: {hbone}", within=20, interval=0.2)

    await asyncio.to_thread(stop_node_proxy, cluster)
    await tells(hbone=False)
    assert await town.call() == [pod]
    with pytest.raises(OSError):
        await asyncio.open_connection(address, HBONE)
    await asyncio.to_thread(start_node_proxy, cluster)
    await asyncio.to_thread(wait_captured, cluster, SPACE, "shop", "client")
    await tells(hbone=True)
    assert await town.call() == [pod]
