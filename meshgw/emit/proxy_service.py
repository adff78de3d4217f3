"""The Service of a Gateway."""

from __future__ import annotations

from typing import Any, Final

from meshgw import names
from meshgw.api.meshgw import ServiceParameters
from meshgw.emit.proxy_metadata import selector
from meshgw.ir.gateway import Role
from meshgw.ir.proxy import ProxyPlan, ProxyPort
from meshgw.resolve.proxies import SERVICE_TYPES

_WAYPOINT_PORT_NAMES: Final = {names.STATUS_PORT: "status-port", names.HBONE_PORT: "mesh"}


def build_service(plan: ProxyPlan) -> dict[str, Any]:
    """Return the Service without its metadata. Fields that its type does not have are left out."""
    parameters = plan.parameters.service or ServiceParameters()
    kind = parameters.type or SERVICE_TYPES[plan.role or Role.INGRESS]
    node_ports = {entry.port: entry.node_port for entry in parameters.node_ports or ()} if kind != "ClusterIP" else {}
    spec: dict[str, Any] = {
        "type": kind,
        "selector": selector(plan),
        "ports": [_port(plan, port, node_ports.get(port.port)) for port in plan.ports],
        "clusterIP": parameters.cluster_ip or (plan.address if kind == "ClusterIP" else None),
        "internalTrafficPolicy": parameters.internal_traffic_policy,
        "trafficDistribution": parameters.traffic_distribution,
        "ipFamilies": parameters.ip_families,
        "ipFamilyPolicy": parameters.ip_family_policy,
    }
    if kind != "ClusterIP":
        spec["externalTrafficPolicy"] = parameters.external_traffic_policy
    if kind == "LoadBalancer":
        spec["loadBalancerIP"] = plan.address
        spec["loadBalancerClass"] = parameters.load_balancer_class
        spec["loadBalancerSourceRanges"] = parameters.load_balancer_source_ranges
        spec["allocateLoadBalancerNodePorts"] = parameters.allocate_load_balancer_node_ports
    return {"spec": {name: value for name, value in spec.items() if value not in (None, "", ())}}


def _port(plan: ProxyPlan, port: ProxyPort, node_port: int | None) -> dict[str, Any]:
    """Return a port. Its name does not depend on what it speaks, so that it stays when the protocol changes."""
    name = f"{port.transport.lower()}-{port.port}"
    if plan.role is Role.WAYPOINT:
        name = _WAYPOINT_PORT_NAMES.get(port.port, name)
    return {
        "name": name,
        "port": port.port,
        "targetPort": port.port,
        "protocol": port.transport,
        **({"appProtocol": port.app_protocol} if port.app_protocol else {}),
        **({"nodePort": node_port} if node_port else {}),
    }
