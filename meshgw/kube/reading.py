"""From the API server's bytes to what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from meshgw.api.check import check
from meshgw.api.decode import decode
from meshgw.api.defaults import apply_defaults
from meshgw.api.meta import Key, ObjectRef, Resource
from meshgw.api.registry import Kind, Registry
from meshgw.api.scalars import printable
from meshgw.ir.finding import Finding
from meshgw.kube.errors import UnreachableError
from meshgw.kube.seen import Observed, Seen

T = TypeVar("T")

WRONG_SHAPE: Final = "MG9102"

_INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"


class Event(msgspec.Struct, frozen=True):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Failure(msgspec.Struct, frozen=True):
    """The object of an ERROR event."""

    code: int = 500
    reason: str = ""
    message: str = ""


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 1
    annotations: dict[str, str] | None = None


class _Document(msgspec.Struct, frozen=True):
    metadata: _Metadata
    status: msgspec.Raw = msgspec.Raw(b"")


class _PageMetadata(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct, frozen=True):
    """One part of a list."""

    metadata: _PageMetadata
    items: list[msgspec.Raw] | None = None


class Outline(msgspec.Struct, frozen=True):
    """A document whose identity is read, and no more."""

    key: Key
    observed: Observed
    raw: msgspec.Raw
    ends_initial: bool = False
    """Whether this is the bookmark after the objects that were there at the start of a streaming list."""


_EVENT: Final = msgspec.json.Decoder(Event)
_FAILURE: Final = msgspec.json.Decoder(Failure)
_DOCUMENT: Final = msgspec.json.Decoder(_Document)
_PAGE: Final = msgspec.json.Decoder(Page)


class Reader:
    """Reads documents of one kind; what is not one of Kubernetes at all raises `UnreachableError`, as a broken line."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._registry = Registry((kind,))
        self._has_status = any(verb.endswith("status") for verb in kind.verbs)
        # In one pass, which skips managedFields and all that nobody reads. Strict kinds go the long way, on which
        # every field that is not understood is noted.
        self._decoder = None if kind.strict else msgspec.json.Decoder(kind.struct)

    def event(self, line: bytes) -> Event:
        """Return a line of a watch."""
        return parse(_EVENT, line)

    def failure(self, event: Event) -> Failure:
        """Return the object of an ERROR event."""
        return parse(_FAILURE, event.object)

    def page(self, body: bytes) -> Page:
        """Return a part of a list."""
        return parse(_PAGE, body)

    def outline(self, raw: msgspec.Raw) -> Outline:
        """Return the identity of a document."""
        document = parse(_DOCUMENT, raw)
        metadata = document.metadata
        return Outline(
            key=Key(metadata.namespace if self._kind.namespaced else "", metadata.name),
            observed=Observed(
                uid=metadata.uid,
                resource_version=metadata.resource_version,
                generation=metadata.generation,
                status=bytes(document.status) if self._has_status else b"",
            ),
            raw=raw,
            ends_initial=_INITIAL_EVENTS_END in (metadata.annotations or {}),
        )

    def read(self, outline: Outline, *, has_good: bool) -> Seen:
        """Return what a document says; `has_good` tells whether a good version of it is in force."""
        resource = self._quick(outline.raw)
        if resource is not None:
            return Seen(resource.key, resource, outline.observed)
        document = _plain(outline.raw)
        # Items of lists do not say what they are.
        document["apiVersion"], document["kind"] = self._kind.api_version, self._kind.name
        decoded = decode(document, self._registry)
        if decoded.object is not None:
            return Seen(decoded.object.key, decoded.object, outline.observed)
        findings = _findings(ObjectRef(self._kind.name, *outline.key), decoded.problems)
        stand_in = None if has_good else decoded.stand_in
        return Seen(outline.key, stand_in, outline.observed, findings)

    def _quick(self, raw: msgspec.Raw) -> Resource | None:
        """Return the object of a document without faults."""
        if self._decoder is None:
            return None
        try:
            resource = apply_defaults(self._kind, self._decoder.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return None if check(resource) else resource


def parse(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """Return what is in an answer; raises `UnreachableError` if that is none of an API server."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreachableError(f"what came is not from a Kubernetes API server ({error})") from None


def _plain(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _findings(ref: ObjectRef, problems: Sequence[Any]) -> tuple[Finding, ...]:
    return tuple(
        Finding(code=WRONG_SHAPE, object=ref, field=printable(problem.field), message=printable(problem.message))
        for problem in problems
    )
