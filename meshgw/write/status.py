"""The patch that brings an object's status to what it should say, or none.

Several controllers write the status of one object. Entries of `parents` and `ancestors` are each controller's own, but
the lists are replaced as a whole; conditions belong to whoever knows their type. So a patch repeats what others wrote,
byte for byte and in its order, and names the version of the object that it was made from: the API server refuses it if
somebody was faster. What means the same is not written again, whatever its order and times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final

import msgspec
from msgspec import Raw

from meshgw.api.gateway import GATEWAY_GROUP
from meshgw.ir.status import ClassStatus, GatewayStatus, PolicyStatus, RouteStatus, Status, document
from meshgw.kube.seen import Observed

OURS: Final = (
    "Accepted",
    "Programmed",
    "ResolvedRefs",
    "Conflicted",
    "PartiallyInvalid",
    "InsecureFrontendValidationMode",
    "OverlappingTLSConfig",
    "SupportedVersion",
)
"""Types of conditions that are the controller's to write and to remove, the most important first."""

_OUR_DOMAIN: Final = "meshgw.dev/"

# Limits of the Gateway API's definitions.
_MESSAGE: Final = 32768
_CONDITIONS: Final = 8
_PARENTS: Final = 32
_ANCESTORS: Final = 16
_ADDRESSES: Final = 16
_LISTENERS: Final = 64
_FEATURES: Final = 64

_LARGEST: Final = 2**20
"""Bytes of a status with all its messages; etcd takes 1.5 MiB per object, and the spec needs room too."""
_SHORT_MESSAGE: Final = 512

_REASON: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_HOSTNAME: Final = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class _Condition(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A condition as stored."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""

    def says(self, wanted: Mapping[str, Any]) -> bool:
        return (self.type, self.status, self.reason, self.message, self.observed_generation) == (
            wanted["type"],
            wanted["status"],
            wanted["reason"],
            wanted["message"],
            wanted["observedGeneration"],
        )


class _Entry(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An entry of `parents` or `ancestors` as stored."""

    controller_name: str = ""
    parent_ref: dict[str, Any] = {}
    ancestor_ref: dict[str, Any] = {}
    conditions: list[Raw] = []


class _Listener(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An entry of `listeners` as stored."""

    name: str = ""
    attached_routes: int = 0
    supported_kinds: list[dict[str, str]] = []
    conditions: list[Raw] = []


_conditions_of = msgspec.json.Decoder(_Condition).decode
_entry_of = msgspec.json.Decoder(_Entry).decode
_listener_of = msgspec.json.Decoder(_Listener).decode
_items_of = msgspec.json.Decoder(list[Raw] | None).decode
_fields_of = msgspec.json.Decoder(dict[str, Raw] | None).decode


def build_patch(
    status: Status | None, observed: Observed, *, controller: str, now: str, last: Status | None = None
) -> bytes | None:
    """Return a JSON merge patch of the status subresource, None when the object says already what it should.

    Without a `status` the controller has nothing (more) to say: its entries are removed, and of a Gateway or
    ListenerSet what still reads as `last`, the status it was given before; a GatewayClass is left as it is. `now` is an
    RFC 3339 time of whole seconds, for conditions whose status changes.
    """
    stored = _fields_of(observed.status or b"{}") or {}
    fields = _parting(stored, last, controller) if status is None else _difference(status, stored, controller, now)
    if not fields:
        return None
    precondition = {"resourceVersion": observed.resource_version, "uid": observed.uid}
    return msgspec.json.encode({"metadata": precondition, "status": fields})


def generation_of(status: Status | None) -> int:
    """Return the generation of the object that a status is about, 0 if it does not say."""
    match status:
        case None:
            return 0
        case RouteStatus():
            conditions = tuple(condition for entry in status.parents for condition in entry.conditions)
        case PolicyStatus():
            conditions = tuple(condition for entry in status.ancestors for condition in entry.conditions)
        case _:
            conditions = status.conditions
    return max((condition.observed_generation for condition in conditions), default=0)


def _difference(status: Status, stored: Mapping[str, Raw], controller: str, now: str) -> dict[str, Any]:
    """Return the fields of the status that must change."""
    wanted = _bounded(document(status))
    match status:
        case RouteStatus():
            entries = _entries("parents", wanted["parents"], stored, controller, now)
            return {} if entries is None else {"parents": entries}
        case PolicyStatus():
            entries = _entries("ancestors", wanted["ancestors"], stored, controller, now)
            return {} if entries is None else {"ancestors": entries}
        case ClassStatus():
            return _conditions_field(wanted, stored, now) | _features_field(wanted, stored)
        case GatewayStatus():
            return (
                _conditions_field(wanted, stored, now)
                | _listeners_field(wanted, stored, now)
                | _addresses_field(wanted, stored)
                | _count_field(wanted, stored)
            )


def _parting(stored: Mapping[str, Raw], last: Status | None, controller: str) -> dict[str, Any]:
    """Return the fields of a status of which nothing may be left that is ours."""
    for field in ("parents", "ancestors"):
        if field in stored:
            entries = _entries(field, (), stored, controller, "")
            return {} if entries is None else {field: entries}
    if not isinstance(last, GatewayStatus):
        return {}
    written = _bounded(document(last))
    conditions = _items(stored, "conditions")
    kept = [raw for raw in conditions if not _is_said(raw, written.get("conditions", ()))]
    if len(kept) == len(conditions):  # somebody else speaks for it by now
        return {}
    ours = {listener["name"]: listener["conditions"] for listener in written.get("listeners", ())}
    listeners = _items(stored, "listeners")
    others = [raw for raw in listeners if not _is_ours(_listener_of(raw), ours)]
    fields: dict[str, Any] = {"conditions": kept or None}
    if len(others) < len(listeners):
        fields["listeners"] = others or None
    if "addresses" in stored and not _addresses_field(written, stored):
        fields["addresses"] = None
    if "attachedListenerSets" in stored and not _count_field(written, stored):
        fields["attachedListenerSets"] = None
    return fields


def _is_said(raw: Raw, conditions: Iterable[Mapping[str, Any]]) -> bool:
    stored = _conditions_of(raw)
    return any(stored.says(condition) for condition in conditions)


def _is_ours(listener: _Listener, written: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    return listener.name in written and all(_is_said(raw, written[listener.name]) for raw in listener.conditions)


def _entries(
    field: str, wanted: Sequence[Mapping[str, Any]], stored: Mapping[str, Raw], controller: str, now: str
) -> list[Any] | None:
    """Return the whole list with our entries as wanted, None if they are. Ours never push out those of others."""
    ref, most = ("parentRef", _PARENTS) if field == "parents" else ("ancestorRef", _ANCESTORS)
    found = [(_entry_of(raw), raw) for raw in _items(stored, field)]
    room = max(0, most - sum(1 for entry, _raw in found if entry.controller_name != controller))
    missing: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for ours in wanted:
        missing.setdefault(_identity(ours[ref]), ours)
    for identity in list(missing)[room:]:
        del missing[identity]
    entries: list[Any] = []
    changed = False
    for entry, raw in found:
        if entry.controller_name != controller:
            entries.append(raw)
            continue
        due = missing.pop(_identity(entry.parent_ref or entry.ancestor_ref), None)
        if due is None:
            changed = True
            continue
        conditions, same = _conditions(due["conditions"], entry.conditions, now)
        entries.append(raw if same else {**due, "conditions": conditions})
        changed = changed or not same
    entries += [{**due, "conditions": _conditions(due["conditions"], (), now)[0]} for due in missing.values()]
    return entries if changed or missing else None


def _identity(ref: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what makes a reference this one, with the API's defaults."""
    return (
        ref.get("group", GATEWAY_GROUP),
        ref.get("kind", "Gateway"),
        ref.get("namespace"),
        ref.get("name"),
        ref.get("sectionName"),
        ref.get("port"),
    )


def _conditions(
    wanted: Sequence[Mapping[str, Any]], stored: Sequence[Raw], now: str
) -> tuple[list[Mapping[str, Any] | Raw], bool]:
    """Return the whole list, ours first, and whether ours are as wanted."""
    names = {condition["type"] for condition in wanted}
    ours: dict[str, _Condition] = {}
    foreign: list[Raw] = []
    for raw in stored:
        condition = _conditions_of(raw)
        if condition.type in names or condition.type in OURS or condition.type.startswith(_OUR_DOMAIN):
            ours[condition.type] = condition
        else:
            foreign.append(raw)
    fitting = sorted(wanted, key=_importance)[: max(0, _CONDITIONS - len(foreign))]
    same = len(fitting) == len(ours) and all(
        condition["type"] in ours and ours[condition["type"]].says(condition) for condition in fitting
    )
    written = [{**condition, "lastTransitionTime": _since(condition, ours, now)} for condition in fitting]
    return [*written, *foreign], same


def _importance(condition: Mapping[str, Any]) -> tuple[int, str]:
    kind = condition["type"]
    return (OURS.index(kind) if kind in OURS else len(OURS)), kind


def _since(condition: Mapping[str, Any], stored: Mapping[str, _Condition], now: str) -> str:
    before = stored.get(condition["type"])
    return (before.last_transition_time or now) if before and before.status == condition["status"] else now


def _conditions_field(wanted: Mapping[str, Any], stored: Mapping[str, Raw], now: str) -> dict[str, Any]:
    conditions, same = _conditions(wanted.get("conditions", ()), _items(stored, "conditions"), now)
    return {} if same else {"conditions": conditions}


def _listeners_field(wanted: Mapping[str, Any], stored: Mapping[str, Raw], now: str) -> dict[str, Any]:
    known = {listener.name: listener for listener in map(_listener_of, _items(stored, "listeners"))}
    listeners = []
    changed = len(known) != len(wanted.get("listeners", ())[:_LISTENERS])
    for listener in wanted.get("listeners", ())[:_LISTENERS]:
        before = known.get(listener["name"], _Listener())
        conditions, same = _conditions(listener["conditions"], before.conditions, now)
        listeners.append({**listener, "conditions": conditions})
        changed = changed or not (
            same
            and before.name
            and before.attached_routes == listener["attachedRoutes"]
            and _plain(before.supported_kinds) == _plain(listener["supportedKinds"])
        )
    return {"listeners": listeners or None} if changed else {}


def _addresses_field(wanted: Mapping[str, Any], stored: Mapping[str, Raw]) -> dict[str, Any]:
    """Return the addresses; what is none, as the API defines them, would make it refuse all the rest."""
    addresses = [address for address in wanted.get("addresses", ()) if _is_address(**address)][:_ADDRESSES]
    before = [{"type": "IPAddress", **msgspec.json.decode(raw)} for raw in _items(stored, "addresses")]
    return {} if _plain(before) == _plain(addresses) else {"addresses": addresses or None}


def _is_address(type: str, value: str) -> bool:  # noqa: A002 - the name of the field
    if type != "IPAddress":
        return len(value) <= 253 and _HOSTNAME.fullmatch(value) is not None
    try:
        return "%" not in value and bool(ip_address(value))
    except ValueError:
        return False


def _count_field(wanted: Mapping[str, Any], stored: Mapping[str, Raw]) -> dict[str, Any]:
    field = "attachedListenerSets"
    before = msgspec.json.decode(stored[field]) if field in stored else None
    return {} if before == wanted.get(field) else {field: wanted.get(field)}


def _features_field(wanted: Mapping[str, Any], stored: Mapping[str, Raw]) -> dict[str, Any]:
    field = "supportedFeatures"
    before = [msgspec.json.decode(raw) for raw in _items(stored, field)]
    return {} if _plain(before) == _plain(wanted[field][:_FEATURES]) else {field: wanted[field][:_FEATURES]}


def _plain(values: Iterable[Any]) -> list[bytes]:
    """Return values in an order and form in which equal ones are equal."""
    return sorted(msgspec.json.encode(value, order="sorted") for value in values)


def _items(stored: Mapping[str, Raw], field: str) -> list[Raw]:
    return _items_of(stored[field]) or [] if field in stored else []


def _bounded(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return a document within what the API takes: reasons are words, messages have a length, the whole a size."""
    size = len(msgspec.json.encode(wanted))
    _shorten(wanted, _MESSAGE if size <= _LARGEST else _SHORT_MESSAGE)
    return wanted


def _shorten(node: Any, longest: int) -> None:
    if isinstance(node, dict):
        for condition in node.get("conditions", ()):
            if len(condition["message"]) > longest:
                condition["message"] = condition["message"][: longest - 1] + "…"
            if not _REASON.fullmatch(condition["reason"]):
                condition["reason"] = "Unknown"
        for name, value in node.items():
            if name != "conditions":
                _shorten(value, longest)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _shorten(value, longest)
