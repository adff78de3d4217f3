"""Istio AuthorizationPolicy as waypoints enforce it: its targets, its meaning, and denial where it cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from meshgw import names
from meshgw.api import istio
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Gateway, Role, Settings
from meshgw.ir.mesh import (
    Action,
    Authorization,
    AuthorizationPolicy,
    AuthorizationRule,
    Operation,
    Source,
    StringKind,
    StringMatch,
    WaypointService,
)
from meshgw.resolve.tables import OUR_GATEWAYS, POLICIES, SETTINGS, SINGLE

WORKLOADS_OF = Key("", "")
"""In the place of a Service: traffic addressed to workloads."""

_NAMESPACE_WIDE = "Namespace"
_TARGET_KINDS = {
    ("Gateway", names.GATEWAY_GROUP): "Gateway",
    ("GatewayClass", names.GATEWAY_GROUP): "GatewayClass",
    ("Service", names.CORE_GROUP): "Service",
    ("Service", "core"): "Service",
}
_NO_EFFECT = {"AUDIT": "AUDIT only logs"}


class _UnsupportedError(Exception):
    """Part of a policy is not supported: `args` are the field and the reason."""


def resolve_policy(
    view: View, key: Key, policy: istio.AuthorizationPolicy
) -> Iterable[tuple[Key, AuthorizationPolicy]]:
    """Return the policy if it is one for gateways (it has targetRefs); selectors are the node proxies' business."""
    refs = policy.spec.target_refs or ((policy.spec.target_ref,) if policy.spec.target_ref else ())
    if not refs:
        return
    targets, unknown = _targets(view, key, refs)
    if not targets and not unknown:
        return
    if unknown:
        yield key, _denial(key, (*targets, (_NAMESPACE_WIDE, Key("", key.namespace))), *unknown)
        return
    try:
        yield key, _read(view, key, policy, targets)
    except _UnsupportedError as problem:
        yield key, _denial(key, targets, *problem.args)


def deny_policy(key: Key, _policy: Any, error: BaseException) -> Iterable[tuple[Key, AuthorizationPolicy]]:
    """Deny all of the policy's namespace when reading the policy failed by a bug of ours."""
    targets = ((_NAMESPACE_WIDE, Key("", key.namespace)),)
    yield key, _denial(key, targets, "spec", f"internal error: {type(error).__name__}")


def _denial(key: Key, targets: tuple[tuple[str, Key], ...], field: str, reason: str) -> AuthorizationPolicy:
    finding = Finding(
        code="MG4004",
        object=ObjectRef("AuthorizationPolicy", *key),
        field=field,
        message=f"denies its targets: {reason}",
    )
    return AuthorizationPolicy(
        key=key, action=Action.DENY, targets=targets, rules=(AuthorizationRule(),), findings=(finding,)
    )


def _targets(
    view: View, key: Key, refs: Iterable[istio.PolicyTargetReference]
) -> tuple[tuple[tuple[str, Key], ...], tuple[str, str] | None]:
    """Return the targets that gateways know, and the field and reason of the first that nobody can know."""
    root = _settings(view).root_namespace
    targets: set[tuple[str, Key]] = set()
    for index, ref in enumerate(refs):
        field = f"spec.targetRefs[{index}]"
        kind = _TARGET_KINDS.get((ref.kind, ref.group or ""))
        if ref.kind == "ServiceEntry" and ref.group == names.NETWORKING_GROUP:
            continue  # no gateway serves ServiceEntries, so there is nothing to guard
        if kind is None:
            return tuple(sorted(targets)), (field, f"targets of kind {ref.kind} are not supported")
        if ref.namespace and ref.namespace != key.namespace:
            return tuple(sorted(targets)), (field + ".namespace", "a target must be in the policy's own namespace")
        if kind == "GatewayClass":
            if key.namespace != root:
                return tuple(sorted(targets)), (field, f"a GatewayClass is targeted from namespace {root} only")
            targets.add((kind, Key("", ref.name)))
        else:
            targets.add((kind, Key(key.namespace, ref.name)))
    return tuple(sorted(targets)), None


def _read(
    view: View, key: Key, policy: istio.AuthorizationPolicy, targets: tuple[tuple[str, Key], ...]
) -> AuthorizationPolicy:
    action = policy.spec.action or "ALLOW"
    if policy.metadata.annotations.get(names.ANNOTATION_DRY_RUN) == "true":
        return _without_effect(key, "dry runs are not reported, and never decide")
    if action in _NO_EFFECT:
        return _without_effect(key, _NO_EFFECT[action])
    if action not in Action.__members__:
        raise _UnsupportedError("spec.action", f"action {action} is not supported")
    if policy.spec.selector is not None:
        raise _UnsupportedError("spec.selector", "selector and targetRefs exclude each other")
    aliases = _Aliases(_settings(view))
    rules = tuple(_rule(rule, f"spec.rules[{i}]", aliases) for i, rule in enumerate(policy.spec.rules or ()))
    return AuthorizationPolicy(key=key, action=Action(action), targets=targets, rules=rules)


def _without_effect(key: Key, reason: str) -> AuthorizationPolicy:
    finding = Finding(code="MG4005", object=ObjectRef("AuthorizationPolicy", *key), field="spec.action", message=reason)
    return AuthorizationPolicy(key=key, action=Action.DENY, targets=(), findings=(finding,))


def _rule(rule: istio.Rule, field: str, aliases: _Aliases) -> AuthorizationRule:
    if rule.when:
        raise _UnsupportedError(f"{field}.when", "conditions are not supported")
    sources = tuple(
        _source(entry.source, f"{field}.from[{i}].source", aliases) for i, entry in enumerate(rule.from_ or ())
    )
    operations = tuple(
        _operation(entry.operation, f"{field}.to[{i}].operation") for i, entry in enumerate(rule.to or ())
    )
    return AuthorizationRule(sources=sources, operations=operations)


_SOURCE_FIELDS = ("principals", "not_principals", "namespaces", "not_namespaces")
_OPERATION_FIELDS = (
    "hosts",
    "not_hosts",
    "ports",
    "not_ports",
    "methods",
    "not_methods",
    "paths",
    "not_paths",
)


def _source(source: istio.Source | None, field: str, aliases: _Aliases) -> Source:
    values = _fields(source, field, _SOURCE_FIELDS)
    return Source(
        principals=_matches(values["principals"], lambda value: _principals(value, aliases)),
        not_principals=_matches(values["not_principals"], lambda value: _principals(value, aliases)),
        namespaces=_matches(values["namespaces"]),
        not_namespaces=_matches(values["not_namespaces"]),
    )


def _operation(operation: istio.Operation | None, field: str) -> Operation:
    values = _fields(operation, field, _OPERATION_FIELDS)
    for name in ("paths", "not_paths"):
        if any("{" in path or "}" in path for path in values[name]):
            raise _UnsupportedError(f"{field}.{name}", "path templates are not supported")
    return Operation(
        hosts=_matches(values["hosts"]),
        not_hosts=_matches(values["not_hosts"]),
        ports=_ports(values["ports"], f"{field}.ports"),
        not_ports=_ports(values["not_ports"], f"{field}.notPorts"),
        methods=_matches(values["methods"]),
        not_methods=_matches(values["not_methods"]),
        paths=_matches(values["paths"]),
        not_paths=_matches(values["not_paths"]),
    )


def _fields(value: Any, field: str, supported: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the supported lists of a source or operation; anything else that is set is unsupported."""
    if value is None:
        raise _UnsupportedError(field, "must not be empty")
    found = {name: tuple(getattr(value, name) or ()) for name in value.__struct_fields__}
    for name, content in found.items():
        if content and name not in supported:
            raise _UnsupportedError(f"{field}.{name}", f"{name} is not supported")
        if "" in content:
            raise _UnsupportedError(f"{field}.{name}", "an empty value matches nothing")
    if not any(found.values()):
        raise _UnsupportedError(field, "must not be empty")
    return {name: found[name] for name in supported}


def _matches(
    values: Iterable[str], spell: Callable[[str], Iterable[str]] = lambda value: (value,)
) -> tuple[StringMatch, ...]:
    return tuple(sorted({_match(text) for value in values for text in spell(value)}, key=lambda m: (m.kind, m.value)))


def _match(value: str) -> StringMatch:
    """`*`, `*x`, `x*` or `x`, tried in this order as Istio does."""
    if value == "*":
        return StringMatch(StringKind.PRESENT)
    if value.startswith("*"):
        return StringMatch(StringKind.SUFFIX, value[1:])
    if value.endswith("*"):
        return StringMatch(StringKind.PREFIX, value[:-1])
    return StringMatch(StringKind.EXACT, value)


class _Aliases:
    """The trust domains that mean ours; policies may also write `cluster.local` for it."""

    def __init__(self, settings: Settings) -> None:
        self.spelled = tuple(sorted({settings.trust_domain, *settings.trust_domain_aliases}))
        self.read = frozenset({*self.spelled, names.DEFAULT_TRUST_DOMAIN})


def _principals(value: str, aliases: _Aliases) -> Iterable[str]:
    """Spell a principal for every alias of its trust domain; one of a foreign domain stands as it is."""
    domain, slash, rest = value.partition("/")
    if not slash or domain not in aliases.read:
        return (value,)
    return tuple(f"{alias}/{rest}" for alias in aliases.spelled)


def _ports(values: Iterable[str], field: str) -> tuple[int, ...]:
    ports = set()
    for value in values:
        if not value.isdecimal() or not 0 < int(value) < 65536:
            raise _UnsupportedError(field, f"{value} is not a port")
        ports.add(int(value))
    return tuple(sorted(ports))


def gather_authorization(
    view: View, _table: str, key: Any, row: WaypointService | Gateway
) -> Iterable[tuple[tuple[Key, Key], Authorization]]:
    """Return the policies in force for one service behind a waypoint, or for a waypoint's workload traffic."""
    if isinstance(row, Gateway):
        if row.role is not Role.WAYPOINT:
            return
        waypoint, service = row, WORKLOADS_OF
    else:
        found = view.get(OUR_GATEWAYS, key[0])
        if found is None:
            return
        waypoint, service = found, key[1]
    scopes = [
        ("GatewayClass", Key("", waypoint.class_name)),
        ("Gateway", waypoint.key),
        (_NAMESPACE_WIDE, Key("", waypoint.key.namespace)),
    ]
    if service != WORKLOADS_OF:
        scopes += [("Service", service), (_NAMESPACE_WIDE, Key("", service.namespace))]
    policies = {policy_key: policy for scope in scopes for policy_key, policy in view.by(POLICIES, "target", scope)}
    yield (waypoint.key, service), Authorization(policies=tuple(policies[k] for k in sorted(policies)))


def _settings(view: View) -> Settings:
    return view.get(SETTINGS, SINGLE) or Settings()
