"""What is deployed for each Gateway in a cluster: the decision, and everything that its objects are made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import structs

from meshgw import names
from meshgw.api import gateway as api
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Gateway, Listener, Protocol, Role
from meshgw.ir.proxy import Deploying, ProxyPlan, ProxyPort, proxy_name
from meshgw.resolve.addresses import usable_address
from meshgw.resolve.conditions import Problem
from meshgw.resolve.infrastructure import read_infrastructure
from meshgw.resolve.parameters import effective_parameters
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import GATEWAY_CLASSES, GATEWAYS, LISTENERS, OUR_GATEWAYS

SERVICE_TYPES: Final = {Role.INGRESS: "LoadBalancer", Role.EGRESS: "ClusterIP", Role.WAYPOINT: "ClusterIP"}
"""The type of a Gateway's Service unless its parameters say another."""
_APP_PROTOCOLS: Final = {Protocol.HTTP: "http", Protocol.HTTPS: "https", Protocol.TLS: "tls", Protocol.TCP: "tcp"}


def plan_proxy(view: View, key: Key, gateway: api.Gateway) -> Iterable[tuple[Key, ProxyPlan]]:
    """Return the decision for a Gateway, if proxies are deployed at all."""
    settings = read_settings(view)
    if not settings.deploys:
        return
    name, parameters = proxy_name(key.name, gateway.spec.gateway_class_name), effective_parameters(view, gateway)
    plan = ProxyPlan(gateway=key, name=name, uid=gateway.metadata.uid)
    row = view.get(OUR_GATEWAYS, key)
    if row is None:
        # A class is recreated to change its controllerName. Meanwhile nobody knows whose its Gateways are.
        its_class = view.get(GATEWAY_CLASSES, Key("", gateway.spec.gateway_class_name))
        if its_class is None or its_class.spec.controller_name == settings.controller_name:
            yield key, _hold(plan, f"there is no GatewayClass {gateway.spec.gateway_class_name}")
        else:
            yield key, structs.replace(plan, deploying=Deploying.RELEASED)
    elif not row.accepted:
        yield key, _hold(plan, "the Gateway is not accepted")
    elif row.held or isinstance(parameters, Problem):
        yield key, _hold(plan, "the parameters cannot be used: what is deployed stays as it is")
    elif other := _older_namesake(view, gateway, name):
        message = f"{name} is the name of the objects of Gateway {other}, which is older"
        found = Finding(code="MG7002", object=ObjectRef("Gateway", *key), field="metadata.name", message=message)
        yield key, _hold(plan, message, found)
    elif parameters.spec.self_managed is not None:
        yield key, structs.replace(plan, deploying=Deploying.SELF_MANAGED)
    elif not (ports := _ports(view, row)):
        yield key, _hold(plan, "no listener is accepted")
    else:
        service = parameters.spec.service
        kind = service.type if service is not None and service.type else SERVICE_TYPES[row.role or Role.INGRESS]
        address, refused = _address(gateway, kind)
        infrastructure = read_infrastructure(gateway)
        yield (
            key,
            structs.replace(
                plan,
                class_name=row.class_name,
                role=row.role,
                labels=infrastructure.labels,
                annotations=infrastructure.annotations,
                ports=ports,
                address=address,
                parameters=parameters.spec,
                overlays=parameters.overlays,
                findings=(*refused, *infrastructure.findings),
            ),
        )


def _hold(plan: ProxyPlan, why: str, *findings: Finding) -> ProxyPlan:
    return structs.replace(plan, deploying=Deploying.HELD, held_by=why, findings=findings)


def _older_namesake(view: View, gateway: api.Gateway, name: str) -> Key | None:
    """Return the Gateway that has the name of the objects: two Gateways must not share proxies and an identity."""
    sharing = [key for key, _row in view.by(OUR_GATEWAYS, "account", Key(gateway.metadata.namespace, name))]
    if len(sharing) < 2:
        return None
    found = ((key, view.get(GATEWAYS, key)) for key in sharing)
    _created, first = min((row.metadata.creation_timestamp or "", key) for key, row in found if row is not None)
    return None if first == gateway.key else first


def _ports(view: View, row: Gateway) -> tuple[ProxyPort, ...]:
    """Return the ports of the Service: those of all accepted listeners, though one may have to wait for a Secret.

    A port that came and went with its certificate would lose its node port and its place at the load balancer.
    """
    if row.role is Role.WAYPOINT:
        return (ProxyPort(names.STATUS_PORT, "TCP", "tcp"), ProxyPort(names.HBONE_PORT, "TCP", "all"))
    found: dict[tuple[int, str], set[Protocol]] = {}
    for _key, listener in view.by(LISTENERS, "gateway", row.key):
        if listener.accepted and listener.protocol is not None:
            found.setdefault((listener.port, _transport(listener)), set()).add(listener.protocol)
    return tuple(ProxyPort(port, transport, _app_protocol(found[port, transport])) for port, transport in sorted(found))


def _transport(listener: Listener) -> str:
    return "UDP" if listener.protocol is Protocol.UDP else "TCP"


def _app_protocol(protocols: set[Protocol]) -> str:
    """Return what a port speaks; one with both HTTPS and TLS listeners speaks TLS."""
    if len(protocols) > 1:
        return "tls"
    return _APP_PROTOCOLS.get(next(iter(protocols)), "")


def _address(gateway: api.Gateway, service_type: str) -> tuple[str, list[Finding]]:
    """Return the address that a Service asks for, and the requested ones that it cannot."""
    taken, refused = "", []
    for position, wanted in enumerate(gateway.spec.addresses):
        if not wanted.value:
            continue
        address = usable_address(wanted.value, loopback=False) if wanted.type == "IPAddress" else ""
        if address and not taken and service_type != "NodePort":
            taken = address
            continue
        message = f"{wanted.type} {wanted.value} is not asked for: a {service_type} Service cannot"
        if taken and address:
            message = f"{wanted.type} {wanted.value} is not asked for: a Service has one address to choose"
        field = f"spec.addresses[{position}]"
        refused.append(Finding(code="MG7003", object=ObjectRef("Gateway", *gateway.key), field=field, message=message))
    return taken, refused
