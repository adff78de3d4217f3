"""Documents to typed objects: never an exception, whatever the document holds."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from meshgw.api.check import Problem, check
from meshgw.api.core import ConfigMap, Secret
from meshgw.api.defaults import DEFAULT_NAMESPACE, apply_defaults
from meshgw.api.depth import MAX_DEPTH, is_deep
from meshgw.api.fields import FieldPath, null_fields, unknown_fields, without_nulls
from meshgw.api.meta import Key, ObjectRef, Resource, StrictResource
from meshgw.api.registry import REGISTRY, Kind, Registry
from meshgw.api.scalars import PATTERN_NAMES
from meshgw.api.stand_in import stand_in

_ERROR: Final = re.compile(r"^(?P<message>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`)?\Z", re.DOTALL)
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>[^`]+)`\Z")
_REGEX: Final = "Expected `str` matching regex "
_REGEX_NAMES: Final = {repr(pattern): name for pattern, name in PATTERN_NAMES.items()}


class Decoded(Struct, frozen=True, kw_only=True):
    """The outcome of one document.

    A good document has ``object``; one of the wrong shape has ``problems``; one of an unknown kind
    has neither. ``ref`` is what the document says of its identity, with empty parts where it does
    not. ``unknown_fields`` are paths the struct does not know, except in metadata and status.
    ``stand_in`` is what stands for a document of the wrong shape while no good version is known, for
    kinds that would widen access by being absent.
    """

    api_version: str = ""
    ref: ObjectRef = ObjectRef("", "", "")
    kind: Kind | None = None
    object: Resource | None = None
    problems: tuple[Problem, ...] = ()
    unknown_fields: tuple[FieldPath, ...] = ()
    stand_in: StrictResource | None = None

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.ref.key


def decode(document: bytes | str | Mapping[str, Any], registry: Registry = REGISTRY) -> Decoded:
    """The typed object of a JSON text or of a mapping of plain values, with defaults applied and rules checked."""
    try:
        if isinstance(document, bytes | str):
            if is_deep(document.encode() if isinstance(document, str) else document):
                return _refused(Decoded(), "", f"is nested more than {MAX_DEPTH} levels deep")
            document = msgspec.json.decode(document)
        if not isinstance(document, Mapping):
            return _refused(Decoded(), "", "a document must be an object with apiVersion and kind")
        return _decode(document, registry)
    except RecursionError:
        return _refused(Decoded(), "", "is nested too deeply")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _refused(Decoded(), "", str(error))


def _decode(document: Mapping[str, Any], registry: Registry) -> Decoded:
    seen = _identify(document, registry)
    for field in ("apiVersion", "kind"):
        if not isinstance(document.get(field), str) or not document[field]:
            return _refused(seen, field, "is required, as text")
    if seen.kind is None:
        return _of_unknown_kind(seen, registry, document)
    try:
        resource, nulls = _convert(seen.kind, document)
    except msgspec.ValidationError as error:
        return _refused(seen, *_explain(str(error)), document)
    resource = apply_defaults(seen.kind, resource)
    problems = check(resource)
    if problems:
        refused = _refused(seen, problems[0].field, problems[0].message, document)
        return msgspec.structs.replace(refused, problems=problems)
    unknown = () if seen.kind.partial else unknown_fields(document, seen.kind.struct)
    if isinstance(resource, StrictResource):
        # Always set here: the document must not be able to say so itself.
        resource = msgspec.structs.replace(resource, unknown_fields=unknown + nulls, unreadable="")
    return Decoded(
        api_version=seen.api_version,
        ref=ObjectRef(seen.kind.name, *resource.key),
        kind=seen.kind,
        object=resource,
        unknown_fields=unknown,
    )


def _identify(document: Mapping[str, Any], registry: Registry) -> Decoded:
    api_version, name = _text(document, "apiVersion"), _text(document, "kind")
    kind = registry.lookup(api_version, name)
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping):
        metadata = {}
    # An unknown kind may be cluster-scoped, so only what the document says counts for it.
    fallback = DEFAULT_NAMESPACE if kind is not None and kind.namespaced else ""
    namespace = "" if kind is not None and not kind.namespaced else _text(metadata, "namespace") or fallback
    return Decoded(api_version=api_version, ref=ObjectRef(name, namespace, _text(metadata, "name")), kind=kind)


def _text(mapping: Mapping[str, Any], field: str) -> str:
    value = mapping.get(field)
    return value if isinstance(value, str) else ""


def _refused(seen: Decoded, field: FieldPath, message: str, document: Mapping[str, Any] | None = None) -> Decoded:
    problem = Problem(object=seen.ref, field=field, message=message)
    reason = f"{field}: {message}" if field else message
    stands = stand_in(seen.kind, seen.ref, document, reason) if seen.kind and document is not None else None
    return msgspec.structs.replace(seen, problems=(problem,), stand_in=stands)


def _of_unknown_kind(seen: Decoded, registry: Registry, document: Mapping[str, Any]) -> Decoded:
    namesake = registry.by_name(seen.ref.kind)
    group = seen.api_version.rpartition("/")[0]
    if namesake is None or namesake.group != group:
        return seen
    namespace = (seen.ref.namespace or DEFAULT_NAMESPACE) if namesake.namespaced else ""
    known = Decoded(api_version=seen.api_version, ref=ObjectRef(namesake.name, namespace, seen.ref.name), kind=namesake)
    return _refused(known, "apiVersion", f"{seen.api_version} is not served; use {namesake.api_version}", document)


def _convert(kind: Kind, document: Mapping[str, Any]) -> tuple[Resource, tuple[FieldPath, ...]]:
    """The object, and the nulls that were ignored in a strict kind."""
    if kind.strict:
        return msgspec.convert(without_nulls(document), kind.struct), null_fields(document.get("spec", {}), "spec")
    try:
        return msgspec.convert(document, kind.struct), ()
    except msgspec.ValidationError:
        # The API server reads null as absent and base64 with line breaks. Both are rare, so they cost
        # nothing unless the strict way fails.
        return msgspec.convert(_tidy(kind, without_nulls(document)), kind.struct), ()


def _tidy(kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
    field = {Secret: "data", ConfigMap: "binaryData"}.get(kind.struct)
    data = document.get(field) if field else None
    if not field or not isinstance(data, dict):
        return document
    joined = {name: "".join(value.split()) if isinstance(value, str) else value for name, value in data.items()}
    return {**document, field: joined}


def _explain(error: str) -> tuple[FieldPath, str]:
    """Field and message of a msgspec error."""
    found = _ERROR.match(error)
    if found is None:  # pragma: no cover - the pattern matches any text
        return "", error
    message, path = found["message"], found["path"] or ""
    missing = _MISSING.match(message)
    if missing:
        return f"{path}.{missing['name']}".lstrip("."), "is required"
    if message.startswith(_REGEX):
        name = _REGEX_NAMES.get(message.removeprefix(_REGEX))
        message = f"must be {name}" if name else message
    return path, f"key: {message}" if found["key"] else message
