"""Where the benchmark runs: beside an API server alone, with Envoys of this machine, or in a cluster with pods."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from envoy.config.listener.v3 import listener_pb2

from meshgw import names
from meshgw.emit.resource import LISTENER, Resource
from meshgw.kube.client import MERGE_PATCH
from tests.bench import world
from tests.bench.cluster.objects import Objects
from tests.cluster.access import Access
from tests.cluster.apiserver import ApiServer, run_apiserver
from tests.cluster.cluster import Cluster
from tests.cluster.images import COREDNS, ENVOY, PAUSE
from tests.cluster.local import LocalCluster, run_local_cluster
from tests.rig.addresses import free_ports, own_address
from tests.rig.envoy import run_files

PLACES: Final = ("local", "apiserver")
FLOOR: Final = "floor"
_POD: Final = "bench"
_CORE: Final = f"/api/v1/namespaces/{world.NAMESPACE}"
_DEPLOYMENTS: Final = f"/apis/apps/v1/namespaces/{world.NAMESPACE}/deployments"


class Target(NamedTuple):
    """Where a proxy answers."""

    address: str
    port: int


class Twin(NamedTuple):
    """By what the floor's proxy differs from the Gateway's: the server it dials, and the roots that verify it."""

    port: int
    other: int
    roots: bytes

    def change(self, files: Mapping[str, str]) -> dict[str, str]:
        """Return the files of the other proxy."""
        changed = {name: _move(text, {self.port: self.other}) for name, text in files.items()}
        return {**changed, "ca.crt": self.roots.decode()}


class Place(Protocol):
    """What differs between the two; `name` is what the controller deploys for the Gateway."""

    access: Access
    audit_log: Path
    host: str
    """Where proxies reach the servers of the benchmark, and its backends."""
    port: int
    """Of the Gateway's listener."""
    options: tuple[str, ...]
    """Of the controller."""

    def run_proxy(self, objects: Objects, name: str) -> contextlib.AbstractAsyncContextManager[Target]:
        """Have the Gateway's proxy run."""

    def run_floor_proxy(
        self, objects: Objects, name: str, twin: Twin
    ) -> contextlib.AbstractAsyncContextManager[Target]:
        """Have another run, with the same files but what differs."""

    def move(self, resource: Resource) -> Resource:
        """Return a resource as the floor's proxy can have it."""


class Alone:
    """An API server without nodes: proxies are processes of this machine, on ports of its loopback address."""

    def __init__(self, server: ApiServer) -> None:
        self.access: Access = server
        self.audit_log = server.audit_log
        self.host = own_address()
        self.port, self._floor_port = free_ports(2)
        self.options: tuple[str, ...] = ()
        self._token = ""

    @contextlib.asynccontextmanager
    async def run_proxy(self, objects: Objects, name: str) -> AsyncIterator[Target]:
        """Play the parts of nodes and load balancers, and run Envoy as the pod would."""
        ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
        await objects.send("PATCH", f"{_CORE}/services/{name}/status", ingress, content_type=MERGE_PATCH)
        counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), 1)
        await objects.send("PATCH", f"{_DEPLOYMENTS}/{name}/status", {"status": counts}, content_type=MERGE_PATCH)
        self._token = await self._make_token(objects, name)
        async with self._run(await _files(objects, name)):
            yield Target("127.0.0.1", self.port)

    @contextlib.asynccontextmanager
    async def run_floor_proxy(self, objects: Objects, name: str, twin: Twin) -> AsyncIterator[Target]:
        """Run Envoy with the files of the other."""
        async with self._run(twin.change(await _files(objects, name))):
            yield Target("127.0.0.1", self._floor_port)

    def move(self, resource: Resource) -> Resource:
        """Return the resource; a listener at another port, as the first Envoy has its own."""
        if resource.type_url != LISTENER:
            return resource
        listener = listener_pb2.Listener.FromString(resource.body)
        listener.address.socket_address.port_value = self._floor_port
        return Resource.of(LISTENER, resource.name, listener.SerializeToString(deterministic=True))

    async def _make_token(self, objects: Objects, name: str) -> str:
        """Make a pod of the proxy, for no node, and return a token that is bound to it."""
        spec = {"serviceAccountName": name, "containers": [{"name": "envoy", "image": "none"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": _POD}, "spec": spec}
        pod = await objects.send("POST", f"{_CORE}/pods", body)
        bound = {"kind": "Pod", "apiVersion": "v1", "name": _POD, "uid": pod["metadata"]["uid"]}
        wanted = {"spec": {"audiences": [names.XDS_AUDIENCE], "expirationSeconds": 7200, "boundObjectRef": bound}}
        answer = await objects.send("POST", f"{_CORE}/serviceaccounts/{name}/token", wanted)
        token: str = answer["status"]["token"]
        return token

    @contextlib.asynccontextmanager
    async def _run(self, files: Mapping[str, str]) -> AsyncIterator[None]:
        usual = names.METRICS_PORT, names.STATUS_PORT, names.ADMIN_PORT
        ports = dict(zip(usual, free_ports(len(usual)), strict=True))
        with tempfile.TemporaryDirectory(prefix="mgw-") as scratch:
            folder = Path(scratch)
            (folder / "token").write_text(self._token)
            for name, text in files.items():
                moved = text.replace("/var/run/secrets/meshgw", scratch).replace("/etc/meshgw", scratch)
                (folder / name).write_text(_move(moved, ports))
            node = f"{world.GATEWAY.namespace}/{world.GATEWAY.name}/{_POD}"
            async with run_files(folder, "--service-node", node, "--service-cluster", world.GATEWAY.name):
                yield


class Nodes:
    """A cluster that runs pods: the Gateway's proxy is the one that is deployed, the floor's a copy of it."""

    def __init__(self, cluster: Cluster, audit_log: Path) -> None:
        self.access: Access = cluster
        self.audit_log = audit_log
        self.host = cluster.host
        self.port = world.PORT
        self.options: tuple[str, ...] = ("--proxy-image", ENVOY)
        self._cluster = cluster

    @contextlib.asynccontextmanager
    async def run_proxy(self, objects: Objects, name: str) -> AsyncIterator[Target]:
        """Wait for the pod; it ends with the cluster."""
        await asyncio.to_thread(self._cluster.wait_deployed, world.NAMESPACE, name, within=120)
        yield await self._target(objects, f"{names.LABEL_GATEWAY_NAME}={world.GATEWAY.name}")

    @contextlib.asynccontextmanager
    async def run_floor_proxy(self, objects: Objects, name: str, twin: Twin) -> AsyncIterator[Target]:
        """Deploy a copy, which no Service selects."""
        files = twin.change(await _files(objects, name))
        await objects.send("POST", f"{_CORE}/configmaps", {"metadata": {"name": FLOOR}, "data": files})
        spec = (await objects.send("GET", f"{_DEPLOYMENTS}/{name}"))["spec"]
        labels = {"app": FLOOR}
        spec["selector"] = {"matchLabels": labels}
        spec["template"]["metadata"] = {"labels": labels}
        spec["template"]["spec"]["volumes"] = [
            {**volume, "configMap": {"name": FLOOR}} if "configMap" in volume else volume
            for volume in spec["template"]["spec"]["volumes"]
        ]
        spec["template"]["spec"].pop("topologySpreadConstraints", None)
        document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": FLOOR}, "spec": spec}
        await objects.send("POST", _DEPLOYMENTS, document)
        await asyncio.to_thread(self._cluster.wait_deployed, world.NAMESPACE, FLOOR, within=120)
        yield await self._target(objects, f"app={FLOOR}")

    def move(self, resource: Resource) -> Resource:
        """Return the resource: pods have addresses of their own."""
        return resource

    async def _target(self, objects: Objects, selector: str) -> Target:
        (pod,) = (await objects.send("GET", f"{_CORE}/pods", selector=selector))["items"]
        return Target(*self._cluster.reach(pod["status"]["podIP"], self.port))


@contextlib.contextmanager
def run_place(kind: str) -> Iterator[Place]:
    """Run an API server, or a cluster (`local`), until the block ends."""
    if kind == "local":
        with run_local_cluster([PAUSE, COREDNS, ENVOY], seeded=True) as cluster:
            yield Nodes(cluster, _audit_log(cluster))
    else:
        with run_apiserver(seeded=True) as server:
            yield Alone(server)


def _audit_log(cluster: LocalCluster) -> Path:
    return cluster.folder / "audit.log"


async def _files(objects: Objects, name: str) -> Mapping[str, str]:
    """Return the files that a proxy starts from."""
    found: Mapping[str, str] = (await objects.send("GET", f"{_CORE}/configmaps/{name}"))["data"]
    return found


def _move(text: str, ports: Mapping[int, int]) -> str:
    for port, other in ports.items():
        text = text.replace(f'"port_value": {port}', f'"port_value": {other}')
    return text
