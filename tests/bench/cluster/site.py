"""The world in an API server, and proxies that start from what the controller deploys for the Gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from meshgw.api.decode import decode
from meshgw.api.registry import Kind
from meshgw.cluster.places import ServicePlacing
from meshgw.control import Control
from meshgw.emit.resource import Resource
from meshgw.emit.tables import RESOURCES
from meshgw.ir.gateway import Settings
from meshgw.kube.client import MERGE_PATCH, Client, path_of
from meshgw.observe.metrics import Metrics
from meshgw.pipeline import list_facts, list_kinds
from tests.bench import world
from tests.rig.envoy import run_files

AT_ONCE: Final = 16
"""Objects that are made at the same time."""
READ: Final = ("Namespace", "Service", "EndpointSlice", "GatewayClass", "Gateway", "HTTPRoute")
"""Kinds that there are objects of."""
POD: Final = "bench"


def documents(size: int, *, class_: str, listener: int, host: str, port: int) -> Iterator[world.Document]:
    """Yield the Gateway, and `size` applications whose endpoints are at a port of `host`."""
    yield gateway(class_, listener)
    for number in range(size):
        app = world.application(number)
        yield from (world.route(app), world.service(app), world.endpoint_slice(app, address=host, port=port))


def gateway(class_: str, listener: int, *, listeners: int = 1) -> world.Document:
    """Return the Gateway of a class, with a listener at a port."""
    document = world.gateway(listeners=listeners)
    document["spec"]["gatewayClassName"] = class_
    for one in document["spec"]["listeners"]:
        one["port"] = listener
    del document["metadata"]["generation"]
    return document


def kind_of(name: str) -> Kind:
    """Return a kind that there is."""
    kind = list_kinds().by_name(name)
    assert kind is not None, name
    return kind


class Objects:
    """The objects of an API server, as its administrator."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, found: Iterable[world.Document]) -> None:
        """Make objects, several at a time."""
        waiting = iter(found)

        async def work() -> None:
            for document in waiting:
                path = path_of(kind_of(document["kind"]), namespace=document["metadata"]["namespace"])
                await self._client.request("POST", path, body=json.dumps(document).encode())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(work())

    async def patch(self, document: world.Document) -> world.Document:
        """Merge a document into the object of its name, and return the object as it then is."""
        kind, metadata = kind_of(document["kind"]), document["metadata"]
        path = f"{path_of(kind, namespace=metadata['namespace'])}/{metadata['name']}"
        return await self.send("PATCH", path, document, content_type=MERGE_PATCH)

    async def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> world.Document:
        """Return the answer to a request."""
        data = None if body is None else json.dumps(body).encode()
        answer = await self._client.request(method, path, body=data, content_type=content_type)
        document: world.Document = json.loads(answer)
        return document

    async def read(self) -> AsyncIterator[world.Document]:
        """Yield all objects that a pipeline needs."""
        for name in READ:
            kind = kind_of(name)
            for item in (await self.send("GET", path_of(kind)))["items"]:
                yield {**item, "apiVersion": kind.api_version, "kind": kind.name}


class Shadow:
    """What the controller computes, computed here too: the floor pushes the same bytes."""

    def __init__(self, settings: Settings) -> None:
        self._control = Control(
            settings=settings,
            placing=ServicePlacing(lambda _key: None),
            publish=lambda _gateway, _changes: None,
            metrics=Metrics(),
        )

    def take(self, *found: world.Document) -> None:
        """Follow changes of objects."""
        tables = list_facts()
        batch: world.Batch = {}
        for document in found:
            decoded = decode(document)
            assert decoded.object is not None, decoded.problems
            batch.setdefault(tables[decoded.ref.kind], {})[decoded.ref.key] = decoded.object
        self._control.commit(batch)

    def resource(self, type_url: str, name: str) -> Resource:
        """Return a resource of the Gateway."""
        found = self._control.graph.get(RESOURCES, world.resource_key(type_url, name))
        assert found is not None, name
        return found

    def resources(self) -> tuple[Resource, ...]:
        """Return all resources of the Gateway."""
        return tuple(row for _key, row in self._control.graph.by(RESOURCES, "gateway", world.GATEWAY))


class Deployed:
    """What the controller has deployed for the Gateway; plays the parts of a cluster that has no nodes."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects, self._name = objects, name
        self._core = f"/api/v1/namespaces/{world.NAMESPACE}"

    async def files(self) -> Mapping[str, str]:
        """Return the files that a proxy starts from."""
        found: Mapping[str, str] = (await self._objects.send("GET", f"{self._core}/configmaps/{self._name}"))["data"]
        return found

    async def run(self) -> None:
        """Say that the Deployment's pod is ready, and that the Service has an address."""
        ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
        path = f"{self._core}/services/{self._name}/status"
        await self._objects.send("PATCH", path, ingress, content_type=MERGE_PATCH)
        counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), 1)
        path = f"/apis/apps/v1/namespaces/{world.NAMESPACE}/deployments/{self._name}/status"
        await self._objects.send("PATCH", path, {"status": counts}, content_type=MERGE_PATCH)

    async def token(self) -> str:
        """Make a pod of the proxy, for no node, and return a token that is bound to it."""
        spec = {"serviceAccountName": self._name, "containers": [{"name": "envoy", "image": "none"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}, "spec": spec}
        pod = await self._objects.send("POST", f"{self._core}/pods", body)
        bound = {"kind": "Pod", "apiVersion": "v1", "name": POD, "uid": pod["metadata"]["uid"]}
        wanted = {"spec": {"audiences": ["meshgw"], "expirationSeconds": 7200, "boundObjectRef": bound}}
        answer = await self._objects.send("POST", f"{self._core}/serviceaccounts/{self._name}/token", wanted)
        token: str = answer["status"]["token"]
        return token


@contextlib.asynccontextmanager
async def run_proxy(files: Mapping[str, str], token: str, ports: Mapping[int, int]) -> AsyncIterator[Path]:
    """Run Envoy from the files that the controller made for it, other ports in place of some; gives its log."""
    with tempfile.TemporaryDirectory(prefix="mgw-") as scratch:
        folder = Path(scratch)
        (folder / "token").write_text(token)
        for name, text in files.items():
            moved = text.replace("/var/run/secrets/meshgw", scratch).replace("/etc/meshgw", scratch)
            for port, other in ports.items():
                moved = moved.replace(f'"port_value": {port}', f'"port_value": {other}')
            (folder / name).write_text(moved)
        node = f"{world.GATEWAY.namespace}/{world.GATEWAY.name}/{POD}"
        async with run_files(folder, "--service-node", node, "--service-cluster", world.GATEWAY.name) as log:
            yield log
