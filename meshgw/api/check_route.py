"""Rules for routes that involve several fields."""

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Final, Protocol

from meshgw.api.check_filter import backend_port, has_prefix_rewrite, redirects
from meshgw.api.check_filter import filters as check_filters
from meshgw.api.duration import milliseconds
from meshgw.api.filters import SessionPersistence
from meshgw.api.gateway import ParentReference
from meshgw.api.grpc import GRPCMethodMatch, GRPCRoute
from meshgw.api.http import HTTPPathMatch, HTTPRoute, HTTPRouteMatch, HTTPRouteRule, HTTPRouteTimeouts
from meshgw.api.l4 import TCPRoute, TLSRoute, UDPRoute
from meshgw.api.scalars import PATH_PATTERN

Violation = tuple[str, str]

_PATH: Final = re.compile(PATH_PATTERN)
_GRPC_SERVICE: Final = re.compile(r"^\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*\Z")
_GRPC_METHOD: Final = re.compile(r"^[A-Za-z_][A-Za-z_0-9]*\Z")


class _Named(Protocol):
    @property
    def name(self) -> str | None: ...


def http_route(route: HTTPRoute) -> Iterator[Violation]:
    """Rules for an HTTPRoute."""
    yield from _parents(route.spec.parent_refs)
    yield from _rule_names(route.spec.rules)
    for index, rule in enumerate(route.spec.rules):
        yield from _http_rule(f"spec.rules[{index}]", rule)


def grpc_route(route: GRPCRoute) -> Iterator[Violation]:
    """Rules for a GRPCRoute."""
    yield from _parents(route.spec.parent_refs)
    yield from _rule_names(route.spec.rules)
    for index, rule in enumerate(route.spec.rules):
        where = f"spec.rules[{index}]"
        for position, match in enumerate(rule.matches):
            at = f"{where}.matches[{position}]"
            if match.method is not None:
                yield from _grpc_method(f"{at}.method", match.method)
            if len(match.headers) > 1:
                yield from _repeated(f"{at}.headers", (header.name for header in match.headers))
        yield from check_filters(f"{where}.filters", rule.filters)
        for position, backend in enumerate(rule.backend_refs):
            yield from backend_port(f"{where}.backendRefs[{position}]", backend)
            yield from check_filters(f"{where}.backendRefs[{position}].filters", backend.filters)
        if rule.session_persistence is not None:
            yield from _session(f"{where}.sessionPersistence", rule.session_persistence)


def tls_route(route: TLSRoute) -> Iterator[Violation]:
    """Rules for a TLSRoute."""
    for index, hostname in enumerate(route.spec.hostnames):
        if _is_ip(hostname):
            yield f"spec.hostnames[{index}]", "must be a host name, not an IP address"
    yield from l4_route(route)


def l4_route(route: TLSRoute | TCPRoute | UDPRoute) -> Iterator[Violation]:
    """Rules for a TCPRoute or UDPRoute, which hold for a TLSRoute too."""
    yield from _parents(route.spec.parent_refs)
    yield from _rule_names(route.spec.rules)
    for index, rule in enumerate(route.spec.rules):
        for position, backend in enumerate(rule.backend_refs):
            yield from backend_port(f"spec.rules[{index}].backendRefs[{position}]", backend)


def _parents(parents: tuple[ParentReference, ...]) -> Iterator[Violation]:
    if len(parents) < 2:
        return
    seen: dict[tuple[str, str, str | None, str], set[tuple[str | None, int | None]]] = {}
    for index, parent in enumerate(parents):
        sections = seen.setdefault((parent.group, parent.kind, parent.namespace, parent.name), set())
        section = (parent.section_name, parent.port)
        if section in sections:
            yield f"spec.parentRefs[{index}]", "is listed twice"
        elif any(_shape(section) != _shape(other) for other in sections):
            message = "sectionName and port must be set alike on all references to one parent"
            yield f"spec.parentRefs[{index}]", message
        sections.add(section)


def _shape(section: tuple[str | None, int | None]) -> tuple[bool, bool]:
    return section[0] is None, section[1] is None


def _rule_names(rules: Iterable[_Named]) -> Iterator[Violation]:
    names: set[str] = set()
    for index, rule in enumerate(rules):
        if rule.name is None:
            continue
        if rule.name in names:
            yield f"spec.rules[{index}].name", f"`{rule.name}` is used twice"
        names.add(rule.name)


def _repeated(where: str, names: Iterable[str]) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield f"{where}[{index}].name", f"`{name}` is listed twice"
        seen.add(name)


def _http_rule(where: str, rule: HTTPRouteRule) -> Iterator[Violation]:
    for index, match in enumerate(rule.matches):
        yield from _http_match(f"{where}.matches[{index}]", match)
    if rule.filters:
        yield from check_filters(f"{where}.filters", rule.filters)
        if rule.backend_refs and redirects(rule.filters):
            yield f"{where}.backendRefs", "must be empty in a rule that redirects"
    prefix_rewrite = has_prefix_rewrite(rule.filters)
    for index, backend in enumerate(rule.backend_refs):
        yield from backend_port(f"{where}.backendRefs[{index}]", backend)
        if backend.filters:
            yield from check_filters(f"{where}.backendRefs[{index}].filters", backend.filters)
            prefix_rewrite = prefix_rewrite or has_prefix_rewrite(backend.filters)
    if prefix_rewrite and (len(rule.matches) != 1 or rule.matches[0].path.type != "PathPrefix"):
        yield f"{where}.matches", "replacePrefixMatch needs exactly one match, with a path of type PathPrefix"
    if rule.timeouts is not None:
        yield from _timeouts(f"{where}.timeouts", rule.timeouts)
    if rule.session_persistence is not None:
        yield from _session(f"{where}.sessionPersistence", rule.session_persistence)


def _http_match(where: str, match: HTTPRouteMatch) -> Iterator[Violation]:
    message = _path_message(match.path)
    if message:
        yield f"{where}.path.value", message
    if len(match.headers) > 1:
        yield from _repeated(f"{where}.headers", (header.name for header in match.headers))
    if len(match.query_params) > 1:
        yield from _repeated(f"{where}.queryParams", (parameter.name for parameter in match.query_params))


def _path_message(path: HTTPPathMatch) -> str:
    """What is wrong with a path to compare with, or nothing: only a normalised path can ever match."""
    value = path.value
    if path.type == "RegularExpression" or value == "/":
        return ""
    if not value.startswith("/"):
        return "must start with `/`"
    for part in ("//", "/./", "/../", "%2f", "%2F", "#"):
        if part in value:
            return f"must not contain `{part}`"
    if value.endswith(("/.", "/..")):
        return "must not end with `/.` or `/..`"
    return "" if _PATH.match(value) else "has characters that are not allowed in a path"


def _grpc_method(where: str, method: GRPCMethodMatch) -> Iterator[Violation]:
    if not method.service and not method.method:
        yield where, "service or method is required"
    if method.type == "RegularExpression":
        return
    if method.service and not _GRPC_SERVICE.match(method.service):
        yield f"{where}.service", "is not a gRPC service name"
    if method.method and not _GRPC_METHOD.match(method.method):
        yield f"{where}.method", "is not a gRPC method name"


def _timeouts(where: str, timeouts: HTTPRouteTimeouts) -> Iterator[Violation]:
    if timeouts.request is None or timeouts.backend_request is None:
        return
    request = milliseconds(timeouts.request)
    if request and milliseconds(timeouts.backend_request) > request:
        yield f"{where}.backendRequest", "must not be longer than request"


def _session(where: str, session: SessionPersistence) -> Iterator[Violation]:
    if session.cookie_config is None:
        return
    if session.type != "Cookie":
        yield f"{where}.cookieConfig", "must not be set for type Header"
    if session.cookie_config.lifetime_type == "Permanent" and session.absolute_timeout is None:
        yield f"{where}.absoluteTimeout", "is required for a permanent cookie"


def _is_ip(hostname: str) -> bool:
    try:
        ip_address(hostname)
    except ValueError:
        return False
    return True
