"""Fragments: the Envoy routes that one route object gives to one RouteConfiguration."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from meshgw.emit.action import answer, edits, forward, redirect_action, redirect_port
from meshgw.emit.filters import route_filters
from meshgw.emit.headers import Edits, HeaderFields, edit_fields, host_of
from meshgw.emit.match import MILLION, authority_has_port, build_match, path_cases
from meshgw.emit.tables import Fragment
from meshgw.engine import View
from meshgw.features import RouteScope
from meshgw.ir.keys import RouteConfigKey, RouteKey
from meshgw.ir.route import Backend, Filters, HostEntry, HostKind, Match, Redirect, Rewrite, Rule
from meshgw.ir.route import Route as CompiledRoute
from meshgw.protos import Route, encode, field
from meshgw.resolve import checks
from meshgw.resolve.tables import ROUTES

_ROUTES: Final = 3  # field number of `routes` in VirtualHost

Claim = tuple[RouteConfigKey, str, RouteKey]
Group = tuple[RouteConfigKey, RouteKey]


def group_claims(key: Claim, row: HostEntry) -> Iterable[Group]:
    """The group of a claim: all claims of one route on one RouteConfiguration share their fragments."""
    return ((key[0], key[2]),) if row.kind is HostKind.ROUTE else ()


def emit_fragments(
    view: View, group: Group, members: Mapping[Claim, HostEntry]
) -> Iterable[tuple[Group, tuple[Fragment, ...]]]:
    """Compile a route for one RouteConfiguration."""
    route = view.get(ROUTES, group[1])
    if route is not None:
        claim = next(iter(members.values()))
        yield group, compile_fragments(view, route, port=claim.port, https=claim.https)


def compile_fragments(view: View, route: CompiledRoute, *, port: int, https: bool) -> tuple[Fragment, ...]:
    """The fragments of a route, sorted; `port` and `https` are what its clients see."""
    kind, namespace, name = route.key
    fragments = []
    for position, rule in enumerate(route.rules):
        frame = _Frame(
            view=view,
            route=route.key,
            name=f"{kind.lower()}/{namespace}/{name}/{rule.name or position}",
            rule=rule,
            error=rule.error or checks.rule(rule),
            port=port,
            https=https,
        )
        for place, match in enumerate(rule.matches or _any(kind)):
            if not checks.match(match):
                continue
            body = b"".join(field(_ROUTES, encode(built)) for built in _build(frame, match))
            order = (match.precedence, route.created, namespace, name, kind, position, place)
            fragments.append(Fragment(order, body))
    return tuple(sorted(fragments, key=lambda fragment: fragment.order))


def _any(kind: str) -> tuple[Match, ...]:
    """The match of a rule none of whose own can be expressed: whatever nothing else takes."""
    return (Match(precedence=(sys.maxsize,), grpc=kind == "GRPCRoute"),)


class _Frame(NamedTuple):
    """What the routes of a rule have in common."""

    view: View
    route: RouteKey
    name: str
    rule: Rule
    error: str
    port: int
    https: bool

    def scope(self, filters: Filters, *, redirects: bool = False) -> RouteScope:
        """What features are told."""
        return RouteScope(self.view, self.route, self.rule, filters, redirects)


def _build(frame: _Frame, match: Match) -> Iterator[Route]:
    """Yield the routes of one match of a rule, to be tried in this order."""
    rule = frame.rule
    backends = [backend for backend in rule.backends if backend.weight > 0]
    if frame.error:
        yield from _answer(frame, match, 500)
    elif rule.filters.redirect is not None:
        yield from _redirect(frame, match, rule.filters, rule.filters.redirect)
    elif any(_apart(backend) for backend in backends):
        yield from _split(frame, match, backends)
    elif any(backend.target is not None for backend in backends):
        yield from _forward(frame, match, backends, rule.filters)
    else:
        yield from _answer(frame, match, 500)


def _answer(frame: _Frame, match: Match, status: int, below: int = 0) -> Iterator[Route]:
    (case,) = path_cases(match.path, None)
    yield Route(name=frame.name, match=build_match(match, case.match, below=below), direct_response=answer(status))


def _redirect(
    frame: _Frame,
    match: Match,
    filters: Filters,
    redirect: Redirect,
    *,
    below: int = 0,
    responses: Edits = (),
) -> Iterator[Route]:
    always, if_given = redirect_port(redirect, port=frame.port, https=frame.https)
    common: dict[str, Any] = {"name": frame.name, **edit_fields((), responses or (filters.response,))}
    configs = route_filters(frame.scope(filters, redirects=True))
    for case in path_cases(match.path, redirect.path):
        if if_given:
            conditions = build_match(match, case.match, below=below, headers=(authority_has_port(),))
            action = redirect_action(redirect, case.redirect, port=if_given)
            yield Route(match=conditions, redirect=action, typed_per_filter_config=configs, **common)
        action = redirect_action(redirect, case.redirect, port=always)
        conditions = build_match(match, case.match, below=below)
        yield Route(match=conditions, redirect=action, typed_per_filter_config=configs, **common)


def _forward(
    frame: _Frame, match: Match, backends: Sequence[Backend], filters: Filters, below: int = 0
) -> Iterator[Route]:
    rule, rewrite = frame.rule, filters.rewrite
    common = HeaderFields()
    if not any(map(edits, backends)):
        common = edit_fields((filters.request,), (filters.response,))
    configs = route_filters(frame.scope(filters))
    action = forward(rule, backends, filters)
    host = host_of(rewrite, filters.request)
    if host:
        action.host_rewrite_literal = host
    cases = path_cases(match.path, rewrite.path if rewrite is not None else None)
    for case in cases:
        built = Route(
            name=frame.name,
            match=build_match(match, case.match, below=below),
            route=action,
            typed_per_filter_config=configs,
            **common,
        )
        for name, value in case.rewrite.items():
            _assign(built.route, name, value)
        yield built


def _assign(action: Any, name: str, value: Any) -> None:
    if isinstance(value, str):
        setattr(action, name, value)
    else:
        getattr(action, name).CopyFrom(value)


def _apart(backend: Backend) -> bool:
    """Whether a backend has filters that Envoy knows for whole routes only."""
    filters = backend.filters
    return filters is not None and (
        filters.redirect is not None
        or filters.rewrite is not None
        or filters.cors is not None
        or bool(filters.mirrors)
        or filters.external_auth is not None
        or bool(host_of(filters.request))
    )


def _split(frame: _Frame, match: Match, backends: Sequence[Backend]) -> Iterator[Route]:
    """Yield routes for each backend alone, each taking its share of what the ones before it left."""
    total = sum(backend.weight for backend in backends)
    taken = 0
    for backend in backends:
        taken += backend.weight
        below = 0 if taken == total else taken * MILLION // total
        if taken != total and not below:
            continue  # a share under one in a million
        own = backend.filters or Filters()
        filters = _merge(frame.rule.filters, own)
        if own.redirect is not None:
            responses = (filters.response, own.response)
            yield from _redirect(frame, match, filters, own.redirect, below=below, responses=responses)
        elif backend.target is None:
            yield from _answer(frame, match, 500, below)
        else:
            yield from _forward(frame, match, (backend,), filters, below)


def _merge(outer: Filters, own: Filters) -> Filters:
    """The filters for one backend: its own before the rule's; header changes stay with the weighted cluster."""
    return msgspec.structs.replace(
        outer,
        redirect=None,
        rewrite=_merge_rewrite(outer.rewrite, own.rewrite, host_of(own.request)),
        cors=own.cors or outer.cors,
        mirrors=(*outer.mirrors, *own.mirrors),
        external_auth=own.external_auth or outer.external_auth,
    )


def _merge_rewrite(outer: Rewrite | None, own: Rewrite | None, host: str) -> Rewrite | None:
    base, top = outer or Rewrite(), own or Rewrite()
    merged = Rewrite(hostname=top.hostname or host or base.hostname, path=top.path or base.path)
    return None if merged == Rewrite() else merged
