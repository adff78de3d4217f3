"""Clusters: which backends the Gateways need, and how each is to be reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from meshgw.api.core import ServicePort
from meshgw.api.meta import Key
from meshgw.engine import View
from meshgw.ir.backend import Cluster, UpstreamProtocol
from meshgw.ir.gateway import Gateway, Role
from meshgw.ir.keys import BackendTarget, ClusterKey, ListenerKey, RouteConfigKey, RouteKey
from meshgw.ir.mesh import AppProtocol, WaypointService
from meshgw.ir.route import Backend, Filters, HostEntry, HostKind, L4Binding, Route
from meshgw.resolve.backend_tls import UNGOVERNED, governing_policy, judge
from meshgw.resolve.backends import GRPC, TCP, TERMINATED, UDP, app_protocol, find_port
from meshgw.resolve.mesh import service_target
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import GATEWAY_PROFILES, ROUTES, SERVICES

Use = tuple[str, ...]
"""Who names a cluster, as strings only, so that uses of all sorts can be sorted together."""

_HTTP2 = frozenset({"kubernetes.io/h2c", "http2", "grpc", "grpc-web", "h2c"})
_WEBSOCKET = frozenset({"kubernetes.io/ws", "kubernetes.io/wss"})
_OPAQUE = {TCP: UpstreamProtocol.TCP, TERMINATED: UpstreamProtocol.TCP, UDP: UpstreamProtocol.UDP}


def use_clusters(
    view: View, _table: Any, key: Any, row: HostEntry | L4Binding | WaypointService
) -> Iterable[tuple[tuple[ClusterKey, Use], bool]]:
    """Return the clusters that a claim on a host, an L4 listener or a service behind a waypoint sends traffic to."""
    if isinstance(row, L4Binding):
        gateway, use = row.listener.gateway, _listener_use(row.listener)
        targets = _distinct(backend.target for chain in row.chains for backend in chain.backends)
    elif isinstance(row, WaypointService):
        gateway, use = row.gateway, ("service", *row.service)
        targets = _opaque_targets(row)
    else:
        config, domain, claimant = key
        gateway, use = config.gateway, _host_use(config, domain, claimant)
        targets = _host_targets(view, claimant, row)
    for target in targets:
        yield (ClusterKey(gateway, target), use), True


def _opaque_targets(row: WaypointService) -> tuple[BackendTarget, ...]:
    """Return the service's ports that are not HTTP; those that are claim hosts."""
    return tuple(service_target(row.service, port) for port in row.ports if port.protocol is AppProtocol.TCP)


def _host_targets(view: View, claimant: RouteKey, claim: HostEntry) -> tuple[BackendTarget, ...]:
    if claim.kind is HostKind.DEFAULT:
        return (claim.target,) if claim.target else ()
    route = view.get(ROUTES, claimant) if claim.kind is HostKind.ROUTE else None
    return route_targets(route) if route else ()


def _host_use(config: RouteConfigKey, domain: str, route: RouteKey) -> Use:
    return ("host", config.name, domain, *route)


def _listener_use(listener: ListenerKey) -> Use:
    return ("listener", listener.owner_kind, *listener.owner, listener.name)


def route_targets(route: Route) -> tuple[BackendTarget, ...]:
    """Return all that a route's requests may be sent to, authorizers and mirrors included, without repetition."""
    return _distinct(_targets(route))


def _targets(route: Route) -> Iterator[BackendTarget | None]:
    for rule in route.rules:
        if rule.error:
            continue
        yield from _filter_targets(rule.filters)
        for backend in () if rule.filters.redirect else rule.backends:
            yield backend.target
            yield from _filter_targets(backend.filters or Filters())


def _filter_targets(filters: Filters) -> Iterator[BackendTarget]:
    if filters.external_auth:
        yield filters.external_auth.target
    for mirror in filters.mirrors:
        yield mirror.target


def _distinct(targets: Iterable[BackendTarget | None]) -> tuple[BackendTarget, ...]:
    return tuple(dict.fromkeys(target for target in targets if target is not None))


def resolve_cluster(
    view: View, key: ClusterKey, _uses: Mapping[tuple[ClusterKey, Use], bool]
) -> Iterable[tuple[ClusterKey, Cluster]]:
    """Return how a Gateway reaches a backend. Nothing is said of what does not exist: Envoy then answers 503."""
    target = key.target
    gateway = view.get(GATEWAY_PROFILES, key.gateway)
    if gateway is None:
        return
    if target.kind == "UDPRoute":
        yield key, _composite(view, key)
        return
    service_key = Key(target.namespace, target.name)
    service = view.get(SERVICES, service_key)
    port = find_port(service, target.port, target.protocol) if service else None
    if service is None or port is None or service.spec.type == "ExternalName":
        return
    protocol = upstream_protocol(target, port, named=gateway.role is Role.WAYPOINT)
    settings = read_settings(view)
    cluster = Cluster(key=key, protocol=protocol, hbone=settings.mesh and protocol is not UpstreamProtocol.UDP)
    yield key, _secured(view, cluster, gateway, service_key, port)


def upstream_protocol(target: BackendTarget, port: ServicePort, *, named: bool) -> UpstreamProtocol:
    """Return what is spoken to a port: what the route asks for, else its appProtocol, else HTTP/1.1.

    `named` lets the port's name speak for it as well, as it does in Istio meshes (`grpc-api`, `http2`).
    """
    if target.protocol in _OPAQUE:
        return _OPAQUE[target.protocol]
    declared = app_protocol(port) or (port.name.lower().split("-", 1)[0] if named else "")
    if target.protocol == GRPC or declared in _HTTP2:
        return UpstreamProtocol.HTTP2
    return UpstreamProtocol.WEBSOCKET if declared in _WEBSOCKET else UpstreamProtocol.HTTP1


def _secured(view: View, cluster: Cluster, gateway: Gateway, service: Key, port: ServicePort) -> Cluster:
    """Return the cluster with the TLS that its BackendTLSPolicy demands, or closed when that cannot be had."""
    key, target = cluster.key, cluster.key.target
    governing = None if target.protocol in UNGOVERNED else governing_policy(view, service, port.name)
    if governing is None:
        return cluster
    tls, flaw, _refs = judge(view, *governing)
    refused = f"BackendTLSPolicy {governing.key} cannot be applied: {flaw.message}" if flaw else ""
    if gateway.client_certificate_refused and not refused:
        refused = f"the client certificate of Gateway {gateway.key} cannot be used"
    if refused or tls is None:
        return Cluster(key=key, protocol=cluster.protocol, refused=refused)
    if gateway.client_certificate:
        tls = msgspec.structs.replace(tls, client_certificate=gateway.client_certificate)
    return Cluster(key=key, protocol=cluster.protocol, hbone=cluster.hbone, tls=tls)


def _composite(view: View, key: ClusterKey) -> Cluster:
    """Return the one cluster of a UDPRoute: a datagram's share is decided by its endpoints' weights.

    Shares of bad backends go to the good ones: Envoy cannot drop a share of datagrams.
    """
    route = view.get(ROUTES, RouteKey(key.target.kind, key.target.namespace, key.target.name))
    weights: dict[BackendTarget, int] = {}
    backends: tuple[Backend, ...] = route.rules[0].backends if route and route.rules else ()
    for backend in backends:
        if backend.target and backend.weight:
            weights[backend.target] = weights.get(backend.target, 0) + backend.weight
    return Cluster(key=key, protocol=UpstreamProtocol.UDP, members=tuple(sorted(weights.items())))
