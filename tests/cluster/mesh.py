"""What tests of the controller in a mesh share: an installation beside a real istiod, and identities of that mesh."""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from meshgw.api.meta import Key
from meshgw.identity.istiod import ISTIOD_NAME, IstiodClient
from meshgw.identity.spiffe import SpiffeId
from meshgw.kube.client import KubeSettings, connect
from meshgw.kube.forward import get_from_pod
from meshgw.names import ADMIN_PORT
from tests.cluster.controllers import GATEWAY_API, Controller, condition, run_controller
from tests.cluster.istiod import CLUSTER_ID, Istiod
from tests.cluster.workloads import Echo
from tests.rig.certs import Leaf
from tests.rig.waiting import eventually


class Mesh:
    """A controller, istiod, and what a test does with their cluster."""

    def __init__(self, istiod: Istiod, controller: Controller) -> None:
        self.istiod, self.controller = istiod, controller
        self.cluster = istiod.cluster

    async def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Make a namespace whose pods are in the mesh."""
        labels = {"istio.io/dataplane-mode": "ambient", **(labels or {})}
        return await asyncio.to_thread(functools.partial(self.cluster.create_namespace, name, **labels))

    async def apply(self, *documents: Mapping[str, Any]) -> None:
        """Apply objects."""
        await asyncio.to_thread(self.cluster.apply, *documents)

    async def get(self, namespace: str, *arguments: str) -> Any:
        """Return what `kubectl get` has."""
        return await asyncio.to_thread(self.cluster.get, "-n", namespace, *arguments)

    async def identity(self, namespace: str, account: str) -> Leaf:
        """Return a certificate that istiod signs for a ServiceAccount, which is made if need be."""
        return await issue(self.istiod, namespace, account)

    async def echo(self, namespace: str, name: str, *, identity_of: str = "", **options: Any) -> Echo:
        """Deploy an echo server behind HBONE, with the certificate of its own account or of another."""
        leaf = await self.identity(namespace, identity_of or name)
        echo = Echo(self.cluster, namespace, name, identity=(leaf.chain, leaf.key), **options)
        await asyncio.to_thread(echo.deploy)
        return echo

    async def programmed(self, namespace: str, name: str) -> dict[str, Any]:
        """Return a Gateway once its proxy serves."""
        gateway: dict[str, Any] = {}

        async def is_programmed() -> bool:
            gateway.update(await self.get(namespace, "gateway", name))
            found = condition(gateway, "Programmed")
            assert found[0] == "True", found
            return True

        try:
            await eventually(is_programmed, what=f"Gateway {name} is programmed", within=90, interval=0.5)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.controller.log()[-4000:]}") from None
        return gateway

    async def proxy_pods(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Return the pods of a Gateway."""
        found = await self.get(namespace, "pods", "-l", f"gateway.networking.k8s.io/gateway-name={name}")
        pods: list[dict[str, Any]] = found["items"]
        return pods

    async def ask_proxy(self, namespace: str, name: str, path: str) -> Any:
        """Return what the admin interface of a Gateway's proxy has at a path."""
        (pod,) = await self.proxy_pods(namespace, name)
        async with connect(KubeSettings(kubeconfig=str(self.cluster.kubeconfig))) as client:
            status, body = await get_from_pod(client, Key(namespace, pod["metadata"]["name"]), ADMIN_PORT, path)
        assert status == 200, body
        return json.loads(body)


async def issue(istiod: Istiod, namespace: str, account: str) -> Leaf:
    """Return a certificate that istiod signs for a ServiceAccount, which is made if need be."""
    cluster = istiod.cluster
    metadata = {"name": account, "namespace": namespace}
    await asyncio.to_thread(cluster.apply, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})

    async def token(identity: SpiffeId) -> str:
        mint = functools.partial(cluster.token, identity.namespace, identity.service_account, audience="istio-ca")
        return await asyncio.to_thread(mint)

    async def roots() -> bytes:
        return await asyncio.to_thread(istiod.roots)

    address = await asyncio.to_thread(lambda: istiod.address)
    client = IstiodClient(address, roots=roots, token=token, cluster_id=CLUSTER_ID, server_name=ISTIOD_NAME)
    issued = await client.fetch(SpiffeId(trust_domain="cluster.local", namespace=namespace, service_account=account))
    return Leaf(issued.chain_pem, issued.private_key.reveal(), issued.roots_pem)


@asynccontextmanager
async def run_mesh(istiod: Istiod, name: str) -> AsyncIterator[Mesh]:
    """Run an installation of the controller beside istiod."""
    address = await asyncio.to_thread(lambda: istiod.address)
    with tempfile.TemporaryDirectory(prefix="mgw-") as scratch:
        host = istiod.cluster.host
        async with run_controller(
            istiod.cluster, Path(scratch), name, "--istiod-address", address, host=host
        ) as controller:
            yield Mesh(istiod, controller)


def gateway(
    namespace: str, name: str, class_: str, listener: Mapping[str, Any], *, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a Gateway with one listener."""
    spec: dict[str, Any] = {"gatewayClassName": class_, "listeners": [dict(listener)]}
    if labels:
        spec["infrastructure"] = {"labels": dict(labels)}
    return {
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": spec,
    }


def route(namespace: str, name: str, parent: Mapping[str, Any], backends: Mapping[str, str]) -> dict[str, Any]:
    """Return an HTTPRoute from path prefixes to Services (port 80)."""
    rules = [
        {
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "backendRefs": [{"name": service, "port": 80}],
        }
        for path, service in backends.items()
    ]
    return {
        "apiVersion": GATEWAY_API,
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"parentRefs": [dict(parent)], "rules": rules},
    }
