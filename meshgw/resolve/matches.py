"""Matches of HTTPRoute and GRPCRoute rules, and the order in which Envoy must try them.

Precedence (Gateway API; every tuple is compared as a whole, smallest first):

- HTTP: exact path, then regular expression (longest pattern first), then path prefix (longest first); a method; most
  headers; most query parameters. The API leaves the place of regular expressions open: after prefixes the usual
  catch-all `/` would hide them all.
- gRPC: exact, then regular expression, then no method at all; characters of the service; characters of the method; most
  headers. They come before all HTTP matches of the same host, as they match nothing but gRPC.

Ties go to the oldest route, then by namespace and name, then to the first match of the route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

import re2

from meshgw.api.grpc import GRPCMethodMatch, GRPCRouteMatch
from meshgw.api.http import HTTPPathMatch, HTTPRouteMatch
from meshgw.api.scalars import HEADER_NAME_PATTERN, PATH_PATTERN
from meshgw.ir.route import Match, PathKind, PathMatch, ValueMatch
from meshgw.names import REGEX_PROGRAM_SIZE
from meshgw.resolve.report import Report

_GRPC, _HTTP = 0, 1
_PATH_RANK = {PathKind.EXACT: 0, PathKind.REGEX: 1, PathKind.PREFIX: 2}
_GRPC_RANK = {"Exact": 0, "RegularExpression": 1}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_NAME = re.compile(HEADER_NAME_PATTERN)
_PATH = re.compile(PATH_PATTERN)
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*\Z")
_GRPC_WORD = re.compile(r"\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*\Z")
_ANY_SEGMENT = "[^/]+"
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.encoding = re2.Options.Encoding.LATIN1  # as Envoy compiles: it matches bytes
_KNOWN_REGEXES = 8192
_SHOWN_CHARACTERS = 80


class _Condition(Protocol):
    @property
    def type(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...


@lru_cache(maxsize=_KNOWN_REGEXES)
def check_regex(pattern: str) -> str:
    """Return why Envoy would refuse the expression, "" if it takes it.

    Envoy matches the whole text with it, byte by byte: a dot is half of an `é`.
    """
    shown = _cut(pattern)
    try:
        size = re2.compile(pattern.encode(), _OPTIONS).programsize
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else "unreadable"
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        return f"regular expression {shown!r} is not RE2: {_cut(reason)}"
    if size > REGEX_PROGRAM_SIZE:
        return f"regular expression {shown!r} is too large: program size {size}, at most {REGEX_PROGRAM_SIZE}"
    return ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def compile_http_matches(report: Report, field: str, matches: Iterable[HTTPRouteMatch]) -> tuple[Match, ...]:
    """Return the matches of an HTTPRoute rule. One that cannot be expressed is left out and reported as an error."""
    compiled = []
    for position, match in enumerate(tuple(matches) or (HTTPRouteMatch(),)):
        part, where = report.part(), f"{field}[{position}]"
        path = _compile_path(part, f"{where}.path", match.path)
        headers = _compile_values(part, f"{where}.headers", match.headers, fold=True)
        query = _compile_values(part, f"{where}.queryParams", match.query_params, fold=False)
        method = match.method or ""
        if method and method not in _METHODS:
            part.refuse("MG4001", f"{where}.method", f"method {method!r} is not one of HTTP's")
        report.errors += part.errors
        if not part.errors:
            compiled.append(
                Match(
                    path=path,
                    method=method,
                    headers=headers,
                    query=query,
                    precedence=_http_precedence(path, method, len(headers), len(query)),
                )
            )
    return tuple(compiled)


def _http_precedence(path: PathMatch, method: str, headers: int, query: int) -> tuple[int, ...]:
    return (_HTTP, _PATH_RANK[path.kind], -len(path.value), 0 if method else 1, -headers, -query)


def compile_grpc_matches(report: Report, field: str, matches: Iterable[GRPCRouteMatch]) -> tuple[Match, ...]:
    """Return the matches of a GRPCRoute rule; no matches match every call."""
    compiled = []
    for position, match in enumerate(tuple(matches) or (GRPCRouteMatch(),)):
        part, where = report.part(), f"{field}[{position}]"
        method = match.method or GRPCMethodMatch()
        path = _compile_method(part, f"{where}.method", method)
        headers = _compile_values(part, f"{where}.headers", match.headers, fold=True)
        report.errors += part.errors
        if not part.errors:
            compiled.append(
                Match(path=path, headers=headers, grpc=True, precedence=_grpc_precedence(method, len(headers)))
            )
    return tuple(compiled)


def _grpc_precedence(method: GRPCMethodMatch, headers: int) -> tuple[int, ...]:
    service, name = method.service or "", method.method or ""
    rank = 2 if not service and not name else _GRPC_RANK[method.type]
    return (_GRPC, rank, -len(service), -len(name), -headers)


def _compile_path(report: Report, field: str, path: HTTPPathMatch) -> PathMatch:
    if path.type == "RegularExpression":
        _check(report, f"{field}.value", path.value)
        return PathMatch(PathKind.REGEX, path.value)
    if flaw := _path_flaw(path.value):
        report.refuse("MG4001", f"{field}.value", f"path {path.value!r} {flaw}")
    if path.type == "Exact":
        return PathMatch(PathKind.EXACT, path.value)
    return PathMatch(PathKind.PREFIX, path.value.rstrip("/") or "/")


def _path_flaw(path: str) -> str:
    """Return what is wrong with a literal path, which must be one that normalised requests can have."""
    if not path.startswith("/"):
        return "does not start with /"
    if any(part in path for part in ("//", "/./", "/../")) or path.endswith(("/.", "/..")):
        return "is not normalised"
    if "%2f" in path.lower():
        return "holds an escaped slash"
    return "" if _PATH.match(path) else "holds characters that no path has"


def _compile_method(report: Report, field: str, method: GRPCMethodMatch) -> PathMatch:
    service, name = method.service or "", method.method or ""
    if not service and not name:
        return PathMatch()
    if method.type == "RegularExpression":
        pattern = f"/(?:{service or _ANY_SEGMENT})/(?:{name or _ANY_SEGMENT})"
        for part in filter(None, (service, name)):
            _check(report, field, part)  # by itself: `a)|(b` is an expression only within the brackets above
        _check(report, field, pattern)
        return PathMatch(PathKind.REGEX, pattern)
    for word in filter(None, (service, name)):
        if not _GRPC_WORD.match(word):
            report.refuse("MG4001", field, f"{word!r} is not a name of a gRPC service or method")
    if not service:
        return PathMatch(PathKind.REGEX, f"/{_ANY_SEGMENT}/{re.escape(name)}")
    return PathMatch(PathKind.EXACT, f"/{service}/{name}") if name else PathMatch(PathKind.PREFIX, f"/{service}")


def _compile_values(report: Report, field: str, items: Iterable[_Condition], *, fold: bool) -> tuple[ValueMatch, ...]:
    """Return header or query parameter conditions; of equal names only the first counts (`fold` ignores case)."""
    values: dict[str, ValueMatch] = {}
    for position, item in enumerate(items):
        name = item.name.lower() if fold else item.name
        if name in values:
            continue
        where = f"{field}[{position}]"
        if not _NAME.match(name):
            report.refuse("MG4001", f"{where}.name", f"{name!r} is not a valid name")
        regex = item.type == "RegularExpression"
        if regex:
            _check(report, f"{where}.value", item.value)
        elif not _VALUE.match(item.value):
            report.refuse("MG4001", f"{where}.value", f"no request has control characters in {name!r}")
        values[name] = ValueMatch(name, item.value, regex)
    return tuple(values.values())


def _check(report: Report, field: str, pattern: str) -> None:
    if error := check_regex(pattern):
        report.refuse("MG4002", field, error)
