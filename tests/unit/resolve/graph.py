"""A graph of the steps from documents to attachments and host claims, fed with YAML text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from meshgw.api.decode import decode
from meshgw.api.meta import Key
from meshgw.engine import Derived, Graph, Group, Table, Union
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Gateway, Listener, ListenerSetResult
from meshgw.ir.keys import ListenerKey
from meshgw.ir.mesh import AppProtocol, WaypointPort, WaypointService
from meshgw.ir.route import Parent
from meshgw.ir.status import Condition
from meshgw.resolve import tables as t
from meshgw.resolve.attach import attach_route, count_attached, merge_attachments
from meshgw.resolve.certificates import resolve_bundle, resolve_certificate
from meshgw.resolve.classes import resolve_class
from meshgw.resolve.gateways import profile_gateway, resolve_gateway
from meshgw.resolve.hostnames import claim_hosts
from meshgw.resolve.listeners import resolve_listeners
from meshgw.resolve.listenersets import resolve_listener_sets
from tests.rig.certs import authority

_KINDS: Mapping[str, Table[Key, Any]] = {
    "GatewayClass": t.GATEWAY_CLASSES,
    "Gateway": t.GATEWAYS,
    "ListenerSet": t.LISTENER_SETS,
    "HTTPRoute": t.HTTP_ROUTES,
    "GRPCRoute": t.GRPC_ROUTES,
    "TLSRoute": t.TLS_ROUTES,
    "TCPRoute": t.TCP_ROUTES,
    "UDPRoute": t.UDP_ROUTES,
    "ReferenceGrant": t.REFERENCE_GRANTS,
    "Namespace": t.NAMESPACES,
    "Service": t.SERVICES,
    "Secret": t.SECRETS,
    "ConfigMap": t.CONFIG_MAPS,
}
_ROUTES = (t.HTTP_ROUTES, t.GRPC_ROUTES, t.TLS_ROUTES, t.TCP_ROUTES, t.UDP_ROUTES)
_STEPS = (
    Derived(t.CLASSES, source=t.GATEWAY_CLASSES, fn=resolve_class),
    Derived(t.CERTIFICATES, source=t.SECRETS, fn=resolve_certificate),
    Union(t.BUNDLES, sources=(t.CONFIG_MAPS, t.SECRETS), fn=resolve_bundle),
    Derived(t.OUR_GATEWAYS, source=t.GATEWAYS, fn=resolve_gateway),
    Derived(t.GATEWAY_PROFILES, source=t.OUR_GATEWAYS, fn=profile_gateway),
    Derived(t.LISTENERS, source=t.OUR_GATEWAYS, fn=resolve_listeners),
    Derived(t.LISTENER_SET_RESULTS, source=t.LISTENER_SETS, fn=resolve_listener_sets),
    Union(t.PARENTS, sources=_ROUTES, fn=attach_route),
    Group(
        t.ATTACHMENTS,
        source=t.PARENTS,
        by=lambda key, row: [(key[0], listener) for listener, _hosts in row.listeners],
        fn=merge_attachments,
    ),
    Group(t.ATTACHED_COUNTS, source=t.ATTACHMENTS, by=lambda key, _row: (key[1],), fn=count_attached),
    Union(t.HOSTS, sources=(t.ATTACHMENTS, t.LISTENERS, t.WAYPOINT_SERVICES), fn=claim_hosts),
)


GOOD = {
    "Accepted": "True/Accepted",
    "Conflicted": "False/NoConflicts",
    "Programmed": "True/Programmed",
    "ResolvedRefs": "True/ResolvedRefs",
}
"""Conditions of a listener that serves."""


HTTP = "name: http, port: 80, protocol: HTTP"
HTTPS = "name: https, port: 443, protocol: HTTPS"
ADMIT_ALL = "  allowedListeners: {namespaces: {from: All}}"


def certificate(ref: str = "{name: cert}", mode: str = "Terminate") -> str:
    """Return the `tls` of a listener."""
    return f"tls: {{mode: {mode}, certificateRefs: [{ref}]}}"


def new_graph() -> Graph:
    return Graph(
        sources=[t.SETTINGS, t.REMEMBERED_CLASSES, t.BINDINGS, t.WAYPOINT_SERVICES, *_KINDS.values()], steps=_STEPS
    )


def parse(text: str) -> dict[Table[Any, Any], dict[Any, Any]]:
    """Return the objects of a multi-document YAML text as a commit."""
    rows: dict[Table[Any, Any], dict[Any, Any]] = {}
    for document in yaml.load_all(text, yaml.CSafeLoader):
        document.setdefault("apiVersion", _api_version(document["kind"]))
        decoded = decode(document)
        assert decoded.object is not None, decoded.problems
        rows.setdefault(_KINDS[document["kind"]], {})[decoded.object.key] = decoded.object
    return rows


def _api_version(kind: str) -> str:
    return "v1" if kind in {"Namespace", "Service", "Secret", "ConfigMap"} else "gateway.networking.k8s.io/v1"


def resolve(text: str, *, facts: Mapping[Table[Any, Any], Mapping[Any, Any]] | None = None) -> Graph:
    """Return the graph of some YAML documents; no step may have failed."""
    graph = new_graph()
    change(graph, text, facts=facts)
    return graph


def change(graph: Graph, text: str = "", *, facts: Mapping[Table[Any, Any], Mapping[Any, Any]] | None = None) -> Any:
    """Commit some documents and rows, and return the delta."""
    delta = graph.commit({**(parse(text) if text else {}), **(facts or {})})
    assert delta.faults == ()
    return delta


def gateway(graph: Graph, name: str = "gw", namespace: str = "default") -> Gateway:
    row = graph.get(t.OUR_GATEWAYS, Key(namespace, name))
    assert row is not None
    return row


def listener(graph: Graph, name: str, *, owner: str = "", gateway: str = "gw", namespace: str = "default") -> Listener:
    """Return a listener of the Gateway default/gw, or with `owner` ("namespace/name") of a ListenerSet of it."""
    parent = Key(namespace, gateway)
    kind, key = ("ListenerSet", Key(*owner.split("/"))) if owner else ("Gateway", parent)
    row = graph.get(t.LISTENERS, ListenerKey(parent, kind, key, name))
    assert row is not None
    return row


def listener_set(graph: Graph, name: str, namespace: str = "default") -> ListenerSetResult:
    row = graph.get(t.LISTENER_SET_RESULTS, Key(namespace, name))
    assert row is not None
    return row


def parents(graph: Graph, name: str = "route") -> list[Parent]:
    """Return what became of the parentRefs of the routes with a name, in order."""
    return [row for (route, _position), row in sorted(graph.rows(t.PARENTS).items()) if route.name == name]


def reasons(graph: Graph, name: str = "route") -> list[str]:
    return [row.reason for row in parents(graph, name)]


def listeners_of(graph: Graph, name: str = "route") -> list[str]:
    """Return the names of the listeners that the routes with a name attach to."""
    return sorted(key.name for route, key in graph.rows(t.ATTACHMENTS) if route.name == name)


def shown(conditions: Iterable[Condition]) -> dict[str, str]:
    """Return conditions as "True/Reason" by type."""
    return {item.type: f"{item.status}/{item.reason}" for item in conditions}


def codes(findings: Iterable[Finding]) -> list[str]:
    return sorted(finding.code for finding in findings)


def gw(*listeners: str, extra: str = "", class_name: str = "meshgw", name: str = "gw") -> str:
    """Return a Gateway of generation 5; each listener is the inside of a flow mapping, `extra` goes under spec."""
    return f"""
kind: Gateway
metadata: {{name: {name}, generation: 5}}
spec:
  gatewayClassName: {class_name}
  listeners: [{", ".join("{" + item + "}" for item in listeners)}]
{extra}
"""


def lset(
    name: str, *listeners: str, namespace: str = "default", created: str = "2026-01-01T00:00:00Z", parent: str = ""
) -> str:
    """Return a ListenerSet of generation 9 for the Gateway default/gw; `parent` adds to its parentRef."""
    return f"""
---
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}, generation: 9, creationTimestamp: '{created}'}}
spec:
  parentRef: {{name: gw, namespace: default{parent}}}
  listeners: [{", ".join("{" + item + "}" for item in listeners)}]
"""


def secret(name: str, namespace: str = "default", host: str = "example.com") -> str:
    """Return a document with a good certificate."""
    return "---\n" + yaml.safe_dump(authority().issue(host).secret(name, namespace))


def config_map(name: str, namespace: str = "default") -> str:
    """Return a document with a good CA bundle."""
    return "---\n" + yaml.safe_dump(authority().config_map(name, namespace))


def grant(namespace: str, *, kind: str, source: str, to: str = "Secret", name: str = "") -> str:
    """Return a ReferenceGrant of a namespace for objects of one kind and namespace."""
    spec = {
        "from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": source}],
        "to": [{"group": "", "kind": to, **({"name": name} if name else {})}],
    }
    metadata = {"name": f"{kind}-{source}-{to}-{name or 'all'}".lower(), "namespace": namespace}
    return "---\n" + yaml.safe_dump({"kind": "ReferenceGrant", "metadata": metadata, "spec": spec})


def waypoint_service(service: str, *, http: Iterable[int] = (), tcp: Iterable[int] = ()) -> Mapping[Any, Any]:
    """Return a Service of the default namespace behind the waypoint default/waypoint, as facts."""
    waypoint, key = Key("default", "waypoint"), Key("default", service)
    ports = [WaypointPort(port=port) for port in http]
    ports += [WaypointPort(port=port, protocol=AppProtocol.TCP) for port in tcp]
    row = WaypointService(
        gateway=waypoint, service=key, hostname=f"{service}.default.svc.cluster.local", ports=tuple(ports)
    )
    return {t.WAYPOINT_SERVICES: {(waypoint, key): row}}
