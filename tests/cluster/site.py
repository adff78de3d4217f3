"""What tests of the controller at an API server share: objects of an installation, what they become, what it says."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpcore

from tests.cluster.access import Access
from tests.cluster.controllers import GATEWAY_API, Controller, condition
from tests.rig.addresses import free_ports
from tests.rig.backends import EchoBackend
from tests.rig.clients import request
from tests.rig.envoy import run_files

LOST = "the lease is not held"
HELD = "the lease is held"
_STILL: Final = 1.5
"""Seconds; the statuses of one object are written a second apart."""


def gateway(controller: Controller, name: str, port: int) -> dict[str, Any]:
    """Return a Gateway of the installation with an HTTP listener."""
    return {
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": controller.name},
        "spec": {
            "gatewayClassName": controller.class_(),
            "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}],
        },
    }


def route(controller: Controller, name: str, gateways: list[str], path: str = "/") -> dict[str, Any]:
    """Return a route of these Gateways to the Service `echo`."""
    return {
        "apiVersion": GATEWAY_API,
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": controller.name},
        "spec": {
            "parentRefs": [{"name": parent} for parent in gateways],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": path}}],
                    "backendRefs": [{"name": "echo", "port": 80}],
                }
            ],
        },
    }


def backend(controller: Controller, echo: EchoBackend) -> list[dict[str, Any]]:
    """Return the Service `echo` and its one endpoint."""
    metadata = {"name": "echo", "namespace": controller.name}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "echo"}},
            "addressType": "IPv4",
            "ports": [{"port": echo.port}],
            "endpoints": [{"addresses": [echo.host]}],
        },
    ]


class Site:
    """What a test does with the cluster; all in the namespace of the controller's installation."""

    def __init__(self, access: Access, controller: Controller) -> None:
        self.access, self.controller = access, controller

    async def apply(self, *documents: dict[str, Any]) -> None:
        """Apply objects."""
        await asyncio.to_thread(self.access.apply, *documents)

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object."""
        found: dict[str, Any] = await asyncio.to_thread(self.access.get, "-n", self.controller.name, kind, name)
        return found

    async def send(self, method: str, path: str, body: Any, *, patch: bool = False) -> dict[str, Any]:
        """Return the answer to a request, which must succeed."""
        kind = "application/merge-patch+json" if patch else "application/json"
        status, answer = await asyncio.to_thread(self.access.request, method, path, body, content_type=kind)
        assert status < 300, answer
        found: dict[str, Any] = json.loads(answer)
        return found

    async def programmed(self, name: str) -> tuple[str, str, str]:
        """Return status, reason and message of what a Gateway says of itself."""
        return condition(await self.get("gateway", name), "Programmed")

    async def has_objects(self, name: str) -> bool:
        """Whether all that a Gateway's proxy needs is there."""
        kinds = "configmap,serviceaccount,deployment,service"
        command = ("-n", self.controller.name, kinds, "-l", f"gateway.networking.k8s.io/gateway-name={name}")
        found = await asyncio.to_thread(self.access.get, *command)
        return len(found["items"]) == 4

    async def run(self, name: str, address: str) -> None:
        """Play the parts of a cluster without nodes: the Deployment's pods, and the load balancer's address."""
        objects, space = f"{name}-{self.controller.class_()}", self.controller.name
        ingress = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
        await self.send("PATCH", f"/api/v1/namespaces/{space}/services/{objects}/status", ingress, patch=True)
        counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), 1)
        path = f"/apis/apps/v1/namespaces/{space}/deployments/{objects}/status"
        await self.send("PATCH", path, {"status": counts}, patch=True)

    async def make_pod(self, name: str) -> str:
        """Make a pod of a Gateway's proxy, for no node, and return a token that is bound to it."""
        account, space = f"{name}-{self.controller.class_()}", self.controller.name
        spec = {"serviceAccountName": account, "containers": [{"name": "envoy", "image": "none"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-pod"}, "spec": spec}
        pod = await self.send("POST", f"/api/v1/namespaces/{space}/pods", body)
        bound = {"kind": "Pod", "apiVersion": "v1", "name": f"{name}-pod", "uid": pod["metadata"]["uid"]}
        wanted = {"spec": {"audiences": ["meshgw"], "expirationSeconds": 3600, "boundObjectRef": bound}}
        answer = await self.send("POST", f"/api/v1/namespaces/{space}/serviceaccounts/{account}/token", wanted)
        token: str = answer["status"]["token"]
        return token

    @asynccontextmanager
    async def envoy(self, name: str) -> AsyncIterator[Path]:
        """Run an Envoy as the Gateway's Deployment would: from its ConfigMap, with a token of its ServiceAccount."""
        config = await self.get("configmap", f"{name}-{self.controller.class_()}")
        token = await self.make_pod(name)
        ports = dict(zip(("15020", "15021", "19000"), map(str, free_ports(3)), strict=True))
        with tempfile.TemporaryDirectory(prefix="mgw-") as scratch:
            folder = Path(scratch)
            (folder / "token").write_text(token)
            for file, text in config["data"].items():
                moved = text.replace("/var/run/secrets/meshgw", scratch).replace("/etc/meshgw", scratch)
                for port, free in ports.items():
                    moved = moved.replace(f'"port_value": {port}', f'"port_value": {free}')
                (folder / file).write_text(moved)
            node = f"{self.controller.name}/{name}/{name}-pod"
            async with run_files(folder, "--service-node", node, "--service-cluster", name) as log:
                yield log


async def answers(port: int, path: str = "/") -> int:
    """Return the status of a request, 0 where nobody listens."""
    try:
        return (await request(("127.0.0.1", port), path, within=2.0)).status
    except httpcore.NetworkError:
        return 0


async def serves(port: int, path: str, status: int = 200) -> bool:
    """Whether a request gets this status; what it got instead is in the error."""
    found = await answers(port, path)
    assert found == status, f"{path}: {found}"
    return True


async def accepted(site: Site, name: str) -> bool:
    """Whether a route's status is of its present generation, and good."""
    found = await site.get("httproute", name)
    conditions = found["status"]["parents"][0]["conditions"] if "status" in found else []
    of_now = [each for each in conditions if each["observedGeneration"] == found["metadata"]["generation"]]
    assert {each["type"]: each["status"] for each in of_now} == {"Accepted": "True", "ResolvedRefs": "True"}
    return True


async def counted(controller: Controller, name: str, label: str = "") -> float:
    """Return the sum of a metric over its labels, or over those that have a `label` (such as `verb="apply"`)."""
    _status, text = await controller.ask("/metrics", controller.metrics)
    found = re.findall(rf"^meshgw_{name}({{.*}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for labels, value in found if label in labels)


async def settled(controller: Controller, label: str = "") -> float:
    """Return how much was written, as `counted`, once nothing was for longer than an object's writes are apart."""
    name = "api_writes_total"
    total, since = await counted(controller, name, label), time.monotonic()
    async with asyncio.timeout(30):
        while time.monotonic() < since + _STILL:
            await asyncio.sleep(_STILL / 10)  # nothing tells that no more is to come
            if (now := await counted(controller, name, label)) != total:
                total, since = now, time.monotonic()
    return total


async def has_routes(site: Site, number: int) -> bool:
    """Whether the Gateway `kept` tells of so many routes."""
    found = await site.get("gateway", "kept")
    assert found["status"]["listeners"][0]["attachedRoutes"] == number, found["status"]
    return True
