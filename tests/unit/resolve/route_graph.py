"""The steps from routes to endpoints as one graph, fed with YAML; what comes before them are facts here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from meshgw.api.defaults import apply_defaults
from meshgw.api.meta import Key
from meshgw.api.registry import REGISTRY
from meshgw.engine import Derived, Graph, Group, Table, Union
from meshgw.ir.backend import Cluster, Endpoints
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Gateway, Role, Settings
from meshgw.ir.keys import BackendTarget, ClusterKey, RouteConfigKey, RouteKey
from meshgw.ir.mesh import Authorization, AuthorizationPolicy
from meshgw.ir.route import HostEntry, HostKind, Route, Rule
from meshgw.resolve import tables as t
from meshgw.resolve.authorization import WORKLOADS_OF
from meshgw.resolve.backend_tls import resolve_backend_tls
from meshgw.resolve.clusters import resolve_cluster, use_clusters
from meshgw.resolve.endpoints import resolve_endpoints
from meshgw.resolve.l4 import bind_l4, l4_listener
from meshgw.resolve.routes import compile_route

GATEWAY = Key("infra", "edge")

KINDS: Mapping[str, Table[Any, Any]] = {
    "HTTPRoute": t.HTTP_ROUTES,
    "GRPCRoute": t.GRPC_ROUTES,
    "TLSRoute": t.TLS_ROUTES,
    "TCPRoute": t.TCP_ROUTES,
    "UDPRoute": t.UDP_ROUTES,
    "ReferenceGrant": t.REFERENCE_GRANTS,
    "BackendTLSPolicy": t.BACKEND_TLS_POLICIES,
    "Service": t.SERVICES,
    "EndpointSlice": t.ENDPOINT_SLICES,
    "Node": t.NODES,
}
FACTS = (
    t.SETTINGS,
    t.REMEMBERED_CLASSES,
    *KINDS.values(),
    t.BUNDLES,
    t.OUR_GATEWAYS,
    t.GATEWAY_PROFILES,
    t.LISTENERS,
    t.WORKLOADS,
    t.AUTHORIZATIONS,
    t.ATTACHMENTS,
    t.HOSTS,
    t.WAYPOINT_SERVICES,
)
STEPS = (
    Union(t.ROUTES, sources=[table for kind, table in KINDS.items() if kind.endswith("Route")], fn=compile_route),
    Group(t.L4_BINDINGS, source=t.ATTACHMENTS, by=l4_listener, fn=bind_l4),
    Union(t.CLUSTER_USES, sources=[t.HOSTS, t.L4_BINDINGS, t.WAYPOINT_SERVICES], fn=use_clusters),
    Group(t.CLUSTERS, source=t.CLUSTER_USES, by=lambda key, _row: (key[0],), fn=resolve_cluster),
    Derived(t.ENDPOINTS, source=t.CLUSTERS, fn=resolve_endpoints),
    Derived(t.BACKEND_TLS_RESULTS, source=t.BACKEND_TLS_POLICIES, fn=resolve_backend_tls),
)


class World:
    """A graph with one Gateway, and the way to change and read it."""

    def __init__(self, text: str = "", *, incremental: bool = True, **settings: Any) -> None:
        self.graph = Graph(sources=FACTS, steps=STEPS, incremental=incremental)
        self.commit({t.SETTINGS: {t.SINGLE: Settings(**settings)}})
        self.gateway()
        if text:
            self.put(text)

    def commit(self, changes: Mapping[Any, Any]) -> Any:
        delta = self.graph.commit(changes)
        assert delta.faults == ()
        return delta

    def put(self, text: str) -> Any:
        changes: dict[Any, dict[Any, Any]] = {}
        for document in yaml.safe_load_all(text):
            table = KINDS[document["kind"]]
            row = parse(document)
            changes.setdefault(table, {})[row.key] = row
        return self.commit(changes)

    def remove(self, table: Table[Any, Any], *keys: Any) -> Any:
        return self.commit({table: dict.fromkeys(keys)})

    def gateway(self, key: Key = GATEWAY, **fields: Any) -> None:
        row = Gateway(**{"key": key, "class_name": "meshgw", "role": Role.INGRESS, "accepted": True} | fields)
        self.commit({t.OUR_GATEWAYS: {key: row}, t.GATEWAY_PROFILES: {key: row}})
        self.guard(key)

    def guard(self, key: Key = GATEWAY, *policies: AuthorizationPolicy) -> None:
        self.commit({t.AUTHORIZATIONS: {(key, WORKLOADS_OF): Authorization(policies=policies)}})

    def route(self, name: str, kind: str = "HTTPRoute", namespace: str = "default") -> Route:
        row = self.graph.get(t.ROUTES, RouteKey(kind, namespace, name))
        assert row is not None
        return row

    def rule(self, name: str, position: int = 0, kind: str = "HTTPRoute") -> Rule:
        return self.route(name, kind).rules[position]

    def claim(self, name: str, kind: str = "HTTPRoute", gateway: Key = GATEWAY, domain: str = "*") -> None:
        key = (RouteConfigKey(gateway, "http/80"), domain, RouteKey(kind, "default", name))
        self.commit({t.HOSTS: {key: HostEntry(kind=HostKind.ROUTE, port=80)}})

    def reach(self, target: BackendTarget, gateway: Key = GATEWAY) -> ClusterKey:
        """Use a backend as a service port without routes does."""
        config = RouteConfigKey(gateway, f"service/{target.cluster}")
        entry = HostEntry(kind=HostKind.DEFAULT, port=target.port, target=target)
        self.commit({t.HOSTS: {(config, "*", RouteKey("", "", "")): entry}})
        return ClusterKey(gateway, target)

    def cluster(self, target: BackendTarget, gateway: Key = GATEWAY) -> Cluster | None:
        return self.graph.get(t.CLUSTERS, ClusterKey(gateway, target))

    def endpoints(self, target: BackendTarget, gateway: Key = GATEWAY) -> Endpoints:
        row = self.graph.get(t.ENDPOINTS, self.reach(target, gateway))
        assert row is not None
        return row


def parse(document: dict[str, Any]) -> Any:
    """An object with defaults, without the checks that the API server would make of its whole."""
    kind = REGISTRY.by_name(document["kind"])
    assert kind is not None
    return apply_defaults(kind, msgspec.convert(document, kind.struct))


def service(name: str = "web", *, ports: str = "[{port: 80}]", namespace: str = "default", more: str = "") -> str:
    return f"---\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{ports: {ports}{more}}}\n"


def http_route(rules: str, name: str = "r", namespace: str = "default", created: str = "") -> str:
    metadata = (
        f"{{name: {name}, namespace: {namespace}" + (f", creationTimestamp: '{created}'" if created else "") + "}"
    )
    return f"---\nkind: HTTPRoute\nmetadata: {metadata}\nspec: {{rules: {rules}}}\n"


def web(port: int = 80, protocol: str = "", name: str = "web", namespace: str = "default") -> BackendTarget:
    return BackendTarget("Service", namespace, name, port, protocol)


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in findings]
