"""Istio AuthorizationPolicy as Gateways enforce it: its targets, its meaning, and denial where it cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from meshgw import names
from meshgw.api import istio
from meshgw.api.meta import Key, ObjectRef, wire_name
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
from meshgw.resolve.mesh import find_waypoint
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import (
    CLASSES,
    GATEWAY_CLASSES,
    GATEWAY_PROFILES,
    GATEWAYS,
    POLICIES,
    SERVICES,
    WAYPOINT_SERVICES,
)

WORKLOADS_OF = Key("", "")
"""In the place of a Service: what no Service is named for, at a waypoint traffic addressed to workloads."""

_NOT_UNDERSTOOD = "the field is unknown or null"
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
    spec = policy.spec
    refs = (*spec.target_refs, *((spec.target_ref,) if spec.target_ref else ()))
    targets, flaw = _targets(view, key, refs)
    flaw = flaw or _unreadable_target(policy)
    if flaw:
        yield key, _denial(key, (*targets, (_NAMESPACE_WIDE, Key("", key.namespace))), *flaw)
    elif targets:
        try:
            resolved = _read(view, key, policy, targets)
        except _UnsupportedError as problem:
            resolved = _denial(key, targets, *problem.args)
        yield key, _remark(view, resolved)


def _unreadable_target(policy: istio.AuthorizationPolicy) -> tuple[str, str] | None:
    """Return field and reason if what the policy targets was not understood in full."""
    path = policy.unknown_target
    return None if path is None else (path, policy.unreadable or _NOT_UNDERSTOOD)


def _remark(view: View, policy: AuthorizationPolicy) -> AuthorizationPolicy:
    """Add a finding if no target is anything that we serve, or others might; and if one knows no identities."""
    about = ObjectRef("AuthorizationPolicy", *policy.key)
    findings = []
    if policy.targets and not any(_is_known(view, kind, key) for kind, key in policy.targets):
        message = "no target is a Gateway of ours, or a Service behind a waypoint of ours"
        findings.append(Finding(code="MG4005", object=about, field="spec.targetRefs", message=message))
    strangers = [f"{kind} {key}" for kind, key in policy.targets if _serves_strangers(view, kind, key)]
    if strangers and any(rule.sources for rule in policy.rules):
        consequence = "allow nobody" if policy.action is Action.ALLOW else "deny everybody"
        message = f"rules with `from` {consequence} at {', '.join(strangers)}: clients have no identity there"
        findings.append(Finding(code="MG4007", object=about, field="spec.rules", message=message))
    return msgspec.structs.replace(policy, findings=(*policy.findings, *findings)) if findings else policy


def _serves_strangers(view: View, kind: str, key: Key) -> bool:
    """Whether a target is a Gateway of ours, or a class of such, whose clients have no mesh identity."""
    if kind == "Gateway":
        gateway = view.get(GATEWAY_PROFILES, key)
        return gateway is not None and gateway.role is not Role.WAYPOINT
    its_class = view.get(CLASSES, key.name) if kind == "GatewayClass" else None
    return its_class is not None and its_class.role is not Role.WAYPOINT


def _is_known(view: View, kind: str, key: Key) -> bool:
    match kind:
        case "GatewayClass":
            return view.get(GATEWAY_CLASSES, key) is not None
        case "Gateway":
            return view.get(GATEWAYS, key) is not None
        case _:
            return bool(view.by(WAYPOINT_SERVICES, "service", key)) or _is_behind_another(view, key)


def _is_behind_another(view: View, service: Key) -> bool:
    """Whether the Service is behind another controller's waypoint."""
    row = view.get(SERVICES, service)
    choice = find_waypoint(view, service, row.metadata.labels) if row else None
    if choice is None or view.get(GATEWAY_PROFILES, choice.waypoint) is not None:
        return False
    return view.get(GATEWAYS, choice.waypoint) is not None


def deny_policy(
    key: Key, policy: istio.AuthorizationPolicy, error: BaseException
) -> Iterable[tuple[Key, AuthorizationPolicy]]:
    """Deny all that the policy names, and all of its namespace, when reading it failed by a bug of ours."""
    refs = (*policy.spec.target_refs, *((policy.spec.target_ref,) if policy.spec.target_ref else ()))
    if not refs and not _unreadable_target(policy):
        return
    targets = (*(_target(key, ref.kind, ref.name) for ref in refs), (_NAMESPACE_WIDE, Key("", key.namespace)))
    yield key, _denial(key, targets, "spec", f"internal error: {type(error).__name__}", code="MG9001")


def _denial(
    key: Key, targets: tuple[tuple[str, Key], ...], field: str, reason: str, *, code: str = "MG4004"
) -> AuthorizationPolicy:
    finding = Finding(
        code=code,
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
    targets: set[tuple[str, Key]] = set()
    flaws = []
    root = read_settings(view).root_namespace
    for index, ref in enumerate(refs):
        field = f"spec.targetRefs[{index}]"
        kind = _TARGET_KINDS.get((ref.kind, ref.group))
        if (ref.kind, ref.group) == ("ServiceEntry", names.NETWORKING_GROUP):
            continue  # no gateway serves ServiceEntries, so there is nothing to guard
        if kind is None:
            flaws.append((field, f"targets of kind {ref.kind} are not supported"))
        elif ref.namespace and ref.namespace != key.namespace:
            flaws.append((f"{field}.namespace", "a target must be in the policy's own namespace"))
        elif kind == "GatewayClass" and key.namespace != root:
            flaws.append((field, f"a GatewayClass is targeted from namespace {root} only"))
        else:
            targets.add(_target(key, kind, ref.name))
    return tuple(sorted(targets)), flaws[0] if flaws else None


def _target(policy: Key, kind: str, name: str) -> tuple[str, Key]:
    return kind, Key("" if kind == "GatewayClass" else policy.namespace, name)


def _read(
    view: View, key: Key, policy: istio.AuthorizationPolicy, targets: tuple[tuple[str, Key], ...]
) -> AuthorizationPolicy:
    action = policy.spec.action
    if policy.unreadable:
        raise _UnsupportedError("spec", policy.unreadable)
    if policy.metadata.annotations.get(names.ANNOTATION_DRY_RUN) == "true":
        return _without_effect(key, "dry runs are not reported, and never decide")
    if action in _NO_EFFECT:
        return _without_effect(key, _NO_EFFECT[action])
    if action not in Action.__members__:
        raise _UnsupportedError("spec.action", f"action {action} is not supported")
    for path in policy.unknown_fields:
        raise _UnsupportedError(path, _NOT_UNDERSTOOD)
    if policy.spec.selector is not None:
        raise _UnsupportedError("spec.selector", "selector and targetRefs exclude each other")
    if policy.spec.provider is not None:
        raise _UnsupportedError("spec.provider", "providers are not supported")
    aliases = _Aliases(read_settings(view))
    rules = tuple(_rule(rule, f"spec.rules[{i}]", aliases) for i, rule in enumerate(policy.spec.rules or ()))
    return AuthorizationPolicy(key=key, action=Action(action), targets=targets, rules=rules)


def _without_effect(key: Key, reason: str) -> AuthorizationPolicy:
    finding = Finding(code="MG4008", object=ObjectRef("AuthorizationPolicy", *key), field="spec.action", message=reason)
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
            raise _UnsupportedError(f"{field}.{wire_name(name)}", "path templates are not supported")
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
            raise _UnsupportedError(f"{field}.{wire_name(name)}", f"{wire_name(name)} is not supported")
        if "" in content:
            raise _UnsupportedError(f"{field}.{wire_name(name)}", "an empty value matches nothing")
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
        self.spelled = tuple(sorted(settings.trust_domains))
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
        if not (value.isascii() and value.isdecimal()) or not 0 < int(value) < 65536:
            raise _UnsupportedError(field, f"{value} is not a port")
        ports.add(int(value))
    return tuple(sorted(ports))


def gather_authorization(
    view: View, _table: str, key: Any, row: WaypointService | Gateway
) -> Iterable[tuple[tuple[Key, Key], Authorization]]:
    """Return the policies in force for one service behind a waypoint, or for a Gateway as a whole.

    The latter is what guards a waypoint's traffic to workloads, and all that other Gateways serve.
    """
    if isinstance(row, Gateway):
        gateway, service = row, WORKLOADS_OF
    else:
        found = view.get(GATEWAY_PROFILES, key[0])
        if found is None:
            return
        gateway, service = found, key[1]
    scopes = [
        ("GatewayClass", Key("", gateway.class_name)),
        ("Gateway", gateway.key),
        (_NAMESPACE_WIDE, Key("", gateway.key.namespace)),
    ]
    if service != WORKLOADS_OF:
        scopes += [("Service", service), (_NAMESPACE_WIDE, Key("", service.namespace))]
    policies = {policy_key: policy for scope in scopes for policy_key, policy in view.by(POLICIES, "target", scope)}
    yield (gateway.key, service), Authorization(policies=tuple(policies[k] for k in sorted(policies)))


def deny_authorization(
    _table: Any, _key: Any, row: Gateway | WaypointService, error: BaseException
) -> Iterable[tuple[tuple[Key, Key], Authorization]]:
    """Deny everything when gathering the policies failed by a bug of ours."""
    place = (row.key, WORKLOADS_OF) if isinstance(row, Gateway) else (row.gateway, row.service)
    denial = _denial(Key("", ""), (), "spec", f"internal error: {type(error).__name__}", code="MG9001")
    yield place, Authorization(policies=(denial,))
