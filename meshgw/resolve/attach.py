"""Attachment: which listeners, or service ports behind a waypoint, each parentRef of a route reaches, or why none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from meshgw import names
from meshgw.api.core import Service
from meshgw.api.gateway import ParentReference, RouteGroupKind
from meshgw.api.grpc import GRPCRoute
from meshgw.api.http import HTTPRoute
from meshgw.api.l4 import TCPRoute, TLSRoute, UDPRoute
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Listener, Role
from meshgw.ir.keys import ListenerKey, RouteKey
from meshgw.ir.mesh import AppProtocol, WaypointPort, WaypointService
from meshgw.ir.route import Attachment, Parent
from meshgw.resolve.hostnames import intersection, service_listener
from meshgw.resolve.namespaces import admits
from meshgw.resolve.tables import GATEWAY_PROFILES, LISTENER_SETS, LISTENERS, SERVICES, WAYPOINT_SERVICES

AnyRoute = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute

_NAMES: Mapping[type[AnyRoute], str] = {
    HTTPRoute: "HTTPRoute",
    GRPCRoute: "GRPCRoute",
    TLSRoute: "TLSRoute",
    TCPRoute: "TCPRoute",
    UDPRoute: "UDPRoute",
}
_MESH_KINDS = frozenset({"HTTPRoute", "GRPCRoute"})
_CODES = {
    "NoMatchingParent": "MG1001",
    "NotAllowedByListeners": "MG1002",
    "NoMatchingListenerHostname": "MG1003",
}
_ACCEPTED = "Accepted"
_ANY_HOST = ("",)


class _Verdict(NamedTuple):
    """What became of a parentRef, in the words of its Accepted condition."""

    gateway: Key
    reason: str = _ACCEPTED
    message: str = ""
    listeners: tuple[tuple[ListenerKey, tuple[str, ...]], ...] = ()


class _Place(NamedTuple):
    """The listeners of one owner."""

    gateway: Key
    owner_kind: str
    owner: Key


def route_key(key: Key, row: AnyRoute) -> RouteKey:
    """Return the key of a route among routes of all kinds."""
    return RouteKey(_NAMES[type(row)], key.namespace, key.name)


def attach_route(view: View, _table: Any, key: Key, row: AnyRoute) -> Iterable[tuple[tuple[RouteKey, int], Parent]]:
    """Return a row for each parentRef that names something of ours, by its position in the spec."""
    route = route_key(key, row)
    for position, ref in enumerate(row.spec.parent_refs):
        verdict = _judge(view, route, row, ref)
        if verdict is None:
            continue
        findings: tuple[Finding, ...] = ()
        if verdict.reason != _ACCEPTED:
            findings = (_finding(route, position, verdict),)
        yield (
            (route, position),
            Parent(
                route=route,
                gateway=verdict.gateway,
                reason=verdict.reason,
                message=verdict.message,
                listeners=verdict.listeners,
                ref=ref,
                generation=row.metadata.generation,
                findings=findings,
            ),
        )


def merge_attachments(
    _view: View, group: tuple[RouteKey, ListenerKey], members: Mapping[tuple[RouteKey, int], Parent]
) -> Iterable[tuple[tuple[RouteKey, ListenerKey], Attachment]]:
    """Return one attachment for all parentRefs by which a route reaches a listener."""
    route, listener = group
    hostnames = {
        host for parent in members.values() for key, hosts in parent.listeners if key == listener for host in hosts
    }
    yield group, Attachment(route=route, listener=listener, hostnames=tuple(sorted(hostnames)))


def count_attached(
    _view: View, listener: ListenerKey, members: Mapping[tuple[RouteKey, ListenerKey], Attachment]
) -> Iterable[tuple[ListenerKey, int]]:
    """Return how many routes are accepted on a listener, whatever else is wrong with it or with them."""
    yield listener, len(members)


def _judge(view: View, route: RouteKey, row: AnyRoute, ref: ParentReference) -> _Verdict | None:
    target = Key(ref.namespace or route.namespace, ref.name)
    match ref.group, ref.kind:
        case names.GATEWAY_GROUP, "Gateway":
            return _judge_gateway(view, route, row, ref, target)
        case names.GATEWAY_GROUP, "ListenerSet":
            return _judge_listener_set(view, route, row, ref, target)
        case names.CORE_GROUP, "Service":
            return _judge_service(view, route, ref, target)
        case _:
            return None


def _judge_gateway(view: View, route: RouteKey, row: AnyRoute, ref: ParentReference, gateway: Key) -> _Verdict | None:
    """Judge a reference to a Gateway: it reaches the Gateway's own listeners, never those of its ListenerSets."""
    ours = view.get(GATEWAY_PROFILES, gateway)
    if ours is None:
        return None
    if ours.role is Role.WAYPOINT:
        message = "routes reach a waypoint through the Services behind it: name one as parent"
        return _Verdict(gateway, "NotAllowedByListeners", message)
    return _judge_listeners(view, route, row, ref, _Place(gateway, "Gateway", gateway))


def _judge_listener_set(view: View, route: RouteKey, row: AnyRoute, ref: ParentReference, key: Key) -> _Verdict | None:
    found = view.get(LISTENER_SETS, key)
    if found is None:
        return None
    parent = found.spec.parent_ref
    gateway = Key(parent.namespace or key.namespace, parent.name)
    if (parent.group, parent.kind) != (names.GATEWAY_GROUP, "Gateway") or view.get(GATEWAY_PROFILES, gateway) is None:
        return None
    return _judge_listeners(view, route, row, ref, _Place(gateway, "ListenerSet", key))


def _judge_listeners(view: View, route: RouteKey, row: AnyRoute, ref: ParentReference, place: _Place) -> _Verdict:
    """Narrow the listeners down: by name and port, then by kind and namespace, then by host names."""
    gateway = place.gateway
    selected = _select(view, ref, place)
    if not selected:
        return _Verdict(gateway, "NoMatchingParent", f"{ref.kind} has no listener{_selection(ref)}")
    willing = [listener for listener in selected if _allows(view, listener, route)]
    if not willing:
        message = f"no listener{_selection(ref)} allows {route.kind}s of namespace {route.namespace}"
        return _Verdict(gateway, "NotAllowedByListeners", message)
    attached = [(listener.key, hosts) for listener in willing if (hosts := _hostnames(listener, row))]
    if not attached:
        message = f"no listener{_selection(ref)} serves any of the route's host names"
        return _Verdict(gateway, "NoMatchingListenerHostname", message)
    return _Verdict(gateway, listeners=tuple(attached))


def _select(view: View, ref: ParentReference, place: _Place) -> list[Listener]:
    if ref.section_name:
        named = view.get(LISTENERS, ListenerKey(*place, ref.section_name))
        found = [named] if named else []
    else:
        found = [row for _key, row in view.by(LISTENERS, "owner", tuple(place))]
    return [listener for listener in found if ref.port in {None, listener.port}]


def _selection(ref: ParentReference) -> str:
    name = f" named {ref.section_name}" if ref.section_name else ""
    return name + (f" on port {ref.port}" if ref.port else "")


def _allows(view: View, listener: Listener, route: RouteKey) -> bool:
    return RouteGroupKind(kind=route.kind) in listener.kinds and admits(
        view, listener.namespaces, owner=listener.key.owner.namespace, namespace=route.namespace
    )


def _hostnames(listener: Listener, row: AnyRoute) -> tuple[str, ...]:
    if isinstance(row, TCPRoute | UDPRoute):
        return _ANY_HOST
    return intersection(listener.hostname, row.spec.hostnames)


def _judge_service(view: View, route: RouteKey, ref: ParentReference, service: Key) -> _Verdict | None:
    """Judge a reference to a Service: it reaches the HTTP ports of the Service at the waypoint before it (GEP-1324)."""
    behind = [row for _key, row in view.by(WAYPOINT_SERVICES, "service", service)]
    if not behind:
        return None
    gateway = behind[0].gateway
    if route.kind not in _MESH_KINDS:
        return _Verdict(gateway, "NotAllowedByListeners", f"a waypoint does not serve {route.kind}s")
    if route.namespace != service.namespace:
        message = f"only routes of the Service's own namespace {service.namespace} are served"
        return _Verdict(gateway, "NotAllowedByListeners", message)
    selected = _select_ports(view, ref, service, behind)
    if not selected:
        return _Verdict(gateway, "NoMatchingParent", f"Service has no port{_port(ref)}")
    attached = tuple(
        (service_listener(row.gateway, service, port.port), _ANY_HOST)
        for row, port in selected
        if port.protocol is AppProtocol.HTTP
    )
    if not attached:
        return _Verdict(gateway, "NotAllowedByListeners", f"no port{_port(ref)} of the Service speaks HTTP")
    return _Verdict(gateway, listeners=attached)


def _port(ref: ParentReference) -> str:
    return (f" {ref.port}" if ref.port else "") + (f" named {ref.section_name}" if ref.section_name else "")


def _select_ports(
    view: View, ref: ParentReference, service: Key, behind: Sequence[WaypointService]
) -> list[tuple[WaypointService, WaypointPort]]:
    named = {ref.port} if ref.section_name is None else _named_ports(view.get(SERVICES, service), ref.section_name)
    return [
        (row, port)
        for row in behind
        for port in row.ports
        if ref.port in {None, port.port} and (ref.section_name is None or port.port in named)
    ]


def _named_ports(service: Service | None, name: str) -> set[int | None]:
    return {port.port for port in service.spec.ports if port.name == name} if service else set()


def _finding(route: RouteKey, position: int, verdict: _Verdict) -> Finding:
    return Finding(
        code=_CODES[verdict.reason],
        object=ObjectRef(*route),
        field=f"spec.parentRefs[{position}]",
        message=verdict.message,
    )
