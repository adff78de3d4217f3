"""Routes compiled once, whatever they are attached to: rules with matches, filters, backends and settings.

A rule that cannot be served keeps the matches that can be expressed and answers 500; its neighbours are untouched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from meshgw.api.duration import milliseconds
from meshgw.api.filters import SessionPersistence as SessionSpec
from meshgw.api.grpc import GRPCBackendRef, GRPCRoute, GRPCRouteRule
from meshgw.api.http import HTTPBackendRef, HTTPRoute, HTTPRouteRetry, HTTPRouteRule
from meshgw.api.l4 import TCPRoute, TLSRoute, UDPRoute
from meshgw.api.meta import Key, ObjectRef
from meshgw.api.scalars import DURATION_PATTERN, HEADER_NAME_PATTERN
from meshgw.engine import View
from meshgw.ir.keys import RouteKey
from meshgw.ir.route import Backend, Filters, PathKind, Retry, Route, Rule, SessionPersistence
from meshgw.resolve import checks
from meshgw.resolve.backends import GRPC, resolve_backend
from meshgw.resolve.filters import compile_filters
from meshgw.resolve.l4 import compile_l4_rules
from meshgw.resolve.matches import compile_grpc_matches, compile_http_matches
from meshgw.resolve.report import BadRef, Report, join_messages

AnyRoute: TypeAlias = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute
_Refs: TypeAlias = Sequence[HTTPBackendRef | GRPCBackendRef]

_DURATION = re.compile(DURATION_PATTERN)
_TOKEN = re.compile(HEADER_NAME_PATTERN)
_MOST_ATTEMPTS = 2**32 - 1


def compile_route(view: View, _table: Any, key: Key, row: AnyRoute) -> Iterable[tuple[RouteKey, Route]]:
    """Return the compiled route."""
    kind = type(row).__name__
    report = Report(ObjectRef(kind, *key))
    if isinstance(row, HTTPRoute):
        rules = [_http_rule(view, report, position, rule) for position, rule in enumerate(row.spec.rules)]
    elif isinstance(row, GRPCRoute):
        rules = [_grpc_rule(view, report, position, rule) for position, rule in enumerate(row.spec.rules)]
    else:
        rules = list(compile_l4_rules(view, report, row))
    refs, message = report.refs()
    broken = _broken(rules)
    route = RouteKey(kind, *key)
    yield (
        route,
        Route(
            key=route,
            rules=tuple(rules),
            created=row.metadata.creation_timestamp or "",
            refs=refs,
            refs_message=message,
            partially_invalid=f"Dropped Rule(s): {broken}" if broken and not all(rule.error for rule in rules) else "",
            invalid=broken if broken and all(rule.error for rule in rules) else "",
            findings=tuple(report.findings),
        ),
    )


def _broken(rules: Sequence[Rule]) -> str:
    named = [f"{rule.name or position}: {rule.error}" for position, rule in enumerate(rules) if rule.error]
    return join_messages(named)


def _http_rule(view: View, route: Report, position: int, rule: HTTPRouteRule) -> Rule:
    report, field = route.part(), f"spec.rules[{position}]"
    matches = compile_http_matches(report, f"{field}.matches", rule.matches)
    prefixes = all(match.path.kind is PathKind.PREFIX for match in matches)
    filters = compile_filters(view, report, f"{field}.filters", rule.filters, protocol="", prefixes=prefixes)
    backends = _backends(view, report, field, rule.backend_refs, filters, protocol="", prefixes=prefixes)
    timeouts = rule.timeouts
    timeout = _milliseconds(report, f"{field}.timeouts.request", timeouts.request if timeouts else None)
    per_try = _milliseconds(report, f"{field}.timeouts.backendRequest", timeouts.backend_request if timeouts else None)
    retry = _retry(report, f"{field}.retry", rule.retry) if rule.retry else None
    session = _session(report, field, rule)
    compiled = Rule(
        matches=matches,
        filters=filters,
        backends=backends,
        timeout=timeout,
        backend_timeout=per_try,
        retry=retry,
        session=session,
        name=rule.name or "",
    )
    return _servable(report, field, compiled)


def _grpc_rule(view: View, route: Report, position: int, rule: GRPCRouteRule) -> Rule:
    report, field = route.part(), f"spec.rules[{position}]"
    matches = compile_grpc_matches(report, f"{field}.matches", rule.matches)
    filters = compile_filters(view, report, f"{field}.filters", rule.filters, protocol=GRPC, prefixes=False)
    backends = _backends(view, report, field, rule.backend_refs, filters, protocol=GRPC, prefixes=False)
    session = _session(report, field, rule)
    compiled = Rule(matches=matches, filters=filters, backends=backends, session=session, name=rule.name or "")
    return _servable(report, field, compiled)


def _servable(report: Report, field: str, rule: Rule) -> Rule:
    """Return the rule, or one that answers 500 in its place when something in it cannot be served."""
    refusal = "" if report.errors else checks.rule(rule)
    if refusal:
        report.refuse("MG4001", field, refusal)
    if not report.errors:
        return rule
    return Rule(matches=rule.matches, name=rule.name, error=join_messages(report.errors))


def _backends(
    view: View, report: Report, field: str, refs: _Refs, rule: Filters, *, protocol: str, prefixes: bool
) -> tuple[Backend, ...]:
    """Return the backends. A bad reference or filter of one costs only that one's share; without weights there is none.

    A backend may not replace the rule's external authorizer, which would otherwise never be asked.
    """
    backends = []
    for position, ref in enumerate(refs):
        where, part = f"{field}.backendRefs[{position}]", report.part()
        resolved = resolve_backend(view, report, where, ref, protocol)
        if isinstance(resolved, BadRef):
            report.bad_ref(where, resolved)
        own = compile_filters(view, part, f"{where}.filters", ref.filters, protocol=protocol, prefixes=prefixes)
        if own.external_auth and rule.external_auth:
            part.refuse("MG4001", f"{where}.filters", "the rule has an external authorizer already")
        usable = None if isinstance(resolved, BadRef) or part.errors else resolved
        backends.append(Backend(target=usable, weight=ref.weight, filters=own if usable and own != Filters() else None))
    if any(backend.weight for backend in backends):
        return tuple(backends)
    if not rule.redirect:
        report.remark("MG2004", f"{field}.backendRefs", "no backend with a weight: the rule answers 500")
    return ()


def _milliseconds(report: Report, field: str, text: str | None) -> int | None:
    if text is None:
        return None
    if _DURATION.match(text):
        return milliseconds(text)
    report.refuse("MG4001", field, f"{text!r} is not a duration")
    return None


def _retry(report: Report, field: str, spec: HTTPRouteRetry) -> Retry:
    attempts = 1 if spec.attempts is None else spec.attempts
    if not 1 <= attempts <= _MOST_ATTEMPTS:
        report.refuse("MG4001", f"{field}.attempts", f"{attempts} attempts are not possible")
    codes = tuple(sorted(set(spec.codes)))
    if any(not 400 <= code <= 599 for code in codes):
        report.refuse("MG4001", f"{field}.codes", "only statuses from 400 to 599 can be retried")
    return Retry(attempts=attempts, codes=codes, backoff=_milliseconds(report, f"{field}.backoff", spec.backoff) or 0)


def _session(report: Report, field: str, rule: HTTPRouteRule | GRPCRouteRule) -> SessionPersistence | None:
    """Return the rule's sticky sessions; without a name of their own they get one that stays when rules move."""
    spec = rule.session_persistence
    if spec is None:
        return None
    where = f"{field}.sessionPersistence"
    name = spec.session_name or _session_name(report.object, rule)
    if not _TOKEN.match(name):
        report.refuse("MG4001", f"{where}.sessionName", f"{name!r} cannot name a cookie or header")
    timeout = _milliseconds(report, f"{where}.absoluteTimeout", spec.absolute_timeout) or 0
    permanent = _is_permanent(spec)
    if permanent and not timeout:
        report.refuse("MG4001", f"{where}.absoluteTimeout", "a permanent cookie needs a lifetime")
    if timeout and not permanent:
        report.remark("MG4006", f"{where}.absoluteTimeout", "only the lifetime of permanent cookies is limited")
    lifetime = max(1, timeout // 1000) if permanent else 0
    return SessionPersistence(name=name, header=spec.type == "Header", lifetime=lifetime)


def _is_permanent(spec: SessionSpec) -> bool:
    return spec.type == "Cookie" and bool(spec.cookie_config and spec.cookie_config.lifetime_type == "Permanent")


def _session_name(route: ObjectRef, rule: HTTPRouteRule | GRPCRouteRule) -> str:
    """Return a name for the sessions of a rule, which is told by its own name or by its matches.

    Of two rules with the same matches one never gets a request.
    """
    told = rule.name or sorted(msgspec.json.encode(match).decode() for match in rule.matches)
    digest = hashlib.blake2s(msgspec.json.encode((*route, told)), digest_size=6).hexdigest()
    return f"meshgw-session-{digest}"
