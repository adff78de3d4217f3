"""Fragments: the Envoy routes that one route object gives to one RouteConfiguration."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from meshgw.emit.action import RedirectPort, answer, edits, forward, redirect_action, redirect_port
from meshgw.emit.filters import route_filters
from meshgw.emit.headers import Edits, HeaderFields, edit_fields, host_of
from meshgw.emit.match import MILLION, authority_has_port, build_match, path_cases
from meshgw.emit.tables import Fragment
from meshgw.engine import View
from meshgw.features import RouteScope
from meshgw.ir.keys import RouteConfigKey, RouteKey
from meshgw.ir.route import Backend, Filters, HostEntry, HostKind, Match, PathEdit, Redirect, Rewrite, Rule
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
        yield group, compile_fragments(view, group[0], route, port=claim.port, https=claim.https)


def compile_fragments(
    view: View, config: RouteConfigKey, route: CompiledRoute, *, port: int, https: bool
) -> tuple[Fragment, ...]:
    """The fragments of a route for one RouteConfiguration, sorted; `port` and `https` are what its clients see."""
    kind, namespace, name = route.key
    fragments = []
    for position, rule in enumerate(route.rules):
        frame = _Frame(
            view=view,
            config=config,
            route=route.key,
            name=f"{kind.lower()}/{namespace}/{name}/{rule.name or position}",
            rule=rule,
            port=port,
            https=https,
        )
        parts = tuple(_parts(frame))
        inherits = any(part.inherits for part in parts)
        for place, match in enumerate(rule.matches or _any(kind)):
            if not checks.match(match):
                continue
            body = b"".join(field(_ROUTES, built) for part in parts for built in part.routes(match))
            order = (match.precedence, route.created, namespace, name, kind, position, place)
            fragments.append(Fragment(order, body, inherits))
    return tuple(sorted(fragments, key=lambda fragment: fragment.order))


def _any(kind: str) -> tuple[Match, ...]:
    """The match of a rule none of whose own can be expressed: whatever nothing else takes."""
    return (Match(precedence=(sys.maxsize,), grpc=kind == "GRPCRoute"),)


# --- What a rule comes to, whatever the match: `routes` yields Envoy's routes of a match as bytes ------------------


class _Answer(NamedTuple):
    """An answer of the gateway's own."""

    name: str
    status: int
    below: int = 0
    inherits: bool = False

    def routes(self, match: Match) -> Iterator[bytes]:
        """Yield the route of a match."""
        (case,) = path_cases(match.path, None)
        conditions = build_match(match, case.match, below=self.below)
        yield encode(Route(name=self.name, match=conditions, direct_response=answer(self.status)))


class _Redirection(NamedTuple):
    """A redirect; `common` are the fields that all of its routes have."""

    common: Mapping[str, Any]
    redirect: Redirect
    port: RedirectPort
    below: int
    inherits: bool = False

    def routes(self, match: Match) -> Iterator[bytes]:
        """Yield the routes of a match, to be tried in this order."""
        for case in path_cases(match.path, self.redirect.path):
            if self.port.if_given:
                conditions = build_match(match, case.match, below=self.below, headers=(authority_has_port(),))
                action = redirect_action(self.redirect, case.redirect, port=self.port.if_given)
                yield encode(Route(match=conditions, redirect=action, **self.common))
            action = redirect_action(self.redirect, case.redirect, port=self.port.always)
            conditions = build_match(match, case.match, below=self.below)
            yield encode(Route(match=conditions, redirect=action, **self.common))


class _Forwarding(NamedTuple):
    """Backends; `common` is the route but for what the match's path decides, `path` how that is rewritten.

    `inherits` says whether its retries are those of the virtual host.
    """

    common: Route
    encoded: bytes
    path: PathEdit | None
    below: int
    inherits: bool

    def routes(self, match: Match) -> Iterator[bytes]:
        """Yield the routes of a match, to be tried in this order."""
        for case in path_cases(match.path, self.path):
            conditions = Route(match=build_match(match, case.match, below=self.below))
            if not case.rewrite:
                yield encode(conditions) + self.encoded  # in wire form, messages are merged by putting them in a row
                continue
            conditions.MergeFrom(self.common)
            for name, value in case.rewrite.items():
                _assign(conditions.route, name, value)
            yield encode(conditions)


def _assign(action: Any, name: str, value: Any) -> None:
    if isinstance(value, str):
        setattr(action, name, value)
    else:
        getattr(action, name).CopyFrom(value)


_Part = _Answer | _Redirection | _Forwarding


class _Frame(NamedTuple):
    """What the routes of a rule have in common."""

    view: View
    config: RouteConfigKey
    route: RouteKey
    name: str
    rule: Rule
    port: int
    https: bool

    def scope(self, filters: Filters, *, redirects: bool = False) -> RouteScope:
        """What features are told."""
        return RouteScope(self.view, self.config, self.route, self.rule, filters, redirects)


def _parts(frame: _Frame) -> Iterator[_Part]:
    """Yield what each match of a rule is given, to be tried in this order."""
    rule = frame.rule
    backends = [backend for backend in rule.backends if backend.weight > 0]
    if rule.error or checks.rule(rule):
        yield _Answer(frame.name, 500)
    elif rule.filters.redirect is not None:
        yield _redirect(frame, rule.filters, rule.filters.redirect)
    elif any(_apart(backend) for backend in backends):
        yield from _split(frame, backends)
    elif any(backend.target is not None for backend in backends):
        yield _forward(frame, backends, rule.filters)
    else:
        yield _Answer(frame.name, 500)


def _redirect(
    frame: _Frame, filters: Filters, redirect: Redirect, *, below: int = 0, responses: Edits = ()
) -> _Redirection:
    common = {
        "name": frame.name,
        "typed_per_filter_config": route_filters(frame.scope(filters, redirects=True)),
        **edit_fields((), responses or (filters.response,)),
    }
    return _Redirection(common, redirect, redirect_port(redirect, port=frame.port, https=frame.https), below)


def _forward(frame: _Frame, backends: Sequence[Backend], filters: Filters, below: int = 0) -> _Forwarding:
    rewrite = filters.rewrite
    changes = HeaderFields()
    if not any(map(edits, backends)):
        changes = edit_fields((filters.request,), (filters.response,))
    action = forward(frame.rule, backends, filters)
    host = host_of(rewrite, filters.request)
    if host:
        action.host_rewrite_literal = host
    configs = route_filters(frame.scope(filters))
    common = Route(name=frame.name, route=action, typed_per_filter_config=configs, **changes)
    path = rewrite.path if rewrite is not None else None
    return _Forwarding(common, encode(common), path, below, inherits=not action.HasField("retry_policy"))


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


def _split(frame: _Frame, backends: Sequence[Backend]) -> Iterator[_Part]:
    """Yield a part for each backend alone, each taking its share of what the ones before it left."""
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
            yield _redirect(frame, filters, own.redirect, below=below, responses=(filters.response, own.response))
        elif backend.target is None:
            yield _Answer(frame.name, 500, below)
        else:
            yield _forward(frame, (backend,), filters, below)


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
