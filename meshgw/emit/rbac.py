"""Authorization policies as Envoy's RBAC rules: DENY decides first, then ALLOW.

Rules live in route configurations, never in listeners: a new policy holds for the next request of every connection that
is already open. In waypoints the filters themselves deny everything, so what no route configuration has opened stays
shut. In other Gateways they do nothing by themselves, as those serve everybody unless a policy says otherwise; nobody
has an identity there, so a condition on one cannot be met: an ALLOW rule that has some is dropped, a DENY rule denies
without asking.

Where a policy is wider than its words it is so in the direction of refusal: a host that is denied is denied with a port
behind it too. No header is matched by a regular expression: those fail on bytes that are not UTF-8, and a condition
that fails inside a negation would let the request in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import re2

from meshgw.emit.filters import http_filter
from meshgw.ir.mesh import (
    Action,
    Authorization,
    AuthorizationPolicy,
    AuthorizationRule,
    Operation,
    Source,
    StringKind,
    StringMatch,
)
from meshgw.names import STATE_PEER_PRINCIPAL
from meshgw.protos import (
    AnyMessage,
    FilterStateMatcher,
    HeaderMatcher,
    HttpFilter,
    HttpRbac,
    HttpRbacPerRoute,
    PathMatcher,
    Permission,
    Policy,
    Principal,
    RbacRules,
    RegexMatcher,
    StringMatcher,
    any_of,
)

DENY_FILTER: Final = "meshgw.deny"
ALLOW_FILTER: Final = "meshgw.allow"
PEER_FILTER: Final = "meshgw.peer"

_SCHEME: Final = "spiffe://"
_LONGEST_NAMESPACE: Final = 63
_ACTIONS: Final = {Action.ALLOW: RbacRules.ALLOW, Action.DENY: RbacRules.DENY}


class Place(NamedTuple):
    """Where policies are enforced: on requests or on connections, at one port or (0) at that of the authority.

    Whether peers are `identified`: only mutual TLS of the mesh tells who they are.
    """

    http: bool
    port: int
    trust_domains: tuple[str, ...]
    identified: bool = True


def authorization_filters(*, closed: bool = True) -> list[HttpFilter]:
    """The two filters, DENY before ALLOW; until a route configuration says otherwise each denies all, or else none."""
    config = HttpRbac(rules=deny_all() if closed else None)
    return [http_filter(DENY_FILTER, config), http_filter(ALLOW_FILTER, config)]


def peer_filter(trust_domains: Iterable[str]) -> HttpFilter:
    """A filter for peers that are exactly one workload of our trust domains.

    A certificate with several identities would be whichever of them suits; policies know nothing of that.
    """
    ids = [_peer(StringMatcher(safe_regex=RegexMatcher(regex=_workload(domain)))) for domain in trust_domains]
    rules = RbacRules(action=RbacRules.ALLOW)
    rules.policies["workload"].CopyFrom(Policy(permissions=[Permission(any=True)], principals=ids))
    return http_filter(PEER_FILTER, HttpRbac(rules=rules))


def guards(authorization: Authorization | None, place: Place) -> dict[str, AnyMessage]:
    """The `typed_per_filter_config` that enforces policies at a place; without a row everything is denied."""
    if authorization is None:
        return shut()
    policies = authorization.policies
    return {
        DENY_FILTER: _enforced(build_rules(policies, Action.DENY, place)),
        ALLOW_FILTER: _enforced(build_rules(policies, Action.ALLOW, place)),
    }


def shut() -> dict[str, AnyMessage]:
    """The `typed_per_filter_config` that denies everything."""
    return {DENY_FILTER: _enforced(deny_all()), ALLOW_FILTER: _enforced(None)}


def build_rules(policies: Sequence[AuthorizationPolicy], action: Action, place: Place) -> RbacRules | None:
    """The rules of one action, None if no policy has it. ALLOW without a rule that can match denies everything."""
    chosen = [policy for policy in policies if policy.action is action]
    if not chosen:
        return None
    rules = RbacRules(action=_ACTIONS[action])
    for policy in chosen:
        for index, rule in enumerate(policy.rules):
            built = build_policy(rule, action, place)
            if built is not None:
                rules.policies[f"{policy.key}/{index}"].CopyFrom(built)
    return rules if rules.policies or action is Action.ALLOW else None


def deny_all() -> RbacRules:
    """Rules that deny everything."""
    return RbacRules(action=RbacRules.ALLOW)


def build_policy(rule: AuthorizationRule, action: Action, place: Place) -> Policy | None:
    """One rule; None if nothing can match it here.

    Connections have no hosts, methods and paths: an ALLOW rule that asks for some is dropped, a DENY rule denies
    without asking.
    """
    operations: Sequence[Operation] = rule.operations or (Operation(),)
    if not place.http and action is Action.ALLOW and any(item.needs_http for item in operations):
        return None
    permissions = [built for item in operations if (built := _operation(item, action, place)) is not None]
    principals = [built for item in rule.sources or (Source(),) if (built := _source(item, action, place)) is not None]
    if not permissions or not principals:
        return None
    return Policy(permissions=permissions, principals=principals)


def _enforced(rules: RbacRules | None) -> AnyMessage:
    return any_of(HttpRbacPerRoute() if rules is None else HttpRbacPerRoute(rbac=HttpRbac(rules=rules)))


# --- Operations ----------------------------------------------------------------------------------------------------

Conditions = list[Permission]


def _operation(operation: Operation, action: Action, place: Place) -> Permission | None:
    """All conditions of a `to` entry; None if its ports are others."""
    conditions = _ports(operation, place)
    if conditions is None:
        return None
    if place.http:
        denies = action is Action.DENY
        for values, unwanted, build in (
            (operation.hosts, operation.not_hosts, _host),
            (operation.methods, operation.not_methods, _method),
            (operation.paths, operation.not_paths, _path),
        ):
            if values:
                conditions.append(_one_of(values, build, wide=denies))
            if unwanted:
                conditions.append(Permission(not_rule=_one_of(unwanted, build, wide=not denies)))
    if not conditions:
        return Permission(any=True)
    return conditions[0] if len(conditions) == 1 else Permission(and_rules=Permission.Set(rules=conditions))


def _ports(operation: Operation, place: Place) -> Conditions | None:
    if place.port:
        return [] if operation.covers(place.port) else None
    conditions = []
    if operation.ports:
        conditions.append(_any_permission(map(_port, operation.ports)))
    if operation.not_ports:
        conditions.append(Permission(not_rule=_any_permission(map(_port, operation.not_ports))))
    return conditions


def _port(port: int) -> Permission:
    """The port of the authority, which has been found to be in canonical form."""
    return _header(":authority", StringMatcher(suffix=f":{port}"))


def _one_of(values: Iterable[StringMatch], build: Callable[..., Iterable[Permission]], *, wide: bool) -> Permission:
    return _any_permission(permission for value in values for permission in build(value, wide=wide))


def _any_permission(permissions: Iterable[Permission]) -> Permission:
    rules = list(permissions)
    return rules[0] if len(rules) == 1 else Permission(or_rules=Permission.Set(rules=rules))


def _host(value: StringMatch, *, wide: bool) -> Iterable[Permission]:
    """A host in any case. The `wide` form also has it with any port behind it."""
    name = ":authority"
    if value.kind is StringKind.PRESENT:
        return (_present(name),)
    found = [_header(name, _string(value, ignore_case=True))]
    if wide and value.kind is StringKind.EXACT:
        found.append(_header(name, StringMatcher(prefix=f"{value.value}:", ignore_case=True)))
    elif wide and value.kind is StringKind.SUFFIX:
        found.append(_header(name, StringMatcher(contains=f"{value.value}:", ignore_case=True)))
    return found


def _method(value: StringMatch, *, wide: bool) -> Iterable[Permission]:
    del wide
    name = ":method"
    return (_present(name) if value.kind is StringKind.PRESENT else _header(name, _string(value)),)


def _path(value: StringMatch, *, wide: bool) -> Iterable[Permission]:
    """A path without its query, after the connection manager has normalized it."""
    del wide
    if value.kind is StringKind.PRESENT:
        return (_present(":path"),)
    return (Permission(url_path=PathMatcher(path=_string(value))),)


def _present(name: str) -> Permission:
    return Permission(header=HeaderMatcher(name=name, present_match=True))


def _header(name: str, matcher: StringMatcher) -> Permission:
    return Permission(header=HeaderMatcher(name=name, string_match=matcher))


def _string(value: StringMatch, *, ignore_case: bool = False) -> StringMatcher:
    return StringMatcher(**{value.kind.value: value.value}, ignore_case=ignore_case)


# --- Sources -------------------------------------------------------------------------------------------------------


def _source(source: Source, action: Action, place: Place) -> Principal | None:
    """All conditions of a `from` entry; None if nobody can be it."""
    if not place.identified and source != Source():
        return Principal(any=True) if action is Action.DENY else None
    conditions: list[Principal] = []
    for values, unwanted, build in (
        (source.principals, source.not_principals, _principal),
        (source.namespaces, source.not_namespaces, _namespace),
    ):
        if values:
            matchers = [matcher for value in values for matcher in build(value, place)]
            if not matchers:
                return None
            conditions.append(_any_principal(matchers))
        matchers = [matcher for value in unwanted for matcher in build(value, place)]
        if matchers:
            conditions.append(Principal(not_id=_any_principal(matchers)))
    if not conditions:
        return Principal(any=True)
    return conditions[0] if len(conditions) == 1 else Principal(and_ids=Principal.Set(ids=conditions))


def _any_principal(matchers: Sequence[StringMatcher]) -> Principal:
    ids = [_peer(matcher) for matcher in matchers]
    return ids[0] if len(ids) == 1 else Principal(or_ids=Principal.Set(ids=ids))


def _peer(matcher: StringMatcher) -> Principal:
    return Principal(filter_state=FilterStateMatcher(key=STATE_PEER_PRINCIPAL, string_match=matcher))


def _principal(value: StringMatch, _place: Place) -> Iterable[StringMatcher]:
    """An identity as policies word it, without the scheme."""
    match value.kind:
        case StringKind.PRESENT:
            return (StringMatcher(prefix=_SCHEME),)
        case StringKind.SUFFIX:
            return (StringMatcher(suffix=value.value),)
        case StringKind.PREFIX:
            return (StringMatcher(prefix=_SCHEME + value.value),)
        case StringKind.EXACT:
            return (StringMatcher(exact=_SCHEME + value.value),)


def _namespace(value: StringMatch, place: Place) -> Iterable[StringMatcher]:
    """The namespace part of an identity; one with a slash, or a longer one than can be, is nobody's."""
    text = value.value
    if "/" in text or len(text) > _LONGEST_NAMESPACE:
        return ()
    if value.kind is StringKind.SUFFIX:
        pattern = f"{_SCHEME}[^/]+/ns/[^/]*{re2.escape(text)}/.+"
        return (StringMatcher(safe_regex=RegexMatcher(regex=pattern)),)
    end = "/" if value.kind is StringKind.EXACT else ""
    return [StringMatcher(prefix=f"{_SCHEME}{domain}/ns/{text}{end}") for domain in place.trust_domains]


def _workload(trust_domain: str) -> str:
    return f"{_SCHEME}{re2.escape(trust_domain)}/ns/[^/,]+/sa/[^/,]+"
