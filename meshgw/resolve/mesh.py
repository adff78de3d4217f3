"""Who is behind which waypoint, and which workloads speak HBONE (Istio ambient's labels)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from meshgw import names
from meshgw.api.core import Pod, Service, ServicePort
from meshgw.api.grpc import GRPCRoute
from meshgw.api.http import HTTPRoute
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import AllowedNamespaces, Gateway, Protocol, Role, WaypointFor
from meshgw.ir.keys import BackendTarget
from meshgw.ir.mesh import AppProtocol, Enrolment, WaypointPort, WaypointService, WaypointWorkload, Workload
from meshgw.resolve.addresses import usable_addresses
from meshgw.resolve.namespaces import admits
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import (
    ADMISSIONS,
    GATEWAY_PROFILES,
    GATEWAYS,
    GRPC_ROUTES,
    HTTP_ROUTES,
    LISTENERS,
    NAMESPACES,
    SERVICES,
    WAYPOINT_SERVICES,
    WAYPOINT_WORKLOADS,
    WORKLOADS,
)

_OPT_OUT = "none"
_FINISHED = frozenset({"Succeeded", "Failed"})
_HTTP = frozenset({"http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"})
"""Values of appProtocol, and prefixes of port names, whose first bytes are HTTP."""
_OPAQUE = frozenset({"tcp", "tls", "https", "mysql", "mongo", "redis"})
"""Prefixes of port names that declare something else."""


# --- Workloads -----------------------------------------------------------------------------------------------------


def resolve_workload(view: View, key: Key, pod: Pod) -> Iterable[tuple[Key, Workload]]:
    """Return the Pod as the mesh sees it, unless it is finished, has no address or shares its node's."""
    if pod.status.phase in _FINISHED or pod.spec.host_network:
        return
    settings = read_settings(view)
    texts = (*(ip.ip for ip in pod.status.pod_ips), pod.status.pod_ip)
    addresses = usable_addresses(texts, loopback=settings.loopback_endpoints)
    if not addresses:
        return
    account = pod.spec.service_account_name or "default"
    yield (
        key,
        Workload(
            pod=key,
            addresses=addresses,
            identity=f"spiffe://{settings.trust_domain}/ns/{key.namespace}/sa/{account}",
            hbone=_speaks_hbone(pod),
        ),
    )


def _speaks_hbone(pod: Pod) -> bool:
    """Captured by a node proxy (the annotation is written after capture), or HBONE by itself."""
    captured = pod.metadata.annotations.get(names.ANNOTATION_REDIRECTION) == "enabled"
    tunnels = pod.metadata.labels.get(names.LABEL_TUNNEL, "").split(",")
    return captured or "http" in (tunnel.strip() for tunnel in tunnels)


# --- Enrolment -----------------------------------------------------------------------------------------------------


class WaypointChoice(NamedTuple):
    """What an object's labels ask for; `own` tells its own labels from its Namespace's."""

    waypoint: Key
    own: bool


def enrol(view: View, _table: Any, key: Key, row: Service | Pod) -> Iterable[tuple[tuple[str, Key], Enrolment]]:
    """Follow `istio.io/use-waypoint` of a Service or Pod; its own label beats its Namespace's (no fallback)."""
    kind = "Service" if isinstance(row, Service) else "Pod"
    choice = find_waypoint(view, key, row.metadata.labels)
    if choice is None or row.metadata.labels.get(names.LABEL_GATEWAY_NAME) == choice.waypoint.name:
        return  # nothing asked for; a waypoint's own Service and Pods are never behind it
    gateway = view.get(GATEWAY_PROFILES, choice.waypoint)
    if gateway is None and view.get(GATEWAYS, choice.waypoint) is not None:
        return  # another controller's waypoint
    refusal = _refusal(view, kind, key, choice, gateway)
    findings = [refusal] if refusal else []
    if not refusal and isinstance(row, Service) and not virtual_addresses(row):
        message = f"clients cannot address it at waypoint {choice.waypoint}: no route or policy of the waypoint applies"
        findings.append(Finding(code="MG5005", object=ObjectRef(kind, *key), field="spec.clusterIP", message=message))
    taken = not refusal and gateway is not None and _takes(gateway, kind)
    if taken or findings:
        waypoint = choice.waypoint if taken else None
        yield (kind, key), Enrolment(kind=kind, key=key, waypoint=waypoint, findings=tuple(findings))


def find_waypoint(view: View, key: Key, own: Mapping[str, str]) -> WaypointChoice | None:
    """Return the waypoint that an object's own labels name, or its Namespace's; None if they name none, or opt out."""
    labels = own
    if names.LABEL_USE_WAYPOINT not in own:
        namespace = view.get(NAMESPACES, Key("", key.namespace))
        labels = namespace.metadata.labels if namespace else {}
    name = labels.get(names.LABEL_USE_WAYPOINT, "")
    if not name or name == _OPT_OUT:
        return None
    waypoint = Key(labels.get(names.LABEL_USE_WAYPOINT_NAMESPACE) or key.namespace, name)
    return WaypointChoice(waypoint, own=labels is own)


def _refusal(view: View, kind: str, key: Key, choice: WaypointChoice, gateway: Gateway | None) -> Finding | None:
    """Return why the waypoint does not take this object, or None.

    A namespace's label speaks to all that is in it, so what the waypoint is not for stays unsaid there.
    """
    waypoint = choice.waypoint
    if gateway is None:
        code, message = "MG5001", f"no Gateway {waypoint}"
    elif gateway.role is not Role.WAYPOINT or not gateway.accepted:
        code, message = "MG5001", f"Gateway {waypoint} is not an accepted waypoint"
    elif not _admits(view, gateway, key.namespace):
        code, message = "MG5002", f"waypoint {waypoint} does not admit namespace {key.namespace}"
    elif choice.own and not _takes(gateway, kind):
        code, message = "MG5003", f"waypoint {waypoint} is for {gateway.waypoint_for.value} traffic"
    else:
        return None
    ref = ObjectRef(kind, key.namespace, key.name)
    field = f"metadata.labels[{names.LABEL_USE_WAYPOINT}]" if choice.own else ""
    return Finding(code=code, object=ref, field=field, message=message)


def _takes(gateway: Gateway, kind: str) -> bool:
    """Whether the waypoint is for traffic addressed to Services, or to Pods."""
    return gateway.waypoint_for in {WaypointFor.ALL, WaypointFor.SERVICE if kind == "Service" else WaypointFor.WORKLOAD}


def resolve_admission(view: View, key: Key, gateway: Gateway) -> Iterable[tuple[Key, AllowedNamespaces]]:
    """Return what the HBONE listener of a waypoint admits; without such a listener only the Gateway's own namespace."""
    if gateway.role is not Role.WAYPOINT:
        return
    allowed = AllowedNamespaces()
    for _key, listener in view.by(LISTENERS, "gateway", key):
        if listener.protocol is Protocol.HBONE and listener.port == names.HBONE_PORT:
            allowed = listener.namespaces
            break
    yield key, allowed


def _admits(view: View, gateway: Gateway, namespace: str) -> bool:
    allowed = view.get(ADMISSIONS, gateway.key)
    return allowed is not None and admits(view, allowed, owner=gateway.key.namespace, namespace=namespace)


# --- What a waypoint serves ----------------------------------------------------------------------------------------


def bind_service(
    view: View, key: tuple[str, Key], enrolment: Enrolment
) -> Iterable[tuple[tuple[Key, Key], WaypointService]]:
    """Return the Service as its waypoint serves it: by virtual IP and port."""
    kind, service_key = key
    if kind != "Service" or enrolment.waypoint is None:
        return
    service = view.get(SERVICES, service_key)
    if service is None or service.spec.type == "ExternalName":
        return
    numbers = {port.port: port for port in reversed(service.spec.ports) if port.protocol == "TCP"}
    ports = tuple(
        WaypointPort(port=number, protocol=_protocol(view, service_key, port))
        for number, port in sorted(numbers.items())
    )
    yield (
        (enrolment.waypoint, service_key),
        WaypointService(
            gateway=enrolment.waypoint,
            service=service_key,
            hostname=f"{service_key.name}.{service_key.namespace}.svc.{read_settings(view).cluster_domain}",
            addresses=virtual_addresses(service),
            ports=ports,
        ),
    )


def virtual_addresses(service: Service) -> tuple[str, ...]:
    """Return the VIPs of a Service, which nothing is ever sent to; none for a headless one."""
    return usable_addresses((*service.spec.cluster_ips, service.spec.cluster_ip), loopback=True)


def _protocol(view: View, service: Key, port: ServicePort) -> AppProtocol:
    """Return what appProtocol or the port's name declares; an undeclared port is HTTP only where a route says so.

    Guessing HTTP for a port that is not would break protocols in which the server speaks first; guessing TCP breaks
    nothing, and an HTTP route whose parent is the Service says that its author means HTTP.
    """
    if port.app_protocol:
        return AppProtocol.HTTP if port.app_protocol.lower() in _HTTP else AppProtocol.TCP
    name = port.name.lower()
    prefix = name.split("-", 1)[0]
    if name in _HTTP or prefix in _HTTP:
        return AppProtocol.HTTP
    if prefix in _OPAQUE:
        return AppProtocol.TCP
    return AppProtocol.HTTP if _is_routed(view, service, port.port) else AppProtocol.TCP


def _is_routed(view: View, service: Key, port: int) -> bool:
    """Whether an HTTP route of the Service's own namespace names the port as a parent; others have no say here."""
    routes: tuple[tuple[Key, HTTPRoute | GRPCRoute], ...] = (
        *view.by(HTTP_ROUTES, "service", service),
        *view.by(GRPC_ROUTES, "service", service),
    )
    return any(
        ref.kind == "Service" and ref.name == service.name and ref.port in {None, port}
        for key, route in routes
        if key.namespace == service.namespace
        for ref in route.spec.parent_refs
        if (ref.namespace or key.namespace) == service.namespace
    )


def bind_workload(
    view: View, key: tuple[str, Key], enrolment: Enrolment
) -> Iterable[tuple[tuple[Key, Key], WaypointWorkload]]:
    """Return the Pod as its waypoint serves it: by its own addresses, all ports."""
    kind, pod = key
    if kind != "Pod" or enrolment.waypoint is None:
        return
    workload = view.get(WORKLOADS, pod)
    if workload is None:
        return
    yield (
        (enrolment.waypoint, pod),
        WaypointWorkload(
            gateway=enrolment.waypoint,
            pod=pod,
            addresses=workload.addresses,
            identity=workload.identity,
            hbone=workload.hbone,
        ),
    )


def owned_addresses(view: View, row: WaypointService | WaypointWorkload) -> tuple[str, ...]:
    """Return the addresses that are this row's at its waypoint.

    An address that several Services claim is the first one's. One that several Pods claim, or a Pod and a Service, is
    no Pod's: nobody can say whose identity belongs to it.
    """
    owned = []
    for address in row.addresses:
        place = (row.gateway, address)
        services = view.by(WAYPOINT_SERVICES, "address", place)
        if isinstance(row, WaypointService):
            mine = services[0][1].service == row.service
        else:
            mine = not services and len(view.by(WAYPOINT_WORKLOADS, "address", place)) == 1
        if mine:
            owned.append(address)
    return tuple(owned)


def service_target(service: Key, port: WaypointPort) -> BackendTarget:
    """Return the cluster behind a service port without routes."""
    protocol = "" if port.protocol is AppProtocol.HTTP else "tcp"
    return BackendTarget("Service", service.namespace, service.name, port.port, protocol)
