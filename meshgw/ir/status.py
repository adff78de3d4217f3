"""Statuses as the Gateway API words them; times are the writers' business, so that values stay comparable."""

from __future__ import annotations

from typing import Any

import msgspec

from meshgw.api.gateway import GATEWAY_GROUP, ParentReference, RouteGroupKind


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One condition of the object's generation `observed_generation`."""

    type: str
    status: bool
    reason: str
    message: str = ""
    observed_generation: int = 0


class ListenerStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of `status.listeners` of a Gateway or ListenerSet."""

    name: str
    supported_kinds: tuple[RouteGroupKind, ...] = ()
    attached_routes: int = 0
    conditions: tuple[Condition, ...] = ()


class StatusAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One address a Gateway is reached at; `type` is IPAddress or Hostname."""

    type: str
    value: str


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Status of a Gateway or (without addresses) of a ListenerSet."""

    addresses: tuple[StatusAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    listeners: tuple[ListenerStatus, ...] = ()
    attached_listener_sets: int | None = None


class ClassStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Status of a GatewayClass; `supported_features` is sorted."""

    conditions: tuple[Condition, ...] = ()
    supported_features: tuple[str, ...] = ()


class ParentStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of a route's `status.parents`, or of a policy's `status.ancestors` (then written as `ancestorRef`)."""

    parent_ref: ParentReference
    controller_name: str
    conditions: tuple[Condition, ...] = ()


class RouteStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Our entries of `status.parents`; entries of other controllers are not ours to hold."""

    parents: tuple[ParentStatus, ...] = ()


class PolicyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Our entries of `status.ancestors`, at most 16 (GEP-713)."""

    ancestors: tuple[ParentStatus, ...] = ()


Status = GatewayStatus | ClassStatus | RouteStatus | PolicyStatus


def document(status: Status) -> dict[str, Any]:
    """Return a status as the API writes it: camel-case names, "True" and "False" as strings."""
    built: dict[str, Any] = msgspec.to_builtins(status)
    _write_conditions(built)
    if isinstance(status, GatewayStatus):
        for listener in built.get("listeners", ()):
            listener["supportedKinds"] = [{"group": GATEWAY_GROUP, **kind} for kind in listener["supportedKinds"]]
    elif isinstance(status, ClassStatus):
        built["supportedFeatures"] = [{"name": name} for name in status.supported_features]
    elif isinstance(status, RouteStatus):
        for entry, parent in zip(built["parents"], status.parents, strict=True):
            entry["parentRef"] = _whole(parent.parent_ref)
    elif isinstance(status, PolicyStatus):
        built["ancestors"] = [
            {"ancestorRef": _whole(ancestor.parent_ref)}
            | {name: value for name, value in entry.items() if name != "parentRef"}
            for entry, ancestor in zip(built["ancestors"], status.ancestors, strict=True)
        ]
    return built


def _whole(ref: ParentReference) -> dict[str, Any]:
    """Return a reference with its defaults written out, as the API server stores it in the spec."""
    return {"group": ref.group, "kind": ref.kind, **msgspec.to_builtins(ref)}


def _write_conditions(node: Any) -> None:
    if isinstance(node, dict):
        for condition in node.get("conditions", ()):
            condition["status"] = "True" if condition["status"] else "False"
        for name, value in node.items():
            if name != "conditions":
                _write_conditions(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _write_conditions(value)
