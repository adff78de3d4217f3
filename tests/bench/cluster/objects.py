"""The world as objects of an API server, and what a controller computes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
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

AT_ONCE: Final = 16
"""Objects that are made at the same time."""
READ: Final = ("Namespace", "Service", "EndpointSlice", "GatewayClass", "Gateway", "HTTPRoute")
"""Kinds that there are objects of."""


def documents(size: int, *, class_: str, listener: int, host: str, port: int) -> Iterator[world.Document]:
    """Yield the Gateway, and `size` applications whose endpoints are at a port of `host`."""
    yield gateway(class_, listener)
    for number in range(size):
        app = world.application(number)
        service = world.service(app)
        del service["spec"]["selector"]  # else a cluster would make slices of its own
        yield from (world.route(app), service, world.endpoint_slice(app, address=host, port=port))


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
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", selector: str = ""
    ) -> world.Document:
        """Return the answer to a request; of a collection only what has these labels."""
        data = None if body is None else json.dumps(body).encode()
        query = {"labelSelector": selector} if selector else {}
        answer = await self._client.request(method, path, query=query, body=data, content_type=content_type)
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
