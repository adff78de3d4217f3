"""Which kinds an API server has, in which version, and what becomes of their definitions."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Final

import msgspec

from meshgw.api.meta import Resource
from meshgw.api.registry import Kind
from meshgw.kube.client import Client
from meshgw.kube.errors import ApiError
from meshgw.kube.paths import CRD_API, crd_name, resource_path
from meshgw.kube.reading import parse

METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

_BUILT_IN: Final = frozenset({"apiextensions.k8s.io", "coordination.k8s.io", "discovery.k8s.io", "networking.k8s.io"})
_TIMEOUT: Final = 10.0


class Definition(Resource, frozen=True, kw_only=True):
    """A CustomResourceDefinition, of which only the metadata is read."""


DEFINITIONS: Final = Kind(
    name="CustomResourceDefinition",
    group="apiextensions.k8s.io",
    versions=("v1",),
    plural="customresourcedefinitions",
    struct=Definition,
    namespaced=False,
    optional=True,
    partial=True,
)
"""The kind of the definitions of kinds; changes of its objects are the hints of a `Catalog`."""


def is_built_in(kind: Kind) -> bool:
    """Whether a kind has no definition that could go: the groups of definitions have dots."""
    return "." not in kind.group or kind.group in _BUILT_IN


class Presence(msgspec.Struct, frozen=True):
    """What an API server has of a kind: nothing, a definition only, or objects in some version.

    `version` is the one to use, empty if none is served that is understood. A kind that is `leaving` deletes its own
    objects, which nobody asked for one by one.
    """

    version: str = ""
    defined: bool = False
    leaving: bool = False


class _ApiResource(msgspec.Struct, frozen=True):
    name: str = ""
    verbs: list[str] = []


class _ApiResources(msgspec.Struct, frozen=True):
    resources: list[_ApiResource] | None = None


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    deletion_timestamp: str | None = None


class _Definition(msgspec.Struct, frozen=True):
    metadata: _Metadata


_API_RESOURCES: Final = msgspec.json.Decoder(_ApiResources)
_DEFINITION: Final = msgspec.json.Decoder(_Definition)


class Catalog:
    """Looks kinds up, and wakes those who wait for one to come or go."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hints: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def look(self, kind: Kind) -> Presence:
        """Return what there is of a kind now; raises as `Client.request`."""
        version, verbs = await self._served(kind)
        state = await self._state(kind)
        # What is served without a definition is an API of its own. Whoever may not read definitions sees by the verbs
        # what is leaving: nothing can be created of it.
        leaving = state == "leaving" or (state == "hidden" and bool(version) and "create" not in verbs)
        return Presence(version=version, defined=state in {"here", "leaving"} or bool(version), leaving=leaving)

    async def is_leaving(self, kind: Kind) -> bool:
        """Whether the kind itself is being removed or gone, so that objects go without having been deleted."""
        state = await self._state(kind)
        if state in {"absent", "hidden"} and not is_built_in(kind):
            _version, verbs = await self._served(kind)
            return "create" not in verbs
        return state == "leaving"

    async def _state(self, kind: Kind) -> str:
        """Return what becomes of the definition of a kind: it is here, leaving, absent, or hidden from us."""
        if is_built_in(kind):
            return "absent"
        path = resource_path(CRD_API, DEFINITIONS.plural, name=crd_name(kind))
        try:
            body = await self._client.request("GET", path, accept=METADATA_ONLY, timeout=_TIMEOUT)
        except ApiError as error:
            if error.status not in {403, 404}:
                raise
            return "hidden" if error.status == 403 else "absent"
        return "leaving" if parse(_DEFINITION, body).metadata.deletion_timestamp is not None else "here"

    async def _served(self, kind: Kind) -> tuple[str, list[str]]:
        """Return the first served version of a kind, and its verbs."""
        for version in kind.versions:
            path = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
            try:
                body = await self._client.request("GET", path, timeout=_TIMEOUT)
            except ApiError as error:
                if error.status == 404:
                    continue
                raise
            for resource in parse(_API_RESOURCES, body).resources or ():
                if resource.name == kind.plural and "watch" in resource.verbs:
                    return version, resource.verbs
        return "", []

    def notice(self, name: str) -> None:
        """Wake those who wait for the kind of that definition."""
        if name in self._hints:
            self._hints[name].set()

    async def wait(self, kind: Kind, seconds: float) -> bool:
        """Return True when the definition of a kind changed, False when nothing happened for some seconds."""
        hint = self._hints[crd_name(kind)]
        try:
            await asyncio.wait_for(hint.wait(), seconds)
        except TimeoutError:
            return False
        hint.clear()
        return True
