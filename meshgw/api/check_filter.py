"""Rules for the filters of HTTPRoute and GRPCRoute that involve several fields."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from meshgw.api.filters import HTTPHeaderFilter, HTTPRequestMirrorFilter
from meshgw.api.gateway import BackendObjectReference
from meshgw.api.grpc import GRPCRouteFilter
from meshgw.api.http import HTTPCORSFilter, HTTPExternalAuthFilter, HTTPPathModifier, HTTPRouteFilter

Violation = tuple[str, str]

_FIELDS: Final = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestMirror": "request_mirror",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "ExtensionRef": "extension_ref",
    "CORS": "cors",
    "ExternalAuth": "external_auth",
}
_WIRE_NAMES: Final = {
    "request_header_modifier": "requestHeaderModifier",
    "response_header_modifier": "responseHeaderModifier",
    "request_mirror": "requestMirror",
    "request_redirect": "requestRedirect",
    "url_rewrite": "urlRewrite",
    "extension_ref": "extensionRef",
    "cors": "cors",
    "external_auth": "externalAuth",
}
_ONCE: Final = {"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS"}


def filters(where: str, filters: Sequence[HTTPRouteFilter | GRPCRouteFilter]) -> Iterator[Violation]:
    """Rules for a list of filters and for each of them."""
    seen: set[str] = set()
    for index, entry in enumerate(filters):
        if entry.type in seen and entry.type in _ONCE:
            yield f"{where}[{index}]", f"filter {entry.type} cannot be repeated"
        seen.add(entry.type)
        yield from _filter(f"{where}[{index}]", entry)
    if "RequestRedirect" in seen and "URLRewrite" in seen:
        yield where, "RequestRedirect and URLRewrite cannot be used together"


def backend_port(where: str, backend: BackendObjectReference) -> Iterator[Violation]:
    """A Service is only a backend together with a port."""
    if backend.port is None and backend.kind == "Service" and not backend.group:
        yield f"{where}.port", "is required for a Service"


def redirects(filters: Iterable[HTTPRouteFilter]) -> bool:
    """Whether one of the filters answers with a redirect."""
    return any(entry.request_redirect is not None for entry in filters)


def has_prefix_rewrite(filters: Iterable[HTTPRouteFilter]) -> bool:
    """Whether one of the filters replaces the matched prefix."""
    for entry in filters:
        for modifier in (entry.request_redirect, entry.url_rewrite):
            if modifier is not None and modifier.path is not None and modifier.path.type == "ReplacePrefixMatch":
                return True
    return False


def _filter(where: str, entry: HTTPRouteFilter | GRPCRouteFilter) -> Iterator[Violation]:
    wanted = _FIELDS[entry.type]
    for attribute in _FIELDS.values():
        is_set = getattr(entry, attribute, None) is not None
        if attribute == wanted and not is_set:
            yield f"{where}.{_WIRE_NAMES[attribute]}", f"is required for type {entry.type}"
        elif attribute != wanted and is_set:
            yield f"{where}.{_WIRE_NAMES[attribute]}", f"must not be set for type {entry.type}"
    if entry.request_header_modifier is not None:
        yield from _headers(f"{where}.requestHeaderModifier", entry.request_header_modifier)
    if entry.response_header_modifier is not None:
        yield from _headers(f"{where}.responseHeaderModifier", entry.response_header_modifier)
    if entry.request_mirror is not None:
        yield from _mirror(f"{where}.requestMirror", entry.request_mirror)
    if isinstance(entry, HTTPRouteFilter):
        yield from _http_filter(where, entry)


def _http_filter(where: str, entry: HTTPRouteFilter) -> Iterator[Violation]:
    if entry.request_redirect is not None and entry.request_redirect.path is not None:
        yield from _path(f"{where}.requestRedirect.path", entry.request_redirect.path)
    if entry.url_rewrite is not None and entry.url_rewrite.path is not None:
        yield from _path(f"{where}.urlRewrite.path", entry.url_rewrite.path)
    if entry.cors is not None:
        yield from _cors(f"{where}.cors", entry.cors)
    if entry.external_auth is not None:
        yield from _external_auth(f"{where}.externalAuth", entry.external_auth)


def _headers(where: str, headers: HTTPHeaderFilter) -> Iterator[Violation]:
    yield from _unique(f"{where}.set", [header.name for header in headers.set])
    yield from _unique(f"{where}.add", [header.name for header in headers.add])
    yield from _unique(f"{where}.remove", headers.remove)


def _unique(where: str, names: Sequence[str]) -> Iterator[Violation]:
    if len(names) < 2:
        return
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield f"{where}[{index}]", f"`{name}` is listed twice"
        seen.add(name)


def _mirror(where: str, mirror: HTTPRequestMirrorFilter) -> Iterator[Violation]:
    yield from backend_port(f"{where}.backendRef", mirror.backend_ref)
    if mirror.percent is not None and mirror.fraction is not None:
        yield where, "only one of percent and fraction may be set"
    if mirror.fraction is not None and mirror.fraction.numerator > mirror.fraction.denominator:
        yield f"{where}.fraction", "numerator must not be greater than denominator"


def _path(where: str, path: HTTPPathModifier) -> Iterator[Violation]:
    for kind, field, value in (
        ("ReplaceFullPath", "replaceFullPath", path.replace_full_path),
        ("ReplacePrefixMatch", "replacePrefixMatch", path.replace_prefix_match),
    ):
        if kind == path.type and value is None:
            yield f"{where}.{field}", f"is required for type {kind}"
        elif kind != path.type and value is not None:
            yield f"{where}.{field}", f"must not be set for type {path.type}"


def _cors(where: str, cors: HTTPCORSFilter) -> Iterator[Violation]:
    for field, values in (
        ("allowOrigins", cors.allow_origins),
        ("allowMethods", cors.allow_methods),
        ("allowHeaders", cors.allow_headers),
    ):
        yield from _unique(f"{where}.{field}", values)
        if "*" in values and len(values) > 1:
            yield f"{where}.{field}", "`*` cannot be listed beside other values"
    yield from _unique(f"{where}.exposeHeaders", cors.expose_headers)


def _external_auth(where: str, auth: HTTPExternalAuthFilter) -> Iterator[Violation]:
    yield from backend_port(f"{where}.backendRef", auth.backend_ref)
    for kind, field, value in (("GRPC", "grpc", auth.grpc), ("HTTP", "http", auth.http)):
        if kind == auth.protocol and value is None:
            yield f"{where}.{field}", f"is required for protocol {kind}"
        elif kind != auth.protocol and value is not None:
            yield f"{where}.{field}", f"must not be set for protocol {auth.protocol}"
