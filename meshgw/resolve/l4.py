"""TLSRoute, TCPRoute and UDPRoute: one rule each, and one route for each listener and server name."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import msgspec

from meshgw.api.l4 import TCPRoute, TLSRoute, UDPRoute
from meshgw.engine import View
from meshgw.ir.gateway import Listener, TlsMode
from meshgw.ir.keys import BackendTarget, ListenerKey, RouteKey
from meshgw.ir.route import Attachment, Backend, L4Binding, L4Chain, Route, Rule
from meshgw.resolve.authorization import WORKLOADS_OF
from meshgw.resolve.backends import TCP, TERMINATED, UDP, resolve_backend
from meshgw.resolve.report import BadRef, Report
from meshgw.resolve.tables import AUTHORIZATIONS, LISTENERS, ROUTES

L4_KINDS = frozenset({"TLSRoute", "TCPRoute", "UDPRoute"})


def compile_l4_rules(view: View, report: Report, row: TLSRoute | TCPRoute | UDPRoute) -> tuple[Rule, ...]:
    """Return the one rule of the route; the API allows no more, and Envoy could not tell them apart."""
    protocol = UDP if isinstance(row, UDPRoute) else TCP
    if len(row.spec.rules) > 1:
        report.remark("MG4006", "spec.rules", "only the first rule is served")
    rule = row.spec.rules[0]
    backends = []
    for position, ref in enumerate(rule.backend_refs):
        where = f"spec.rules[0].backendRefs[{position}]"
        resolved = resolve_backend(view, report, where, ref, protocol)
        if isinstance(resolved, BadRef):
            report.bad_ref(where, resolved)
        target = None if isinstance(resolved, BadRef) else resolved
        backends.append(Backend(target=target, weight=ref.weight))
    if not any(backend.weight for backend in backends):
        report.remark("MG2004", "spec.rules[0].backendRefs", "no backend with a weight: connections are closed")
        backends = []
    return (Rule(backends=tuple(backends), name=rule.name or ""),)


def l4_listener(key: tuple[RouteKey, ListenerKey], _row: Attachment) -> Iterable[Hashable]:
    """Group attachments of TLS, TCP and UDP routes by listener."""
    route, listener = key
    return (listener,) if route.kind in L4_KINDS else ()


def bind_l4(
    view: View, key: ListenerKey, members: Mapping[tuple[RouteKey, ListenerKey], Attachment]
) -> Iterable[tuple[ListenerKey, L4Binding]]:
    """Return what a serving listener forwards: for each server name the oldest route attached to it.

    Other routes stay attached and wait, as the API asks.
    """
    listener = view.get(LISTENERS, key)
    if key.owner_kind != "Service" and (listener is None or not listener.serving or not _admits(view, listener)):
        return
    terminated = bool(listener and listener.tls and listener.tls.mode is TlsMode.TERMINATE)
    routes = [
        (route, attachment.hostnames)
        for attachment in members.values()
        if (route := view.get(ROUTES, attachment.route)) is not None
    ]
    taken: set[str] = set()
    chains = []
    for route, hostnames in sorted(routes, key=lambda item: (item[0].created, item[0].key[1:], item[0].key.kind)):
        names = tuple(sorted(set(hostnames or ("",)) - taken))
        if names:
            chains.append(
                L4Chain(route=route.key, server_names=names, backends=_backends(route, terminated=terminated))
            )
            taken.update(names)
    if chains:
        yield key, L4Binding(listener=key, chains=tuple(chains))


def close_l4(_key: ListenerKey, _members: Any, _error: Exception) -> Iterable[tuple[ListenerKey, L4Binding]]:
    """Forward nothing when that failed by a bug of ours: the authorization of the Gateway may have changed."""
    return ()


def _admits(view: View, listener: Listener) -> bool:
    """Whether the policies of the Gateway let connections to the listener in; they cannot look into them."""
    authorization = view.get(AUTHORIZATIONS, (listener.key.gateway, WORKLOADS_OF))
    return authorization is not None and authorization.admits_strangers(listener.port)


def _backends(route: Route, *, terminated: bool) -> tuple[Backend, ...]:
    """Return the backends as a listener forwards to them. A UDPRoute has one: its composite cluster."""
    backends = route.rules[0].backends if route.rules else ()
    if route.key.kind == "UDPRoute":
        usable = any(backend.target and backend.weight for backend in backends)
        target = BackendTarget("UDPRoute", route.key.namespace, route.key.name, 0, UDP)
        return (Backend(target=target),) if usable else ()
    if not terminated:
        return backends
    return tuple(
        msgspec.structs.replace(backend, target=backend.target._replace(protocol=TERMINATED))
        if backend.target
        else backend
        for backend in backends
    )
