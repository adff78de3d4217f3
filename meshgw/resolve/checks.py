"""What Envoy would refuse. One refused value rejects a whole listener's routes, so nothing here may slip through."""

from __future__ import annotations

import re
from typing import Final

from meshgw.ir.route import Backend, Filters, HeaderEdit, Match, PathEdit, PathKind, Redirect, Rewrite, Rule
from meshgw.resolve.matches import check_regex

MAX_HEADER: Final = 16384
MAX_WEIGHTS: Final = 2**32 - 1

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_DOMAIN = re.compile(r"\*|(?:\*\.)?[0-9a-z_\-]+(?:\.[0-9a-z_\-]+)*|\[[0-9a-f:.]+\]")
_PATH = re.compile(r"/[^\x00-\x20\x7f?#]*")
_HOST = re.compile(r"[0-9A-Za-z_\-.:\[\]]+")
_SEPARATED = re.compile(r"[^?#]+[^?#/]")


def domain(value: str) -> bool:
    """Whether a virtual host may have this (lower-case) domain."""
    return _DOMAIN.fullmatch(value) is not None


def header_name(value: str) -> bool:
    """Whether this is the name of an ordinary header."""
    return len(value) < MAX_HEADER and _TOKEN.fullmatch(value) is not None


def header_value(value: str) -> bool:
    """Whether a header may have this value."""
    return len(value) < MAX_HEADER and _VALUE.fullmatch(value) is not None


def regex(value: str) -> bool:
    """Whether Envoy compiles this regular expression."""
    return not check_regex(value)


def match(value: Match) -> bool:
    """Whether a request could ever fulfil this match; one that none can is left out."""
    path = value.path
    if path.kind is PathKind.REGEX:
        sound = regex(path.value)
    elif path.kind is PathKind.PREFIX:
        trimmed = path.value.rstrip("/")
        sound = not trimmed or _SEPARATED.fullmatch(trimmed) is not None
    else:
        sound = bool(path.value)
    return (
        sound
        and all(header_name(item.name) and _condition(item.value, expression=item.regex) for item in value.headers)
        and all(item.name and _condition(item.value, expression=item.regex) for item in value.query)
        and (not value.method or header_name(value.method))
    )


def _condition(value: str, *, expression: bool) -> bool:
    return regex(value) if expression else header_value(value)


def rule(value: Rule) -> str:
    """Why Envoy would refuse the rule, "" if it would not."""
    if sum(backend.weight for backend in value.backends) > MAX_WEIGHTS:
        return "the sum of the weights is too large"
    prefixes = all(item.path.kind is PathKind.PREFIX for item in value.matches)
    return filters(value.filters, prefixes=prefixes) or next(
        filter(None, (_backend(backend, prefixes=prefixes) for backend in value.backends)), ""
    )


def _backend(value: Backend, *, prefixes: bool) -> str:
    return "" if value.filters is None else filters(value.filters, prefixes=prefixes)


def filters(value: Filters, *, prefixes: bool) -> str:
    """Why Envoy would refuse the filters, "" if it would not. `prefixes`: every match of the rule is by prefix."""
    reason = _edit(value.request) or _edit(value.response) or _redirect(value.redirect) or _rewrite(value.rewrite)
    if reason:
        return reason
    for change in (value.redirect, value.rewrite):
        if change is not None and change.path is not None and change.path.prefix and not prefixes:
            return "a prefix can only be replaced where all matches are by prefix"
    cors = value.cors
    if cors is not None and not all(map(header_value, (*cors.origins, *cors.methods, *cors.headers, *cors.expose))):
        return "a value of the CORS filter cannot stand in a header"
    auth = value.external_auth
    if auth is not None and auth.path and _PATH.fullmatch(auth.path) is None:
        return f"{auth.path!r} is no path"
    return ""


def _edit(edit: HeaderEdit | None) -> str:
    if edit is None:
        return ""
    for name in (*(name for name, _ in edit.set), *(name for name, _ in edit.add), *edit.remove):
        if not header_name(name):
            return f"{name!r} is no header name"
    for _, text in (*edit.set, *edit.add):
        if not header_value(text):
            return "a header value has control characters or is too long"
    if any(name.lower() == "host" for name in (*edit.remove, *(name for name, _ in edit.add))):
        return "the Host header can be set, but neither added to nor removed"
    if any(name.lower() == "host" and _HOST.fullmatch(text) is None for name, text in edit.set):
        return "the Host header is set to what is no host name"
    return ""


def _redirect(redirect: Redirect | None) -> str:
    if redirect is None:
        return ""
    if redirect.scheme not in {"", "http", "https"}:
        return f"scheme {redirect.scheme!r} is neither http nor https"
    if redirect.status not in {301, 302, 303, 307, 308}:
        return f"{redirect.status} is no redirect status"
    if not 0 <= redirect.port < 65536:
        return f"{redirect.port} is no port"
    return _target(redirect.hostname, redirect.path)


def _rewrite(rewrite: Rewrite | None) -> str:
    return "" if rewrite is None else _target(rewrite.hostname, rewrite.path)


def _target(hostname: str, path: PathEdit | None) -> str:
    if hostname and _HOST.fullmatch(hostname) is None:
        return f"{hostname!r} is no host name"
    if path is not None and path.value and not header_value(path.value):
        return "the new path has control characters"
    return ""
