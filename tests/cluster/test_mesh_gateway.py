"""An ingress Gateway beside a real istiod: who it is, whom it reaches, and whom it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.istiod import Istiod
from tests.cluster.mesh import Mesh, gateway, route, run_mesh
from tests.cluster.workloads import Echo, lines_of
from tests.rig.clients import Response, Target, request
from tests.rig.hbone import HboneServer
from tests.rig.waiting import eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

SPACE = "mesh-edge"
IDENTITY = f"spiffe://cluster.local/ns/{SPACE}/sa/edge-mesh-gateway-meshgw"


class Edge:
    """An ingress Gateway in a namespace of the mesh."""

    def __init__(self, mesh: Mesh, target: Target) -> None:
        self.mesh, self.target = mesh, target

    async def get(self, path: str) -> Response:
        return await request(self.target, path, within=10.0)

    async def serves(self, path: str) -> Response:
        """Return the first answer that is 200."""
        answer: list[Response] = []

        async def is_served() -> bool:
            answer[:] = [await self.get(path)]
            assert answer[0].status == 200, answer[0]
            return True

        await eventually(is_served, what=f"{path} is served", within=30, interval=0.2)
        return answer[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(istiod: Istiod) -> AsyncIterator[Edge]:
    async with run_mesh(istiod, "mesh-gateway") as mesh:
        await mesh.namespace(SPACE)
        listener = {"name": "http", "port": 80, "protocol": "HTTP"}
        await mesh.apply(
            gateway(SPACE, "edge", mesh.controller.class_(), listener),
            route(SPACE, "shop", {"name": "edge"}, {"/observed": "observed", "/impostor": "impostor", "/shop": "shop"}),
        )
        found = await mesh.programmed(SPACE, "edge")
        assert [row["type"] for row in found["status"]["addresses"]] == ["IPAddress"]
        yield Edge(mesh, mesh.cluster.reach(found["status"]["addresses"][0]["value"], 80))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(edge: Edge) -> Echo:
    return await edge.mesh.echo(SPACE, "shop")


def names(certificates: Iterable[Any], part: str) -> set[str]:
    return {
        name["uri"]
        for certificate in certificates
        for entry in certificate[part]
        for name in entry["subject_alt_names"]
        if "uri" in name
    }


async def test_ingress_gateway_has_its_certificate_from_istiod_and_serves_by_hbone(edge: Edge, shop: Echo) -> None:
    answer = await edge.serves("/shop")
    assert lines_of(answer.body.decode(), "Hostname") == [*shop.pods()]

    certificates = (await edge.mesh.ask_proxy(SPACE, "edge", "/certs"))["certificates"]
    assert names(certificates, "cert_chain") == {IDENTITY}
    clusters = (await edge.mesh.ask_proxy(SPACE, "edge", "/clusters?format=json"))["cluster_statuses"]
    hosts = next(row["host_statuses"] for row in clusters if row["name"] == f"service/{SPACE}/shop/80")
    # Not the pod's plain port: its end of the tunnel.
    assert ["envoy_internal_address" in host["address"] for host in hosts] == [True]


def observed(host: str) -> list[dict[str, Any]]:
    """Return a Service, its endpoint, and a pod that no node runs: what answers for it is the test."""
    metadata = {"name": "observed", "namespace": SPACE}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"name": "http", "port": 80}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "observed"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**metadata, "labels": {"networking.istio.io/tunnel": "http"}},
            "spec": {
                "serviceAccountName": "observed",
                "schedulingGates": [{"name": "meshgw.dev/never"}],
                "containers": [{"name": "none", "image": "none"}],
            },
        },
    ]


async def test_destination_sees_the_identity_of_the_gateway(edge: Edge, shop: Echo) -> None:
    mesh, host = edge.mesh, edge.mesh.cluster.host
    leaf = await mesh.identity(SPACE, "observed")
    (behind,) = shop.pods().values()
    dialled = mesh.cluster.reach(behind, 8080)
    async with HboneServer(leaf, leaf.root, host=host, port=15008, routes={f"{host}:8080": dialled}) as server:
        await mesh.apply(*observed(host))
        status = {"status": {"phase": "Pending", "podIP": host, "podIPs": [{"ip": host}]}}
        path = f"/api/v1/namespaces/{SPACE}/pods/observed/status"
        code, body = await asyncio.to_thread(
            mesh.cluster.request, "PATCH", path, status, content_type="application/merge-patch+json"
        )
        assert code == 200, body
        answer = await edge.serves("/observed")
        assert lines_of(answer.body.decode(), "Hostname") == [*shop.pods()]
        assert {(connect.authority, connect.peer) for connect in server.connects} == {(f"{host}:8080", IDENTITY)}


async def refusals(edge: Edge) -> int:
    """Return how many certificates the proxy has refused for the names in them."""
    found = await edge.mesh.ask_proxy(SPACE, "edge", "/stats?format=json&filter=fail_verify_san")
    return sum(row["value"] for row in found["stats"] if "value" in row)


async def test_destination_of_another_identity_is_refused(edge: Edge, shop: Echo) -> None:
    before = await refusals(edge)
    impostor = await edge.mesh.echo(SPACE, "impostor", identity_of="shop")

    async def is_refused() -> bool:
        answer = await edge.get("/impostor")
        assert answer.status == 503, answer
        return await refusals(edge) > before

    await eventually(is_refused, what="the impostor is refused for its name", within=30, interval=0.2)
    assert (await edge.get("/shop")).status == 200
    # The same workload, once it is who its ServiceAccount says.
    await edge.mesh.echo(SPACE, "impostor")
    await asyncio.to_thread(edge.mesh.cluster.kubectl, "-n", SPACE, "rollout", "restart", "deployment/impostor")
    await asyncio.to_thread(edge.mesh.cluster.wait_deployed, SPACE, "impostor")
    answer = await edge.serves("/impostor")
    assert lines_of(answer.body.decode(), "Hostname") == [*impostor.pods()]
