"""Which pods of a node are in the mesh, by the labels that Istio's users set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from meshgw.kube.client import Client
from meshgw.kube.errors import ApiError, UnreachableError

MODE: Final = "istio.io/dataplane-mode"
CAPTURED: Final = "ambient.istio.io/redirection"
"""The annotation by which istiod knows that a pod speaks HBONE."""

_NATIVE: Final = "networking.istio.io/tunnel"
_PAUSE: Final = 0.5
_IDLE: Final = 330.0


class Pod(msgspec.Struct, frozen=True):
    """A pod that is to be captured."""

    uid: str
    namespace: str
    name: str
    account: str
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def enlisted(pod: Mapping[str, Any], namespace: Mapping[str, Any]) -> Pod | None:
    """Return a pod that is in the mesh and has an address, None of any other.

    What has the node's own network cannot be captured, and what says that it speaks HBONE itself needs nobody to.
    """
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    labels = meta.get("labels", {})
    mode = labels.get(MODE, namespace["metadata"].get("labels", {}).get(MODE))
    addresses = tuple(entry["ip"] for entry in status.get("podIPs", ()))
    if mode != "ambient" or spec.get("hostNetwork") or "http" in labels.get(_NATIVE, "").split(","):
        return None
    if not addresses or status.get("phase") != "Running" or meta.get("deletionTimestamp"):
        return None
    account = spec.get("serviceAccountName") or "default"
    return Pod(meta["uid"], meta["namespace"], meta["name"], account, addresses)


class Objects:
    """All objects at a path of the API server, by namespace and name, followed for ever by `run`."""

    def __init__(self, client: Client, path: str, changed: Callable[[], None], **query: str) -> None:
        self._client, self._path, self._query = client, path, query
        self._changed = changed
        self.known = False
        self.rows: dict[tuple[str, str], Mapping[str, Any]] = {}

    async def run(self) -> None:
        """Follow them; what goes wrong is tried again."""
        while True:
            try:
                await self._follow(await self._list())
            except (ApiError, UnreachableError):
                await asyncio.sleep(_PAUSE)

    async def _list(self) -> str:
        listed = msgspec.json.decode(await self._client.request("GET", self._path, query=self._query))
        self.rows = {_key(row): row for row in listed["items"]}
        self.known = True
        self._changed()
        version: str = listed["metadata"]["resourceVersion"]
        return version

    async def _follow(self, version: str) -> None:
        query = {**self._query, "watch": "true", "resourceVersion": version, "timeoutSeconds": "300"}
        async for line in self._client.lines(self._path, query=query, idle=_IDLE):
            event = msgspec.json.decode(line)
            if event["type"] == "ERROR":
                return
            if event["type"] == "DELETED":
                self.rows.pop(_key(event["object"]), None)
            else:
                self.rows[_key(event["object"])] = event["object"]
            self._changed()


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["metadata"].get("namespace", ""), row["metadata"]["name"]
