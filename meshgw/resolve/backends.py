"""References to backends: whether they may be used, and what they lead to."""

from __future__ import annotations

from meshgw.api.core import Service, ServicePort
from meshgw.api.gateway import BackendObjectReference
from meshgw.api.meta import Key
from meshgw.engine import View
from meshgw.ir.keys import BackendTarget
from meshgw.ir.route import RefsReason
from meshgw.names import CORE_GROUP, GATEWAY_GROUP
from meshgw.resolve.grants import kind_name, permitted
from meshgw.resolve.report import BadRef, Report
from meshgw.resolve.tables import BACKEND_TLS_POLICIES, SERVICES

GRPC = "grpc"
TCP = "tcp"
TERMINATED = "tcp+tls"
"""Bytes of a TLS connection that the Gateway ended: unlike other TCP, a BackendTLSPolicy applies to them."""
UDP = "udp"
"""What a route asks of a backend (`BackendTarget.protocol`); "" is HTTP as the Service has it."""

_STANDARD = "kubernetes.io/"
_SECURE_WEBSOCKET = "kubernetes.io/wss"
_HTTP_PROTOCOLS = frozenset({"kubernetes.io/h2c", "kubernetes.io/ws", _SECURE_WEBSOCKET})
_GRPC_PROTOCOLS = frozenset({"kubernetes.io/h2c"})


def resolve_backend(
    view: View, report: Report, field: str, ref: BackendObjectReference, protocol: str
) -> BackendTarget | BadRef:
    """Return what a reference leads to, or the first reason why it may not be used.

    Permission is checked before existence, so that nobody learns what is in a namespace that has not granted it.
    """
    referrer = report.object
    if (ref.group, ref.kind) != (CORE_GROUP, "Service"):
        kind = kind_name(ref.group, ref.kind)
        return BadRef(RefsReason.INVALID_KIND, f"a backend of kind {kind} is not supported: use a Service")
    key = Key(ref.namespace or referrer.namespace, ref.name)
    if not permitted(
        view,
        group=GATEWAY_GROUP,
        kind=referrer.kind,
        namespace=referrer.namespace,
        to_group=CORE_GROUP,
        to_kind="Service",
        to=key,
    ):
        message = f"no ReferenceGrant in namespace {key.namespace} permits {referrer.kind} {referrer.key} Service {key}"
        return BadRef(RefsReason.NOT_PERMITTED, message)
    service = view.get(SERVICES, key)
    if service is None:
        return BadRef(RefsReason.NOT_FOUND, f"Service {key} does not exist")
    if service.spec.type == "ExternalName":
        return BadRef(RefsReason.INVALID_KIND, f"Service {key} is of type ExternalName, which is not supported")
    port = find_port(service, ref.port or 0, protocol)
    if port is None:
        transport = transport_of(protocol)
        named = f"{transport} port {ref.port}" if ref.port else f"{transport} port, as none is named"
        return BadRef(RefsReason.NOT_FOUND, f"Service {key} has no {named}")
    return _check_protocol(view, report, field, key, port, protocol=protocol) or BackendTarget(
        "Service", *key, port.port, protocol
    )


def transport_of(protocol: str) -> str:
    """Return the transport protocol below what a route asks for."""
    return "UDP" if protocol == UDP else "TCP"


def find_port(service: Service, number: int, protocol: str) -> ServicePort | None:
    """Return the Service's port of that number and transport protocol."""
    transport = transport_of(protocol)
    return next((port for port in service.spec.ports if port.port == number and port.protocol == transport), None)


def app_protocol(port: ServicePort) -> str:
    """Return the port's appProtocol in lower case, "" if it declares none."""
    return (port.app_protocol or "").lower()


def _check_protocol(
    view: View, report: Report, field: str, key: Key, port: ServicePort, *, protocol: str
) -> BadRef | None:
    """Return why a route of this kind cannot speak the port's appProtocol (GEP-1911)."""
    spoken = app_protocol(port)
    if protocol not in {"", GRPC} or not spoken:
        return None
    known = _GRPC_PROTOCOLS if protocol == GRPC else _HTTP_PROTOCOLS
    if spoken.startswith(_STANDARD) and spoken not in known:
        message = f"Service {key} port {port.port} speaks {port.app_protocol}, which {report.object.kind} cannot"
        return BadRef(RefsReason.UNSUPPORTED_PROTOCOL, message)
    if spoken not in {_SECURE_WEBSOCKET, "https"} or _has_policy(view, key, port):
        return None
    if spoken == _SECURE_WEBSOCKET:
        message = f"Service {key} port {port.port} speaks {port.app_protocol}, which needs a BackendTLSPolicy"
        return BadRef(RefsReason.UNSUPPORTED_PROTOCOL, message)
    report.remark("MG2008", field, f"Service {key} port {port.port} declares https and has no BackendTLSPolicy")
    return None


def _has_policy(view: View, service: Key, port: ServicePort) -> bool:
    """Whether some BackendTLSPolicy, good or bad, targets the port."""
    policies = view.by(BACKEND_TLS_POLICIES, "target", (CORE_GROUP, "Service", *service))
    return any(
        ref.kind == "Service" and ref.name == service.name and ref.section_name in {None, "", port.name}
        for _key, policy in policies
        for ref in policy.spec.target_refs
    )
