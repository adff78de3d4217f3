"""Filters of rules and of single backends.

Header values stay literal here: what is special to Envoy in them (`%`) is the emitter's to escape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from meshgw.api.filters import HTTPHeader, HTTPHeaderFilter, HTTPRequestMirrorFilter
from meshgw.api.gateway import BackendObjectReference
from meshgw.api.grpc import GRPCRouteFilter
from meshgw.api.http import (
    HTTPCORSFilter,
    HTTPExternalAuthFilter,
    HTTPPathModifier,
    HTTPRequestRedirectFilter,
    HTTPRouteFilter,
    HTTPURLRewriteFilter,
)
from meshgw.api.scalars import HEADER_NAME_PATTERN, ORIGIN_PATTERN, SUBDOMAIN_PATTERN
from meshgw.engine import View
from meshgw.ir.keys import BackendTarget
from meshgw.ir.route import Cors, ExternalAuth, Filters, HeaderEdit, Mirror, PathEdit, Redirect, Rewrite
from meshgw.resolve.backends import resolve_backend
from meshgw.resolve.report import BadRef, Report

Filter: TypeAlias = HTTPRouteFilter | GRPCRouteFilter

_NAME = re.compile(HEADER_NAME_PATTERN)
_END = r"\Z"
_HOST = re.compile(SUBDOMAIN_PATTERN)
_ORIGIN = re.compile(ORIGIN_PATTERN)
_AUTHORITY = re.compile(rf"{SUBDOMAIN_PATTERN.removesuffix(_END)}(:[0-9]{{1,5}})?\Z", re.IGNORECASE)
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]+\Z")
_NEW_PATH = re.compile(r"/[\x21-\x7e]*\Z")
_VALUE_BYTES = 16384  # Envoy's own limit
_HOST_HEADER = "host"
_FRAMING = frozenset({"content-length", "transfer-encoding"})
"""Headers whose editing would let one message pass for two."""
_REDIRECT_CODES = frozenset({301, 302, 303, 307, 308})
_MIRROR = "RequestMirror"


def compile_filters(
    view: View, report: Report, field: str, filters: Sequence[Filter], *, protocol: str, prefixes: bool
) -> Filters:
    """Return the filters of a rule or backend. Each that cannot be served is an error in the report.

    `protocol` is that of mirrors' targets; `prefixes` says whether every match is of a path prefix, which replacing the
    matched prefix needs.
    """
    compiler = _Compiler(view, report, protocol, prefixes=prefixes)
    for position, item in enumerate(filters):
        where = f"{field}[{position}]"
        if item.type != _MIRROR and any(item.type == other.type for other in filters[:position]):
            report.refuse("MG4001", where, f"filter {item.type} is repeated")
        elif not compiler.add(item, where):
            report.refuse("MG4003", where, f"filter {item.type} is not served")
    if compiler.redirect and compiler.rewrite:
        report.refuse("MG4001", field, "RequestRedirect and URLRewrite exclude each other")
    return compiler.filters()


class _Compiler:
    """The filters of one list so far."""

    def __init__(self, view: View, report: Report, protocol: str, *, prefixes: bool) -> None:
        self._view = view
        self._report = report
        self._protocol = protocol
        self._prefixes = prefixes
        self._request: HeaderEdit | None = None
        self._response: HeaderEdit | None = None
        self.redirect: Redirect | None = None
        self.rewrite: Rewrite | None = None
        self._cors: Cors | None = None
        self._mirrors: list[Mirror] = []
        self._external_auth: ExternalAuth | None = None

    def filters(self) -> Filters:
        """Return them as a value."""
        return Filters(
            request=self._request,
            response=self._response,
            redirect=self.redirect,
            rewrite=self.rewrite,
            cors=self._cors,
            mirrors=tuple(self._mirrors),
            external_auth=self._external_auth,
        )

    def add(self, item: Filter, field: str) -> bool:
        """Add one filter; return whether its kind is served and its settings are there."""
        if item.type == "RequestHeaderModifier" and item.request_header_modifier:
            self._request = compile_header_edit(
                self._report, f"{field}.requestHeaderModifier", item.request_header_modifier, host=True
            )
        elif item.type == "ResponseHeaderModifier" and item.response_header_modifier:
            self._response = compile_header_edit(
                self._report, f"{field}.responseHeaderModifier", item.response_header_modifier, host=False
            )
        elif item.type == _MIRROR and item.request_mirror:
            self._mirror(item.request_mirror, f"{field}.requestMirror")
        elif isinstance(item, HTTPRouteFilter):
            return self._add_http(item, field)
        else:
            return False
        return True

    def _add_http(self, item: HTTPRouteFilter, field: str) -> bool:
        if item.type == "RequestRedirect" and item.request_redirect:
            self.redirect = self._redirect(item.request_redirect, f"{field}.requestRedirect")
        elif item.type == "URLRewrite" and item.url_rewrite:
            self.rewrite = self._rewrite(item.url_rewrite, f"{field}.urlRewrite")
        elif item.type == "CORS" and item.cors:
            self._cors = _compile_cors(self._report, f"{field}.cors", item.cors)
        elif item.type == "ExternalAuth" and item.external_auth:
            self._external_auth = self._authorizer(item.external_auth, f"{field}.externalAuth")
        else:
            return False
        return True

    def _target(self, ref: BackendObjectReference, field: str, protocol: str) -> BackendTarget | None:
        resolved = resolve_backend(self._view, self._report, field, ref, protocol)
        if isinstance(resolved, BadRef):
            self._report.bad_ref(field, resolved)
            return None
        return resolved

    def _mirror(self, item: HTTPRequestMirrorFilter, field: str) -> None:
        """Add a mirror; one whose backend is bad is left out, and the rule is served."""
        target = self._target(item.backend_ref, f"{field}.backendRef", self._protocol)
        share = (100, 100)
        if item.fraction is not None:
            share = (item.fraction.numerator, item.fraction.denominator)
        elif item.percent is not None:
            share = (item.percent, 100)
        numerator, denominator = share
        if not 0 <= numerator <= denominator or denominator < 1:
            self._report.refuse("MG4001", field, f"{numerator} of {denominator} requests is no share")
        elif target and numerator:
            self._mirrors.append(Mirror(target=target, numerator=numerator, denominator=denominator))

    def _redirect(self, item: HTTPRequestRedirectFilter, field: str) -> Redirect:
        if item.scheme not in {None, "http", "https"}:
            self._report.refuse("MG4001", f"{field}.scheme", f"scheme {item.scheme!r} is neither http nor https")
        if item.status_code not in _REDIRECT_CODES:
            self._report.refuse("MG4001", f"{field}.statusCode", f"status {item.status_code} is no redirect")
        return Redirect(
            scheme=item.scheme or "",
            hostname=self._hostname(item.hostname, f"{field}.hostname"),
            port=item.port or 0,
            path=self._path(item.path, f"{field}.path"),
            status=item.status_code,
        )

    def _rewrite(self, item: HTTPURLRewriteFilter, field: str) -> Rewrite:
        path = self._path(item.path, f"{field}.path")
        if path and "#" in path.value:
            self._report.refuse("MG4001", f"{field}.path", f"path {path.value!r} holds a fragment")
        return Rewrite(hostname=self._hostname(item.hostname, f"{field}.hostname"), path=path)

    def _hostname(self, hostname: str | None, field: str) -> str:
        if hostname and not _HOST.match(hostname):
            self._report.refuse("MG4001", field, f"{hostname!r} is not a host name")
        return hostname or ""

    def _path(self, item: HTTPPathModifier | None, field: str) -> PathEdit | None:
        if item is None:
            return None
        prefix = item.type == "ReplacePrefixMatch"
        value = (item.replace_prefix_match if prefix else item.replace_full_path) or "/"
        if not _NEW_PATH.match(value):  # without the slash it would lengthen the host name
            self._report.refuse("MG4001", field, f"{value!r} is not an absolute path")
        if prefix and not self._prefixes:
            self._report.refuse("MG4001", field, "replacing the matched prefix needs path prefixes in all matches")
        return PathEdit(value, prefix)

    def _authorizer(self, item: HTTPExternalAuthFilter, field: str) -> ExternalAuth | None:
        """Return the authorizer. Without one the rule cannot be served: nobody would be asked."""
        grpc = item.protocol == "GRPC"
        target = self._target(item.backend_ref, f"{field}.backendRef", "grpc" if grpc else "")
        if target is None:
            self._report.refuse("MG4001", f"{field}.backendRef", "the external authorizer cannot be reached")
            return None
        path = (item.http.path if item.http else None) or ""
        request = item.grpc.allowed_headers if grpc and item.grpc else ()
        if not grpc and item.http:
            request = item.http.allowed_headers
        response = item.http.allowed_response_headers if not grpc and item.http else ()
        return ExternalAuth(
            target=target,
            grpc=grpc,
            path=path if grpc or not path or path.startswith("/") else f"/{path}",
            request_headers=_names(self._report, f"{field}.allowedHeaders", request),
            response_headers=_names(self._report, f"{field}.allowedResponseHeaders", response),
            max_body=item.forward_body.max_size if item.forward_body else 0,
        )


def compile_header_edit(report: Report, field: str, item: HTTPHeaderFilter, *, host: bool) -> HeaderEdit:
    """Return header changes with lower-case names; of equal names in one list the first counts, as the API says.

    `host` says whether the Host header may be set: in requests, to a host name; Envoy allows no other change of it.
    """
    edit = HeaderEdit(
        set=_headers(report, f"{field}.set", item.set, host=host),
        add=_headers(report, f"{field}.add", item.add),
        remove=_names(report, f"{field}.remove", item.remove, _forbidden),
    )
    seen: set[str] = set()
    for names in ([name for name, _ in edit.set], [name for name, _ in edit.add], edit.remove):
        for name in seen.intersection(names):
            report.refuse("MG4001", field, f"header {name} has more than one action")
        seen.update(names)
    return edit


def _headers(
    report: Report, field: str, headers: Iterable[HTTPHeader], *, host: bool = False
) -> tuple[tuple[str, str], ...]:
    edits: dict[str, str] = {}
    for position, header in enumerate(headers):
        name, where = header.name.lower(), f"{field}[{position}]"
        if name in edits:
            continue
        if host and name == _HOST_HEADER:
            if not _AUTHORITY.match(header.value):
                report.refuse("MG4001", f"{where}.value", f"{header.value!r} is not a host name")
        elif flaw := _forbidden(name):
            report.refuse("MG4001", f"{where}.name", flaw)
        if not _VALUE.match(header.value) or len(header.value.encode()) > _VALUE_BYTES:
            report.refuse("MG4001", f"{where}.value", f"the value of header {name} is empty, too long or not printable")
        edits[name] = header.value
    return tuple(edits.items())


def _names(
    report: Report, field: str, names: Iterable[str], flaw_of: Callable[[str], str] | None = None
) -> tuple[str, ...]:
    distinct = dict.fromkeys(name.lower() for name in names)
    for name in distinct:
        if flaw := (flaw_of or _misnamed)(name):
            report.refuse("MG4001", field, flaw)
    return tuple(distinct)


def _misnamed(name: str) -> str:
    return "" if _NAME.match(name) else f"{name!r} is not a header name"


def _forbidden(name: str) -> str:
    if name == _HOST_HEADER:
        return "header host may not be edited: it can be set in requests only"
    return f"header {name} may not be edited: it frames the message" if name in _FRAMING else _misnamed(name)


def _compile_cors(report: Report, field: str, item: HTTPCORSFilter) -> Cors:
    for origin in item.allow_origins:
        if not _ORIGIN.match(origin):
            report.refuse("MG4001", f"{field}.allowOrigins", f"{origin!r} is not an origin")
    return Cors(
        origins=tuple(dict.fromkeys(item.allow_origins)),
        methods=tuple(dict.fromkeys(item.allow_methods)),
        headers=_names(report, f"{field}.allowHeaders", item.allow_headers),
        expose=_names(report, f"{field}.exposeHeaders", item.expose_headers),
        credentials=bool(item.allow_credentials),
        max_age=item.max_age,
    )
