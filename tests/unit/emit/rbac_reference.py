"""Two readings of authorization: what a policy says, and what Envoy makes of RBAC rules. They must agree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from meshgw.emit.rbac import ALLOW_FILTER, DENY_FILTER
from meshgw.ir.mesh import (
    Action,
    AuthorizationPolicy,
    AuthorizationRule,
    Operation,
    Source,
    StringKind,
    StringMatch,
)
from meshgw.names import STATE_PEER_PRINCIPAL
from meshgw.protos import HttpRbacPerRoute, RbacRules


class Request(NamedTuple):
    """A request, or with `http` False a connection, from a peer of a trust domain, namespace and account."""

    domain: str = "td"
    namespace: str = "default"
    account: str = "client"
    host: str = "echo"
    method: str = "GET"
    path: str = "/"
    port: int = 80
    http: bool = True

    @property
    def principal(self) -> str:
        return f"{self.domain}/ns/{self.namespace}/sa/{self.account}"


# --- What a policy says ---------------------------------------------------------------------------------------------


def permits(policies: Sequence[AuthorizationPolicy], request: Request) -> bool:
    """Istio's decision: no DENY rule matches, and an ALLOW rule does if there is any ALLOW policy."""
    if any(_rule(rule, request, Action.DENY) for item in policies if item.action is Action.DENY for rule in item.rules):
        return False
    allows = [item for item in policies if item.action is Action.ALLOW]
    return not allows or any(_rule(rule, request, Action.ALLOW) for item in allows for rule in item.rules)


def _rule(rule: AuthorizationRule, request: Request, action: Action) -> bool:
    if not request.http and action is Action.ALLOW and any(_http_fields(item) for item in rule.operations):
        return False
    return (not rule.sources or any(_source(item, request) for item in rule.sources)) and (
        not rule.operations or any(_operation(item, request, action) for item in rule.operations)
    )


def _http_fields(item: Operation) -> bool:
    return any((item.hosts, item.not_hosts, item.methods, item.not_methods, item.paths, item.not_paths))


def _source(item: Source, request: Request) -> bool:
    return _holds(item.principals, item.not_principals, [request.principal]) and _holds(
        item.namespaces, item.not_namespaces, [request.namespace]
    )


def _operation(item: Operation, request: Request, action: Action) -> bool:
    if (item.ports and request.port not in item.ports) or request.port in item.not_ports:
        return False
    if not request.http:
        return True
    path = request.path.split("?")[0]
    if not _holds(item.methods, item.not_methods, [request.method]) or not _holds(item.paths, item.not_paths, [path]):
        return False
    host = request.host.lower()
    ports_off = [host, *(host[: found.start()] for found in re.finditer(":", host))]
    positive, negative = (ports_off, [host]) if action is Action.DENY else ([host], ports_off)
    lowered = [_lower(item.hosts), _lower(item.not_hosts)]
    return (not item.hosts or _any(lowered[0], positive)) and not _any(lowered[1], negative)


def _lower(values: Iterable[StringMatch]) -> list[StringMatch]:
    return [StringMatch(value.kind, value.value.lower()) for value in values]


def _holds(wanted: Sequence[StringMatch], unwanted: Sequence[StringMatch], texts: Sequence[str]) -> bool:
    return (not wanted or _any(wanted, texts)) and not _any(unwanted, texts)


def _any(values: Iterable[StringMatch], texts: Sequence[str]) -> bool:
    return any(_text(value, text) for value in values for text in texts)


def _text(value: StringMatch, text: str) -> bool:
    match value.kind:
        case StringKind.EXACT:
            return text == value.value
        case StringKind.PREFIX:
            return text.startswith(value.value)
        case StringKind.SUFFIX:
            return text.endswith(value.value)
        case StringKind.PRESENT:
            return True


# --- What Envoy makes of it -----------------------------------------------------------------------------------------


def envoy_permits(configs: dict[str, Any], request: Request) -> bool:
    """The decision of both filters with these per-route configurations."""
    return all(_filter(configs[name], request) for name in (DENY_FILTER, ALLOW_FILTER))


def _filter(config: Any, request: Request) -> bool:
    per_route = HttpRbacPerRoute.FromString(config.value)
    if not per_route.HasField("rbac") or not per_route.rbac.HasField("rules"):
        return True
    rules = per_route.rbac.rules
    matched = any(
        any(_permission(item, request) for item in policy.permissions)
        and any(_identity(item, request) for item in policy.principals)
        for policy in rules.policies.values()
    )
    return matched if rules.action == RbacRules.ALLOW else not matched


def _permission(item: Any, request: Request) -> bool:
    match item.WhichOneof("rule"):
        case "any":
            return bool(item.any)
        case "and_rules":
            return all(_permission(part, request) for part in item.and_rules.rules)
        case "or_rules":
            return any(_permission(part, request) for part in item.or_rules.rules)
        case "not_rule":
            return not _permission(item.not_rule, request)
        case "header":
            return _header(item.header, request)
        case "url_path":
            return _string(item.url_path.path, request.path.split("?")[0])
    raise AssertionError(f"no meaning known for {item}")


def _header(item: Any, request: Request) -> bool:
    http = {":authority": request.host, ":method": request.method, ":path": request.path}
    connect = {":authority": f"10.0.0.1:{request.port}", ":method": "CONNECT"}
    value = (http if request.http else connect).get(item.name)
    if item.WhichOneof("header_match_specifier") == "present_match":
        return (value is not None) is item.present_match
    return value is not None and _string(item.string_match, value)


def _identity(item: Any, request: Request) -> bool:
    match item.WhichOneof("identifier"):
        case "any":
            return bool(item.any)
        case "and_ids":
            return all(_identity(part, request) for part in item.and_ids.ids)
        case "or_ids":
            return any(_identity(part, request) for part in item.or_ids.ids)
        case "not_id":
            return not _identity(item.not_id, request)
        case "filter_state":
            assert item.filter_state.key == STATE_PEER_PRINCIPAL
            return _string(item.filter_state.string_match, f"spiffe://{request.principal}")
    raise AssertionError(f"no meaning known for {item}")


def _string(item: Any, text: str) -> bool:
    kind = item.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return re.fullmatch(item.safe_regex.regex, text) is not None
    wanted: str = getattr(item, kind)
    if item.ignore_case:
        wanted, text = wanted.lower(), text.lower()
    return {
        "exact": text == wanted,
        "prefix": text.startswith(wanted),
        "suffix": text.endswith(wanted),
        "contains": wanted in text,
    }[kind]
