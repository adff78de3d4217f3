"""Listeners of a Gateway, its own and those of its ListenerSets: what each serves, and every condition of each.

A waypoint serves nothing but HBONE on port 15008, which is implied when it does not declare it. Other listeners of a
waypoint are refused: plain traffic beside HBONE would come in without an identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec import structs

from meshgw import names
from meshgw.api import gateway as api
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import AllowedNamespaces, Binding, Gateway, Listener, Protocol, Role
from meshgw.ir.keys import ListenerKey
from meshgw.ir.status import Condition
from meshgw.resolve.conditions import (
    ACCEPTED,
    CONFLICTED,
    OVERLAPPING_TLS,
    PROGRAMMED,
    RESOLVED_REFS,
    Problem,
    fails,
    holds,
    ordered,
    verdict,
)
from meshgw.resolve.conflicts import Place, find_conflicts, find_overlaps
from meshgw.resolve.grants import kind_name
from meshgw.resolve.listener_tls import TlsOutcome, resolve_tls
from meshgw.resolve.listenersets import admitted_sets, parent_accepted
from meshgw.resolve.namespaces import allowed
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import BINDINGS, GATEWAYS

IMPLIED = "Implied"
"""Owner kind of the HBONE listener that a waypoint has without declaring it; no status shows it."""

_HTTP_KINDS = ("HTTPRoute", "GRPCRoute")
KINDS = {
    Protocol.HTTP: _HTTP_KINDS,
    Protocol.HTTPS: _HTTP_KINDS,
    Protocol.TLS: ("TLSRoute",),
    Protocol.TCP: ("TCPRoute",),
    Protocol.UDP: ("UDPRoute",),
    Protocol.HBONE: _HTTP_KINDS,
}
"""Routes that a protocol can carry."""
_PROXY_PORTS = frozenset({names.STATUS_PORT, names.METRICS_PORT, names.ADMIN_PORT})
_HOST_PROTOCOLS = frozenset({Protocol.HTTP, Protocol.HTTPS, Protocol.TLS})


class _Draft(NamedTuple):
    """A listener as declared, with what can be said of it without looking at the others."""

    key: ListenerKey
    entry: api.Listener
    field: str
    generation: int
    protocol: Protocol | None
    hostname: str
    kinds: tuple[api.RouteGroupKind, ...]
    refusal: Problem | None
    tls: TlsOutcome
    refs: tuple[Problem, ...]

    @property
    def about(self) -> ObjectRef:
        return ObjectRef(self.key.owner_kind, *self.key.owner)


def resolve_listeners(view: View, key: Key, row: Gateway) -> Iterable[tuple[ListenerKey, Listener]]:
    """Return all listeners of a Gateway of ours, with their conditions except the count of attached routes."""
    gateway = view.get(GATEWAYS, key)
    if gateway is None:
        return
    own_ports = _PROXY_PORTS if read_settings(view).deploys else frozenset()
    drafts = list(_bound(view.get(BINDINGS, key) or Binding(), own_ports, _drafts(view, gateway, row)))
    places = [_place(draft) for draft in drafts if draft.protocol is not None]
    conflicts = find_conflicts(places)
    overlaps = find_overlaps(place for place in places if place.key not in conflicts)
    own: list[Listener] = []
    parent = row.accepted
    for precedence, draft in enumerate(drafts):
        if draft.key.owner_kind != "Gateway":
            parent = parent_accepted(row.accepted, own)
        listener = _listener(
            draft,
            precedence=precedence,
            conflict=conflicts.get(draft.key, ""),
            overlaps=draft.key in overlaps,
            parent=parent,
        )
        if draft.key.owner_kind == "Gateway":
            own.append(listener)
        else:
            yield draft.key, listener
    implied = row.role is Role.WAYPOINT and not any(listener.protocol is Protocol.HBONE for listener in own)
    for listener in _with_summary(row, own, implied=implied):
        yield listener.key, listener
    if implied:
        yield _implied_hbone(row, len(drafts))


def _with_summary(row: Gateway, own: Sequence[Listener], *, implied: bool) -> Iterator[Listener]:
    """Add to the first listener that none is served, as that concerns the Gateway."""
    served = implied or any(listener.serving for listener in own)
    for position, listener in enumerate(own):
        if position == 0 and row.accepted and not served:
            summary = Finding(
                code="MG1010",
                object=ObjectRef("Gateway", *row.key),
                field="spec.listeners",
                message="no listener of the Gateway itself is served",
            )
            yield structs.replace(listener, findings=(*listener.findings, summary))
        else:
            yield listener


def _drafts(view: View, gateway: api.Gateway, row: Gateway) -> Iterator[_Draft]:
    owners = [("Gateway", gateway.key, gateway.metadata.generation, gateway.spec.listeners)]
    owners += [
        ("ListenerSet", key, found.metadata.generation, found.spec.listeners)
        for key, found in admitted_sets(view, gateway)
    ]
    for kind, owner, generation, entries in owners:
        for position, entry in enumerate(entries):
            key = ListenerKey(gateway.key, kind, owner, entry.name)
            yield _draft(view, gateway, row.role, key, entry, field=f"spec.listeners[{position}]", gen=generation)


def _bound(binding: Binding, own_ports: frozenset[int], drafts: Iterable[_Draft]) -> Iterator[_Draft]:
    """Refuse listeners whose port would be bound where another listener's is; the earlier one keeps it.

    The proxy itself comes before all, with the ports that are its own.
    """
    taken: dict[tuple[bool, int], int] = {(False, port): 0 for port in own_ports}
    for draft in drafts:
        port = draft.entry.port
        bound = binding.port(port)
        if draft.protocol is None or taken.setdefault((draft.protocol is Protocol.UDP, bound), port) == port:
            yield draft
        else:
            message = f"port {port} is bound as {bound} here, which is taken"
            if bound in own_ports:
                message = f"port {port} is the proxy's own"
            refusal = Problem("PortUnavailable", "MG1004", f"{draft.field}.port", message)
            yield draft._replace(refusal=refusal, protocol=None)


def _draft(
    view: View, gateway: api.Gateway, role: Role | None, key: ListenerKey, entry: api.Listener, *, field: str, gen: int
) -> _Draft:
    protocol, refusal = _protocol(entry, role, key.owner_kind, field)
    outcome = resolve_tls(view, gateway, key, entry, protocol, field=field) if protocol else TlsOutcome()
    kinds, refs = _kinds(entry, protocol, f"{field}.allowedRoutes.kinds")
    unsupported_tls = outcome.unsupported is not None and outcome.unsupported.reason == "UnsupportedValue"
    return _Draft(
        key=key,
        entry=entry,
        field=field,
        generation=gen,
        protocol=protocol,
        hostname=(entry.hostname or "").lower() if protocol in _HOST_PROTOCOLS else "",
        kinds=() if unsupported_tls else kinds,
        refusal=refusal or outcome.unsupported,
        tls=outcome,
        refs=(*refs, *outcome.refs),
    )


def _protocol(
    entry: api.Listener, role: Role | None, owner_kind: str, field: str
) -> tuple[Protocol | None, Problem | None]:
    """Return the protocol if a gateway of this role serves it, else why not."""
    protocol = next((known for known in Protocol if known.value == entry.protocol), None)
    code, reason, field = "MG1005", "UnsupportedProtocol", f"{field}.protocol"
    if protocol is None:
        return None, Problem(reason, code, field, f"protocol {entry.protocol} is not served")
    if role is not Role.WAYPOINT:
        if protocol is Protocol.HBONE:
            return None, Problem(reason, code, field, "only waypoints serve HBONE")
        return protocol, None
    if protocol is not Protocol.HBONE or owner_kind != "Gateway":
        message = f"a waypoint serves nothing but HBONE on port {names.HBONE_PORT}, declared by the Gateway itself"
        return None, Problem(reason, code, field, message)
    if entry.port != names.HBONE_PORT:
        return None, Problem("PortUnavailable", code, field, f"HBONE is served on port {names.HBONE_PORT} only")
    return protocol, None


def _kinds(
    entry: api.Listener, protocol: Protocol | None, field: str
) -> tuple[tuple[api.RouteGroupKind, ...], tuple[Problem, ...]]:
    """Return the kinds of routes that may attach, and what is wrong with those that are asked for."""
    if protocol is None:
        return (), ()
    carried = tuple(api.RouteGroupKind(kind=kind) for kind in KINDS[protocol])
    wanted = entry.allowed_routes.kinds
    if not wanted:
        return carried, ()
    refused = [kind for kind in wanted if kind not in carried]
    kinds = tuple(kind for kind in carried if kind in wanted)
    if not refused:
        return kinds, ()
    named = sorted({kind_name(kind.group.removeprefix(names.GATEWAY_GROUP), kind.kind) for kind in refused})
    message = f"{protocol.value} listeners cannot carry {', '.join(named)}"
    return kinds, (Problem("InvalidRouteKinds", "MG1006", field, message),)


def _place(draft: _Draft) -> Place:
    assert draft.protocol is not None  # noqa: S101 - the caller leaves the others out
    return Place(draft.key, draft.entry.port, draft.protocol, draft.hostname)


def _listener(draft: _Draft, *, precedence: int, conflict: str, overlaps: bool, parent: bool) -> Listener:
    clash = _clash(draft, conflict) if conflict else None
    refusal = clash or draft.refusal
    serving = parent and refusal is None and not draft.refs
    problems = [problem for problem in (refusal, *draft.refs, *draft.tls.ignored) if problem]
    rule = draft.entry.allowed_routes.namespaces
    return Listener(
        key=draft.key,
        port=draft.entry.port,
        protocol=draft.protocol,
        hostname=draft.hostname,
        tls=draft.tls.tls,
        serving=serving,
        accepted=refusal is None,
        kinds=draft.kinds,
        namespaces=allowed(rule.from_, rule.selector),
        conditions=_conditions(draft, clash=clash, refusal=refusal, overlaps=overlaps, serving=serving),
        precedence=precedence,
        findings=tuple(
            problem._replace(message=f"listener {draft.key.name}: {problem.message}").finding(draft.about)
            for problem in problems
        ),
    )


def _clash(draft: _Draft, reason: str) -> Problem:
    """Say what a conflict is about, without a word on the other side: it may belong to somebody else."""
    what = f"port {draft.entry.port}"
    if reason == "HostnameConflict":
        what = f"host {draft.hostname or '(any)'} on {what}"
    return Problem(reason, "MG1004", draft.field, f"{what} is wanted by other listeners of the Gateway too")


def _conditions(
    draft: _Draft, *, clash: Problem | None, refusal: Problem | None, overlaps: bool, serving: bool
) -> tuple[Condition, ...]:
    generation = draft.generation
    found = [verdict(ACCEPTED, generation, refusal), verdict(RESOLVED_REFS, generation, _summary(draft.refs))]
    if clash:
        found.append(holds(CONFLICTED, generation, reason=clash.reason, message=clash.message))
    else:
        found.append(fails(CONFLICTED, generation, reason="NoConflicts"))
    if serving:
        found.append(holds(PROGRAMMED, generation))
    else:
        reason = clash.reason if clash else "Invalid"
        cause = refusal or _summary(draft.refs)
        message = cause.message if cause else "the Gateway is not accepted"
        found.append(fails(PROGRAMMED, generation, reason=reason, message=message))
    if overlaps:
        message = "another TLS listener of the port matches some of the same hosts; the most specific one serves them"
        found.append(holds(OVERLAPPING_TLS, generation, reason="OverlappingHostnames", message=message))
    return ordered(found)


def _summary(refs: Sequence[Problem]) -> Problem | None:
    """Return the first problem with the messages of all."""
    if not refs:
        return None
    return refs[0]._replace(message="; ".join(problem.message for problem in refs))


def _implied_hbone(row: Gateway, precedence: int) -> tuple[ListenerKey, Listener]:
    key = ListenerKey(row.key, IMPLIED, row.key, "hbone")
    return key, Listener(
        key=key,
        port=names.HBONE_PORT,
        protocol=Protocol.HBONE,
        serving=row.accepted,
        accepted=True,
        kinds=tuple(api.RouteGroupKind(kind=kind) for kind in KINDS[Protocol.HBONE]),
        namespaces=AllowedNamespaces(),
        precedence=precedence,
    )
