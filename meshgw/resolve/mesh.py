"""Who is behind which waypoint, and which workloads speak HBONE (Istio ambient's labels)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshgw import names
from meshgw.api.core import Pod, Service, ServicePort
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import Table, View
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import AllowedNamespaces, Gateway, Protocol, Role, Settings, WaypointFor
from meshgw.ir.keys import BackendTarget
from meshgw.ir.mesh import AppProtocol, Enrolment, WaypointPort, WaypointService, WaypointWorkload, Workload
from meshgw.resolve.namespaces import admits
from meshgw.resolve.tables import (
    GATEWAYS,
    GRPC_ROUTES,
    HTTP_ROUTES,
    LISTENERS,
    NAMESPACES,
    OUR_GATEWAYS,
    PODS,
    SERVICES,
    SETTINGS,
    SINGLE,
    WORKLOADS,
)

_OPT_OUT = "none"
_FINISHED = frozenset({"Succeeded", "Failed"})
_HTTP = frozenset({"http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"})
"""Values of appProtocol, and prefixes of port names, whose first bytes are HTTP."""


def resolve_workload(view: View, key: Key, pod: Pod) -> Iterable[tuple[Key, Workload]]:
    """Return the Pod as the mesh sees it, unless it is finished, has no address or shares its node's."""
    if pod.status is None or pod.status.phase in _FINISHED or pod.spec.host_network:
        return
    addresses = sorted({ip.ip for ip in pod.status.pod_ips if ip.ip} | ({pod.status.pod_ip} - {"", None}))
    if not addresses:
        return
    account = pod.spec.service_account_name or "default"
    trust_domain = _settings(view).trust_domain
    yield (
        key,
        Workload(
            pod=key,
            addresses=tuple(addresses),
            identity=f"spiffe://{trust_domain}/ns/{key.namespace}/sa/{account}",
            hbone=_speaks_hbone(pod),
        ),
    )


def _speaks_hbone(pod: Pod) -> bool:
    """Captured by a node proxy (the annotation is written after capture), or HBONE by itself."""
    captured = pod.metadata.annotations.get(names.ANNOTATION_REDIRECTION) == "enabled"
    return captured or "http" in pod.metadata.labels.get(names.LABEL_TUNNEL, "").split(",")


def enrol(
    view: View, table: Table[Any, Any], key: Key, row: Service | Pod
) -> Iterable[tuple[tuple[str, Key], Enrolment]]:
    """Follow `istio.io/use-waypoint` of a Service or Pod; its own label beats its Namespace's (no fallback)."""
    kind = "Service" if table is SERVICES else "Pod"
    labels = row.metadata.labels
    if names.LABEL_USE_WAYPOINT not in labels:
        namespace = view.get(NAMESPACES, Key("", key.namespace))
        labels = namespace.metadata.labels if namespace else {}
    name = labels.get(names.LABEL_USE_WAYPOINT, "")
    if not name or name == _OPT_OUT:
        return
    waypoint = Key(labels.get(names.LABEL_USE_WAYPOINT_NAMESPACE) or key.namespace, name)
    if kind == "Pod" and row.metadata.labels.get(names.LABEL_GATEWAY_NAME) == name:
        return  # the waypoint's own pods are not behind it
    finding = _refusal(view, kind, key, waypoint)
    if finding is None and view.get(OUR_GATEWAYS, waypoint) is None:
        return  # another controller's waypoint
    yield (
        (kind, key),
        Enrolment(
            kind=kind,
            key=key,
            waypoint=None if finding else waypoint,
            findings=(finding,) if finding else (),
        ),
    )


def _refusal(view: View, kind: str, key: Key, waypoint: Key) -> Finding | None:
    """Return why the waypoint does not take this object, or None."""
    ref = ObjectRef(kind, key.namespace, key.name)
    where = f"metadata.labels[{names.LABEL_USE_WAYPOINT}]"
    if view.get(GATEWAYS, waypoint) is None:
        return Finding(
            code="MG5001", object=ref, field=where, message=f"no Gateway {waypoint.namespace}/{waypoint.name}"
        )
    gateway = view.get(OUR_GATEWAYS, waypoint)
    if gateway is None:
        return None
    if gateway.role is not Role.WAYPOINT or not gateway.accepted:
        message = f"Gateway {waypoint.namespace}/{waypoint.name} is not an accepted waypoint"
        return Finding(code="MG5001", object=ref, field=where, message=message)
    if not _allows(view, gateway, key.namespace):
        message = f"waypoint {waypoint.namespace}/{waypoint.name} does not admit namespace {key.namespace}"
        return Finding(code="MG5002", object=ref, field=where, message=message)
    wanted = WaypointFor.SERVICE if kind == "Service" else WaypointFor.WORKLOAD
    if gateway.waypoint_for not in {wanted, WaypointFor.ALL}:
        if kind == "Pod":
            return None  # the usual case: a namespace is enrolled and the waypoint is for services
        message = f"waypoint {waypoint.namespace}/{waypoint.name} is for {gateway.waypoint_for.value} traffic"
        return Finding(code="MG5003", object=ref, field=where, message=message)
    return None


def _allows(view: View, gateway: Gateway, namespace: str) -> bool:
    """Whether the HBONE listener's allowedRoutes admit the namespace; without such a listener only the Gateway's own."""
    for _key, listener in view.by(LISTENERS, "gateway", gateway.key):
        if listener.protocol is Protocol.HBONE and listener.port == names.HBONE_PORT:
            return admits(view, listener.namespaces, owner=gateway.key.namespace, namespace=namespace)
    return admits(view, AllowedNamespaces(), owner=gateway.key.namespace, namespace=namespace)


def bind_service(
    view: View, key: tuple[str, Key], enrolment: Enrolment
) -> Iterable[tuple[tuple[Key, Key], WaypointService]]:
    """Return the Service as its waypoint serves it: by virtual IP and port."""
    kind, service_key = key
    if kind != "Service" or enrolment.waypoint is None:
        return
    service = view.get(SERVICES, service_key)
    if service is None:
        return
    ports = tuple(
        WaypointPort(port=port.port, protocol=_protocol(view, service_key, port))
        for port in sorted(service.spec.ports, key=lambda port: port.port)
        if port.protocol == "TCP"
    )
    yield (
        (enrolment.waypoint, service_key),
        WaypointService(
            gateway=enrolment.waypoint,
            service=service_key,
            hostname=f"{service_key.name}.{service_key.namespace}.svc.{_settings(view).cluster_domain}",
            addresses=virtual_addresses(service),
            ports=ports,
        ),
    )


def virtual_addresses(service: Service) -> tuple[str, ...]:
    """Return the VIPs of a Service, sorted; none for a headless one."""
    spec = service.spec
    return tuple(sorted({ip for ip in (*spec.cluster_ips, spec.cluster_ip) if ip and ip != "None"}))


def _protocol(view: View, service: Key, port: ServicePort) -> AppProtocol:
    """Declared by appProtocol or the port's name; an undeclared port is HTTP only where an HTTP route names the Service.

    Guessing HTTP for a port that is not would break protocols in which the server speaks first; guessing TCP breaks
    nothing, and a route on the Service says that its author means HTTP.
    """
    if port.app_protocol:
        return AppProtocol.HTTP if port.app_protocol.lower() in _HTTP else AppProtocol.TCP
    prefix = (port.name or "").lower()
    if prefix in _HTTP or prefix.split("-", 1)[0] in _HTTP:
        return AppProtocol.HTTP
    if prefix.split("-", 1)[0] in _TCP:
        return AppProtocol.TCP
    routed = view.by(HTTP_ROUTES, "service", service) or view.by(GRPC_ROUTES, "service", service)
    return AppProtocol.HTTP if routed else AppProtocol.TCP


_TCP = frozenset({"tcp", "tls", "https", "mysql", "mongo", "redis"})


def bind_workload(
    view: View, key: tuple[str, Key], enrolment: Enrolment
) -> Iterable[tuple[tuple[Key, Key], WaypointWorkload]]:
    """Return the Pod as its waypoint serves it: by its own addresses, all ports."""
    kind, pod = key
    if kind != "Pod" or enrolment.waypoint is None:
        return
    gateway = view.get(OUR_GATEWAYS, enrolment.waypoint)
    workload = view.get(WORKLOADS, pod)
    if workload is None or gateway is None or gateway.waypoint_for not in {WaypointFor.WORKLOAD, WaypointFor.ALL}:
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


def service_target(service: Key, port: int) -> BackendTarget:
    """Return the cluster behind a service port without routes."""
    return BackendTarget("Service", service.namespace, service.name, port)


def _settings(view: View) -> Settings:
    return view.get(SETTINGS, SINGLE) or Settings()
