"""The controller on a real node with a real istiod: pods of its own making serve with identities of the mesh."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpcore
import pytest

from meshgw.identity.istiod import IstiodClient
from meshgw.identity.spiffe import SpiffeId
from tests.cluster.cluster import Cluster
from tests.cluster.controllers import GATEWAY_API, Controller, condition, run_controller
from tests.cluster.istiod import Istiod
from tests.cluster.workloads import HBONE, Echo
from tests.rig.clients import request
from tests.rig.waiting import eventually

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def controller(cluster: Cluster, istiod: Istiod, tmp_path: Path) -> AsyncIterator[Controller]:
    address = await asyncio.to_thread(lambda: istiod.address)
    options = ("--istiod-address", address)
    async with run_controller(cluster, tmp_path, "mesh-site", *options, host=cluster.host) as running:
        yield running


async def certificate(istiod: Istiod, namespace: str, account: str) -> tuple[bytes, bytes]:
    """Return chain and key of a ServiceAccount's certificate from istiod."""
    cluster = istiod.cluster
    await asyncio.to_thread(cluster.kubectl, "-n", namespace, "create", "serviceaccount", account)

    async def token(identity: SpiffeId) -> str:
        mint = functools.partial(cluster.token, namespace, identity.service_account, audience="istio-ca")
        return await asyncio.to_thread(mint)

    async def roots() -> bytes:
        return await asyncio.to_thread(istiod.roots, "istio-system")

    client = IstiodClient(await asyncio.to_thread(lambda: istiod.address), roots=roots, token=token)
    issued = await client.fetch(SpiffeId(trust_domain="cluster.local", namespace=namespace, service_account=account))
    return issued.chain_pem, issued.private_key.reveal()


def gateway(controller: Controller, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": controller.name},
        "spec": {
            "gatewayClassName": controller.class_(),
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            **spec,
        },
    }


def route(controller: Controller, *services: str) -> dict[str, Any]:
    rules = [
        {
            "matches": [{"path": {"type": "PathPrefix", "value": f"/{service}"}}],
            "backendRefs": [{"name": service, "port": 80}],
        }
        for service in services
    ]
    return {
        "apiVersion": GATEWAY_API,
        "kind": "HTTPRoute",
        "metadata": {"name": "edge", "namespace": controller.name},
        "spec": {"parentRefs": [{"name": "edge"}], "rules": rules},
    }


@pytest.mark.smoke
async def test_an_ingress_gateway_reaches_the_mesh_with_its_own_identity(
    controller: Controller, cluster: Cluster, istiod: Istiod
) -> None:
    space = controller.name
    good = await certificate(istiod, space, "good")
    # Its pods prove to be somebody else than the ServiceAccount that they run as.
    for name in ("good", "wrong"):
        await asyncio.to_thread(Echo(cluster, space, name, identity=good).deploy)
    await asyncio.to_thread(cluster.apply, gateway(controller), route(controller, "good", "wrong"))

    async def programmed() -> bool:
        found = await asyncio.to_thread(cluster.get, "-n", space, "gateway", "edge")
        conditions = [condition(found, type_) for type_ in ("Programmed", "meshgw.dev/MeshIdentity")]
        assert [status for status, _reason, _message in conditions] == ["True", "True"], conditions
        return True

    try:
        await eventually(programmed, what="the Gateway is programmed", within=120, interval=0.5)
        service = f"edge-{controller.class_()}"
        address = await asyncio.to_thread(cluster.load_balancer, space, service)
        found = await asyncio.to_thread(cluster.get, "-n", space, "gateway", "edge")
        assert {"type": "IPAddress", "value": address} in found["status"]["addresses"]

        async def answer(path: str) -> int:
            try:
                return (await request(cluster.reach(address, 80), path, within=5.0)).status
            except httpcore.NetworkError:
                return 0

        async def serves() -> bool:
            return await answer("/good") == 200

        await eventually(serves, what="traffic through the pod", within=30, interval=0.2)
        assert "Received CONNECT" in await asyncio.to_thread(cluster.kubectl, "-n", space, "logs", "deployment/good")
        assert await answer("/wrong") == 503
        assert await answer("/nowhere") == 404
    except AssertionError as error:
        pods = await asyncio.to_thread(cluster.kubectl, "-n", space, "get", "pods,svc,gateway", "-o", "wide")
        raise AssertionError(f"{error}\n{pods}\n{controller.log()[-6000:]}") from None


@pytest.mark.smoke
async def test_a_waypoint_is_one_for_istiod(controller: Controller, cluster: Cluster, istiod: Istiod) -> None:
    space = controller.name
    waypoint = gateway(
        controller,
        gatewayClassName=controller.class_("meshgw-waypoint"),
        listeners=[{"name": "mesh", "port": HBONE, "protocol": "HBONE"}],
    )
    waypoint["metadata"]["name"] = "way"
    await asyncio.to_thread(cluster.apply, waypoint)
    await asyncio.to_thread(Echo(cluster, space, "behind").deploy)
    await asyncio.to_thread(cluster.kubectl, "-n", space, "label", "service/behind", "istio.io/use-waypoint=way")

    async def bound() -> bool:
        found = await asyncio.to_thread(cluster.get, "-n", space, "gateway", "way")
        assert condition(found, "Programmed")[0] == "True", found["status"]
        types = [address["type"] for address in found["status"]["addresses"]]
        assert types == ["Hostname", "IPAddress"]
        service = await asyncio.to_thread(cluster.get, "-n", space, "service", "behind")
        assert condition(service, "istio.io/WaypointBound")[0] == "True", service.get("status")
        return True

    try:
        await eventually(bound, what="istiod binds the Service to the waypoint", within=120, interval=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{controller.log()[-6000:]}") from None
