"""A reflector at work, and what it passed on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import msgspec

from meshgw.api.meta import Key, Resource
from meshgw.api.registry import REGISTRY, Kind
from meshgw.kube.client import MERGE_PATCH, Client, path_of
from meshgw.kube.clock import SystemClock
from meshgw.kube.paths import crd_name, resource_path
from meshgw.kube.reflector import Reflector
from meshgw.kube.seen import Seen
from tests.cluster.apiserver import ApiServer
from tests.cluster.crds import Definition
from tests.rig.waiting import eventually

ROUTE: Final = {
    "spec": {"hostnames": ["a.example"], "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]}
}


def kind_of(name: str) -> Kind:
    kind = REGISTRY.by_name(name)
    assert kind is not None
    return kind


def definition(kind: Kind) -> Definition:
    """A CustomResourceDefinition without a schema: the API server takes anything, and has it at once."""
    names = {"plural": kind.plural, "kind": kind.name, "singular": kind.name.lower(), "listKind": f"{kind.name}List"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": kind.versions[0], "served": True, "storage": True, "schema": schema}
    document = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": crd_name(kind),
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }
    path = resource_path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=crd_name(kind))
    return Definition(path, msgspec.json.encode(document))


class Hasty(SystemClock):
    """A clock whose waits are short, so that a test of the tenth try need not wait as long as that takes."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.05))


class Gate(SystemClock):
    """A clock whose waits end when the gate is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = asyncio.Event()
        self.open.set()

    async def sleep(self, seconds: float) -> None:
        if self.open.is_set():
            await asyncio.sleep(min(seconds, 0.05))
        self.waiting.set()
        await self.open.wait()


class Record:
    """What a sink was given: `calls` in full, `objects` as they are in force, by kind and key."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Seen]]] = []
        self.objects: dict[tuple[str, Key], Resource] = {}
        self.problems: dict[tuple[str, Key], Any] = {}

    def __call__(self, kind: Kind, seen: Sequence[Seen]) -> None:
        self.calls.append((kind.name, list(seen)))
        for each in seen:
            place = kind.name, each.key
            if each.gone:
                self.objects.pop(place, None)
            elif each.object is not None:
                self.objects[place] = each.object
            self.problems.pop(place, None)
            if each.problems:
                self.problems[place] = each.problems

    def names(self, kind: str = "") -> set[str]:
        return {key.name for name, key in self.objects if kind in {"", name}}

    async def has(self, *names: str, kind: str = "", within: float = 20.0) -> None:
        """Wait until exactly these are in force."""
        await self.becomes(lambda: self.names(kind) == set(names), within=within)

    async def becomes(self, check: Callable[[], object], *, within: float = 20.0) -> None:
        await eventually(check, what=str(sorted(self.objects)), within=within)


@contextlib.asynccontextmanager
async def following(client: Client, kind: str | Kind, **options: Any) -> AsyncIterator[tuple[Reflector, Record]]:
    """Give a running reflector and its record, once it is synced."""
    record = Record()
    found = kind_of(kind) if isinstance(kind, str) else kind
    reflector = Reflector(client, found, record, **options)
    async with running(reflector):
        await asyncio.wait_for(reflector.synced.wait(), 30)
        yield reflector, record


@contextlib.asynccontextmanager
async def running(part: Any) -> AsyncIterator[None]:
    """Run a part until the block ends; what it raises fails the test."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(part.run())
        try:
            yield
        finally:
            task.cancel()


class Author:
    """Writes objects of one namespace."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.namespace = namespace
        self._client = client

    async def create(self, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        found = kind_of(kind)
        labels = fields.pop("labels", {})
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        body = {"apiVersion": found.api_version, "kind": kind, "metadata": metadata, **fields}
        path = path_of(found, namespace=self.namespace)
        answer = await self._client.request("POST", path, body=msgspec.json.encode(body))
        return msgspec.json.decode(answer)

    async def patch(self, kind: str, name: str, subresource: str = "", **fields: Any) -> dict[str, Any]:
        path = path_of(kind_of(kind), Key(self.namespace, name), subresource=subresource)
        body = msgspec.json.encode(fields)
        return msgspec.json.decode(await self._client.request("PATCH", path, body=body, content_type=MERGE_PATCH))

    async def delete(self, kind: str, name: str) -> None:
        await self._client.request("DELETE", path_of(kind_of(kind), Key(self.namespace, name)))

    async def config_maps(self, *names: str) -> None:
        for batch in (names[at : at + 20] for at in range(0, len(names), 20)):
            await asyncio.gather(*(self.create("ConfigMap", name, data={"a": "b"}) for name in batch))


@contextlib.asynccontextmanager
async def program(name: str, server: ApiServer, space: str, identity: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a module of this folder in a process of its own, which is killed at the end; what it prints is not read."""
    command = [sys.executable, "-m", f"tests.kube.{name}", str(server.kubeconfig), space, identity]
    silent = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=silent, stderr=silent)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
