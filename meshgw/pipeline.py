"""The pipeline: which table is derived from which, by what function.

Read it top to bottom: facts enter, resources leave. A step may read only facts and the tables of steps above it, so
this order is the order of computation. Nothing here does I/O. `docs/architecture.md` draws the same picture.
"""

from __future__ import annotations

from typing import Any

from meshgw import features
from meshgw.api.registry import REGISTRY, Registry
from meshgw.emit import tables as out
from meshgw.emit.cluster import emit_cluster
from meshgw.emit.connect import close_tunnels, emit_connect_hosts
from meshgw.emit.endpoint import emit_endpoints
from meshgw.emit.filters import emit_config_filters
from meshgw.emit.fragments import (
    build_route_config,
    build_virtual_host,
    group_hosts,
    group_route_config,
    group_shards,
    join_shard,
    place_fragments,
)
from meshgw.emit.guards import deny_guards, deny_tunnels, emit_guards, emit_tunnel_guard, group_guards
from meshgw.emit.hbone import emit_originate, group_originate
from meshgw.emit.internal import emit_inbound
from meshgw.emit.listener import emit_port, group_ports
from meshgw.emit.proxy import emit_proxy
from meshgw.emit.route import emit_fragments, group_claims
from meshgw.emit.secret import emit_secret, group_secret_uses, use_secrets
from meshgw.emit.waypoint import emit_waypoint
from meshgw.engine import Derived, Graph, Group, Step, Table, Union
from meshgw.resolve import tables as t
from meshgw.resolve.attach import attach_route, count_attached, merge_attachments
from meshgw.resolve.authorization import deny_authorization, deny_policy, gather_authorization, resolve_policy
from meshgw.resolve.backend_tls import resolve_backend_tls
from meshgw.resolve.certificates import resolve_bundle, resolve_certificate
from meshgw.resolve.classes import resolve_class
from meshgw.resolve.clusters import resolve_cluster, use_clusters
from meshgw.resolve.endpoints import resolve_endpoints
from meshgw.resolve.findings import gather_findings
from meshgw.resolve.gateways import profile_gateway, resolve_gateway
from meshgw.resolve.hostnames import claim_hosts, name_route_configs
from meshgw.resolve.l4 import bind_l4, close_l4, l4_listener
from meshgw.resolve.listeners import resolve_listeners
from meshgw.resolve.listenersets import resolve_listener_sets
from meshgw.resolve.mesh import bind_service, bind_workload, enrol, resolve_admission, resolve_workload
from meshgw.resolve.proxies import plan_proxy
from meshgw.resolve.routes import compile_route
from meshgw.resolve.status import assemble_route_status, assemble_status

FACTS: dict[str, Table[Any, Any]] = {
    "GatewayClass": t.GATEWAY_CLASSES,
    "Gateway": t.GATEWAYS,
    "GatewayParameters": t.GATEWAY_PARAMETERS,
    "ListenerSet": t.LISTENER_SETS,
    "HTTPRoute": t.HTTP_ROUTES,
    "GRPCRoute": t.GRPC_ROUTES,
    "TLSRoute": t.TLS_ROUTES,
    "TCPRoute": t.TCP_ROUTES,
    "UDPRoute": t.UDP_ROUTES,
    "ReferenceGrant": t.REFERENCE_GRANTS,
    "BackendTLSPolicy": t.BACKEND_TLS_POLICIES,
    "AuthorizationPolicy": t.AUTHORIZATION_POLICIES,
    "Namespace": t.NAMESPACES,
    "Service": t.SERVICES,
    "EndpointSlice": t.ENDPOINT_SLICES,
    "Pod": t.PODS,
    "Node": t.NODES,
    "Secret": t.SECRETS,
    "ConfigMap": t.CONFIG_MAPS,
    "ServiceAccount": t.SERVICE_ACCOUNTS,
}
"""Kind to the table of its objects; features add theirs."""

ROUTE_KINDS: tuple[Table[Any, Any], ...] = (t.HTTP_ROUTES, t.GRPC_ROUTES, t.TLS_ROUTES, t.TCP_ROUTES, t.UDP_ROUTES)


RESOLVE: tuple[Step, ...] = (
    # Gateways and their listeners
    Derived(t.CLASSES, source=t.GATEWAY_CLASSES, fn=resolve_class),
    Derived(t.CERTIFICATES, source=t.SECRETS, fn=resolve_certificate),
    Union(t.BUNDLES, sources=(t.CONFIG_MAPS, t.SECRETS), fn=resolve_bundle),
    Derived(t.OUR_GATEWAYS, source=t.GATEWAYS, fn=resolve_gateway),
    Derived(t.GATEWAY_PROFILES, source=t.OUR_GATEWAYS, fn=profile_gateway),
    Derived(t.LISTENERS, source=t.OUR_GATEWAYS, fn=resolve_listeners),
    Derived(t.LISTENER_SET_RESULTS, source=t.LISTENER_SETS, fn=resolve_listener_sets),
    Derived(t.PROXY_PLANS, source=t.GATEWAYS, fn=plan_proxy),
    # What is behind waypoints, and who may call it
    Derived(t.WORKLOADS, source=t.PODS, fn=resolve_workload),
    Derived(t.ADMISSIONS, source=t.GATEWAY_PROFILES, fn=resolve_admission),
    Union(t.ENROLMENTS, sources=(t.SERVICES, t.PODS), fn=enrol),
    Derived(t.WAYPOINT_SERVICES, source=t.ENROLMENTS, fn=bind_service),
    Derived(t.WAYPOINT_WORKLOADS, source=t.ENROLMENTS, fn=bind_workload),
    Derived(t.POLICIES, source=t.AUTHORIZATION_POLICIES, fn=resolve_policy, on_fault=deny_policy),
    Union(
        t.AUTHORIZATIONS,
        sources=(t.WAYPOINT_SERVICES, t.GATEWAY_PROFILES),
        fn=gather_authorization,
        on_fault=deny_authorization,
    ),
    # Routes: where they attach, what they say, which hosts they claim
    Union(t.PARENTS, sources=ROUTE_KINDS, fn=attach_route),
    Group(
        t.ATTACHMENTS,
        source=t.PARENTS,
        by=lambda key, row: [(key[0], listener) for listener, _hosts in row.listeners],
        fn=merge_attachments,
    ),
    Group(t.ATTACHED_COUNTS, source=t.ATTACHMENTS, by=lambda key, _row: (key[1],), fn=count_attached),
    Union(t.ROUTES, sources=ROUTE_KINDS, fn=compile_route),
    Union(t.CONFIG_LISTENERS, sources=(t.LISTENERS, t.WAYPOINT_SERVICES), fn=name_route_configs),
    Union(t.HOSTS, sources=(t.ATTACHMENTS, t.LISTENERS, t.WAYPOINT_SERVICES), fn=claim_hosts),
    Group(t.L4_BINDINGS, source=t.ATTACHMENTS, by=l4_listener, fn=bind_l4, on_fault=close_l4),
    # Backends that something names
    Union(t.CLUSTER_USES, sources=(t.HOSTS, t.L4_BINDINGS, t.WAYPOINT_SERVICES), fn=use_clusters),
    Group(t.CLUSTERS, source=t.CLUSTER_USES, by=lambda key, _row: (key[0],), fn=resolve_cluster),
    Derived(t.ENDPOINTS, source=t.CLUSTERS, fn=resolve_endpoints),
    Derived(t.BACKEND_TLS_RESULTS, source=t.BACKEND_TLS_POLICIES, fn=resolve_backend_tls),
    Group(t.ROUTE_STATUSES, source=t.PARENTS, by=lambda key, _row: (key[0],), fn=assemble_route_status),
)
"""From objects to resolved gateways."""

HAVE_STATUS = (t.CLASSES, t.OUR_GATEWAYS, t.LISTENER_SET_RESULTS, t.BACKEND_TLS_RESULTS, t.ROUTE_STATUSES)
HAVE_FINDINGS = (
    t.CLASSES,
    t.OUR_GATEWAYS,
    t.LISTENERS,
    t.LISTENER_SET_RESULTS,
    t.PROXY_PLANS,
    t.ENROLMENTS,
    t.POLICIES,
    t.PARENTS,
    t.ROUTES,
    t.ENDPOINTS,
    t.BACKEND_TLS_RESULTS,
)

EMIT: tuple[Step, ...] = (
    Group(out.FRAGMENTS, source=t.HOSTS, by=group_claims, fn=emit_fragments),
    Derived(out.PLACED, source=t.HOSTS, fn=place_fragments),
    Group(out.VIRTUAL_HOSTS, source=out.PLACED, by=group_hosts, fn=build_virtual_host),
    Group(out.GUARDS, source=t.CONFIG_LISTENERS, by=group_guards, fn=emit_guards, on_fault=deny_guards),
    Derived(out.TUNNEL_GUARDS, source=t.GATEWAY_PROFILES, fn=emit_tunnel_guard, on_fault=deny_tunnels),
    Group(out.CONFIG_FILTERS, source=t.CONFIG_LISTENERS, by=lambda key, _row: (key[0],), fn=emit_config_filters),
    Group(out.SHARDS, source=out.VIRTUAL_HOSTS, by=group_shards, fn=join_shard),
    Group(out.ROUTE_CONFIGS, source=out.SHARDS, by=group_route_config, fn=build_route_config),
    Group(out.LISTENER_RESOURCES, source=t.LISTENERS, by=group_ports, fn=emit_port),
    Union(out.INBOUND, sources=(t.WAYPOINT_SERVICES, t.WAYPOINT_WORKLOADS), fn=emit_inbound),
    Union(
        out.CONNECT_HOSTS,
        sources=(t.WAYPOINT_SERVICES, t.WAYPOINT_WORKLOADS),
        fn=emit_connect_hosts,
        on_fault=close_tunnels,
    ),
    Derived(out.WAYPOINT_RESOURCES, source=t.OUR_GATEWAYS, fn=emit_waypoint),
    Derived(out.CLUSTER_RESOURCES, source=t.CLUSTERS, fn=emit_cluster),
    Derived(out.ENDPOINT_RESOURCES, source=t.ENDPOINTS, fn=emit_endpoints),
    Union(out.SECRET_USES, sources=(t.LISTENERS, t.OUR_GATEWAYS, t.CLUSTERS), fn=use_secrets),
    Group(out.SECRET_RESOURCES, source=out.SECRET_USES, by=group_secret_uses, fn=emit_secret),
    Group(out.ORIGINATE_RESOURCES, source=out.SECRET_USES, by=group_originate, fn=emit_originate),
    Union(
        out.RESOURCES,
        sources=(
            out.ROUTE_CONFIGS,
            out.LISTENER_RESOURCES,
            out.WAYPOINT_RESOURCES,
            out.CLUSTER_RESOURCES,
            out.ENDPOINT_RESOURCES,
            out.SECRET_RESOURCES,
            out.ORIGINATE_RESOURCES,
        ),
        fn=lambda _view, _table, key, row: ((key, row),),
    ),
    Derived(out.PROXY_OBJECTS, source=t.PROXY_PLANS, fn=emit_proxy),
)
"""From resolved gateways to bytes."""


def list_steps() -> tuple[Step, ...]:
    """Return all steps in order: resolve, what features derive, what everybody is told, emit."""
    added = features.FEATURES
    told = (
        Union(
            t.STATUSES,
            sources=(*HAVE_STATUS, *(table for feature in added for table in feature.statuses)),
            fn=assemble_status,
        ),
        Union(
            t.FINDINGS,
            sources=(*HAVE_FINDINGS, *(table for feature in added for table in feature.findings)),
            fn=gather_findings,
        ),
    )
    return (*RESOLVE, *(step for feature in added for step in feature.steps), *told, *EMIT)


def list_facts() -> dict[str, Table[Any, Any]]:
    """Return the table of each kind's objects, those of features included."""
    return FACTS | {kind: table for feature in features.FEATURES for kind, table in feature.facts.items()}


def list_kinds() -> Registry:
    """Return the registry of all kinds that are read."""
    return REGISTRY.with_kinds(kind for feature in features.FEATURES for kind in feature.kinds)


def build_graph(*, incremental: bool = True) -> Graph:
    """Return an empty pipeline; with `incremental` False every commit computes everything anew (for incidents)."""
    known: list[Table[Any, Any]] = [
        t.SETTINGS,
        t.REMEMBERED_CLASSES,
        t.BINDINGS,
        t.WORKLOAD_CERTIFICATES,
        t.IDENTITY_PROBLEMS,
    ]
    sources = [*known, *list_facts().values()]
    return Graph(sources=sources, steps=list_steps(), incremental=incremental)
