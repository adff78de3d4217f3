"""Resources as JSON-like values, for people and for static configurations."""

from __future__ import annotations

from typing import Any, Final

from meshgw.emit.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTE_CONFIGURATION, SECRET, SHORT_NAMES, Resource
from meshgw.emit.tables import RESOURCES
from meshgw.engine import View
from meshgw.protos import (
    Cluster,
    ClusterLoadAssignment,
    Listener,
    Message,
    MessageToDict,
    RouteConfiguration,
    Secret,
)

REDACTED: Final = "[redacted]"

MESSAGES: Final[dict[str, type[Message]]] = {
    LISTENER: Listener,
    ROUTE_CONFIGURATION: RouteConfiguration,
    CLUSTER: Cluster,
    ENDPOINTS: ClusterLoadAssignment,
    SECRET: Secret,
}
"""The message of each type of resource."""


def dump(resource: Resource) -> dict[str, Any]:
    """Return the resource as JSON has it, field names as in Envoy's documentation, private keys left out."""
    document = reveal(resource)
    if "private_key" in document.get("tls_certificate", {}):
        document["tls_certificate"]["private_key"] = {"inline_string": REDACTED}
    return document


def reveal(resource: Resource) -> dict[str, Any]:
    """Return the same with private keys: for a configuration that is to run, never for display."""
    message = MESSAGES[resource.type_url].FromString(resource.body)
    if isinstance(message, RouteConfiguration):
        message.virtual_hosts.sort(key=lambda host: host.name)  # the order of their shards says nothing to people
    document: dict[str, Any] = _ordered(MessageToDict(message, preserving_proto_field_name=True))
    return document


_FIRST: Final = {"@type": 0, "name": 1}


def _ordered(value: Any) -> Any:
    """Plain mappings in one order: that of protobuf maps differs from process to process."""
    if isinstance(value, dict):
        return {name: _ordered(value[name]) for name in sorted(value, key=lambda name: (_FIRST.get(name, 2), name))}
    return [_ordered(item) for item in value] if isinstance(value, list) else value


def render_resources(view: View) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return every Gateway's resources by discovery service (LDS, RDS, CDS, EDS, SDS), all in order of name."""
    gateways: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for key, resource in view.all(RESOURCES):
        services = gateways.setdefault(str(key.gateway), {})
        services.setdefault(SHORT_NAMES[key.type_url], []).append(dump(resource))
    return gateways
