"""From the API server's bytes to what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from meshgw.api.check import check
from meshgw.api.decode import decode
from meshgw.api.defaults import apply_defaults
from meshgw.api.depth import MAX_DEPTH, is_deep, prune
from meshgw.api.excerpt import MAX_VALUE, excerpt
from meshgw.api.meta import Key, ObjectRef, Resource, StrictResource
from meshgw.api.registry import Kind, Registry
from meshgw.api.scalars import printable
from meshgw.api.stand_in import stand_in
from meshgw.ir.finding import Finding
from meshgw.kube.errors import NamelessError, UnreachableError
from meshgw.kube.seen import Observed, Seen

T = TypeVar("T")

WRONG_SHAPE: Final = "MG9102"

_INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
_TOO_DEEP: Final = f"is nested more than {MAX_DEPTH} levels deep"
_LEFT_OUT: Final = f"is longer than {MAX_VALUE // 1024} KiB and is left out"

# The levels around an object, and the first of its own that it may not have: pruned there it is still seen to be deep.
_LEVELS_OF_EVENT: Final = 1
_LEVELS_OF_PAGE: Final = 2
_ONE_TOO_MANY: Final = MAX_DEPTH + 1


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
    """Reads documents of one kind.

    What is none of an API server raises `UnreachableError`, as a broken line does; what is wrong with one object is a
    finding about it and costs no other object anything.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._registry = Registry((kind,))
        self._has_status = any(verb.endswith("status") for verb in kind.verbs)
        # In one pass, which skips managedFields and all that nobody reads. Strict kinds go the long way, on which
        # every field that is not understood is noted.
        self._decoder = None if kind.strict else msgspec.json.Decoder(kind.struct)

    def event(self, line: bytes) -> Event:
        """Return a line of a watch."""
        return parse(_EVENT, line, levels=_LEVELS_OF_EVENT)

    def failure(self, event: Event) -> Failure:
        """Return the object of an ERROR event."""
        return parse(_FAILURE, event.object)

    def page(self, body: bytes) -> Page:
        """Return a part of a list."""
        return parse(_PAGE, body, levels=_LEVELS_OF_PAGE)

    def outline(self, raw: msgspec.Raw) -> Outline:
        """Return the identity of a document; raises `NamelessError` if it has none."""
        try:
            try:
                document = _DOCUMENT.decode(raw)
            except RecursionError:
                raw = msgspec.Raw(prune(bytes(raw), _ONE_TOO_MANY))
                document = _DOCUMENT.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NamelessError(str(error)) from None
        metadata = document.metadata
        status = bytes(document.status) if self._has_status else b""
        return Outline(
            key=Key(metadata.namespace if self._kind.namespaced else "", metadata.name),
            observed=Observed(
                uid=metadata.uid,
                resource_version=metadata.resource_version,
                generation=metadata.generation,
                status=b"" if is_deep(status) else status,
            ),
            raw=raw,
            ends_initial=_INITIAL_EVENTS_END in (metadata.annotations or {}),
        )

    def read(self, outline: Outline, *, has_good: bool) -> Seen:
        """Return what a document says; `has_good` tells whether a good version of it is in force. Never raises."""
        try:
            if is_deep(bytes(outline.raw)):
                return self._refuse(outline, _TOO_DEEP, prune(bytes(outline.raw), _ONE_TOO_MANY), has_good=has_good)
            return self._read(outline, has_good=has_good)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep anyone from reading other objects
            return self._refuse(outline, f"could not be read ({type(error).__name__})", b"", has_good=has_good)

    def _read(self, outline: Outline, *, has_good: bool) -> Seen:
        resource = self._quick(outline.raw)
        if resource is not None:
            return self._good(resource, outline)
        document = _plain(outline.raw)
        # Items of lists do not say what they are.
        document["apiVersion"], document["kind"] = self._kind.api_version, self._kind.name
        decoded = decode(document, self._registry)
        if decoded.object is not None:
            return self._good(decoded.object, outline)
        findings = _findings(ObjectRef(self._kind.name, *outline.key), decoded.problems)
        stands = None if has_good else decoded.stand_in
        return Seen(outline.key, stands, outline.observed, findings)

    def _good(self, resource: Resource, outline: Outline) -> Seen:
        """Return an object that can be read, as far as anybody reads it."""
        kept, long = excerpt(resource)
        ref = ObjectRef(self._kind.name, *resource.key)
        findings = tuple(
            Finding(code=WRONG_SHAPE, object=ref, field=printable(path), message=_LEFT_OUT) for path in long
        )
        return Seen(resource.key, kept, outline.observed, findings)

    def _refuse(self, outline: Outline, reason: str, document: bytes, *, has_good: bool) -> Seen:
        """Return what there is of a document that is not read any further: for a policy, one that refuses."""
        ref = ObjectRef(self._kind.name, *outline.key)
        finding = Finding(code=WRONG_SHAPE, object=ref, message=reason)
        stands = None if has_good else self._stand_in(ref, document, reason)
        return Seen(outline.key, stands, outline.observed, (finding,))

    def _stand_in(self, ref: ObjectRef, document: bytes, reason: str) -> StrictResource | None:
        try:
            return stand_in(self._kind, ref, _plain(msgspec.Raw(document)), reason)
        except Exception:  # noqa: BLE001 - without targets it refuses more, and it must refuse
            return stand_in(self._kind, ref, {}, reason)

    def _quick(self, raw: msgspec.Raw) -> Resource | None:
        """Return the object of a document without faults."""
        if self._decoder is None:
            return None
        try:
            resource = apply_defaults(self._kind, self._decoder.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return None if check(resource) else resource


def parse(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw, *, levels: int = 0) -> T:
    """Return what is in an answer; raises `UnreachableError` if that is none of an API server.

    Objects in it, which are that many levels down, come without what is nested too deeply to be skipped.
    """
    try:
        try:
            return decoder.decode(data)
        except RecursionError:
            return decoder.decode(prune(bytes(data), levels + _ONE_TOO_MANY))
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
