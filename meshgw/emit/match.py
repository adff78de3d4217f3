"""Matches of rules as RouteMatch messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from meshgw.ir.route import Match, PathEdit, PathKind, PathMatch, ValueMatch
from meshgw.protos import (
    FractionalPercent,
    HeaderMatcher,
    QueryParameterMatcher,
    RegexMatchAndSubstitute,
    RegexMatcher,
    RouteMatch,
    RuntimeFractionalPercent,
    StringMatcher,
)

_MILLION = FractionalPercent.MILLION
MILLION = 1_000_000


class PathCase(NamedTuple):
    """Part of the paths of a match, and how to change them: as fields of RouteMatch, RouteAction and RedirectAction."""

    match: dict[str, Any]
    rewrite: dict[str, Any]
    redirect: dict[str, Any]


def path_cases(path: PathMatch, edit: PathEdit | None) -> tuple[PathCase, ...]:
    """One or two cases that together cover the path condition, the narrower first.

    Envoy cuts the matched text and puts the new prefix in its place. Two cases keep /old -> / from giving //x for
    /old/x without a regular expression, whose size would depend on the prefix.
    """
    if edit is None:
        return (PathCase(_condition(path), {}, {}),)
    value = edit.value if edit.value.startswith("/") else f"/{edit.value}"
    if not edit.prefix:
        pattern = RegexMatchAndSubstitute(pattern=RegexMatcher(regex="^/.*"), substitution=value.replace("\\", "\\\\"))
        return (PathCase(_condition(path), {"regex_rewrite": pattern}, {"path_redirect": value}),)
    old, new = path.value.rstrip("/"), value.rstrip("/")
    if not old:
        change = {"prefix_rewrite": f"{new}/"}
        return (PathCase({"prefix": "/"}, change, change),)
    if not new:
        change = {"prefix_rewrite": "/"}
        return (PathCase({"path": old}, change, change), PathCase({"prefix": f"{old}/"}, change, change))
    change = {"prefix_rewrite": new}
    return (PathCase({"path_separated_prefix": old}, change, change),)


def build_match(
    match: Match, path: dict[str, Any], *, below: int = 0, headers: Iterable[HeaderMatcher] = ()
) -> RouteMatch:
    """The match with the given path condition.

    `below` restricts it to streams whose random number modulo a million is smaller (0: all). Envoy draws that number
    once for each stream, so routes tried in turn need cumulative bounds.
    """
    built = RouteMatch(**path)
    conditions = [*_headers(match), *headers]
    if conditions:
        built.headers.extend(conditions)
    if match.query:
        built.query_parameters.extend(
            QueryParameterMatcher(name=item.name, string_match=_text(item)) for item in match.query
        )
    if match.grpc:
        built.grpc.SetInParent()
    if below:
        built.runtime_fraction.CopyFrom(
            RuntimeFractionalPercent(default_value=FractionalPercent(numerator=below, denominator=_MILLION))
        )
    return built


def authority_has_port() -> HeaderMatcher:
    """A condition on the Host header: it names a port."""
    return HeaderMatcher(name=":authority", string_match=StringMatcher(safe_regex=RegexMatcher(regex="^.*:[0-9]+$")))


def _condition(path: PathMatch) -> dict[str, Any]:
    if path.kind is PathKind.EXACT:
        return {"path": path.value}
    if path.kind is PathKind.REGEX:
        return {"safe_regex": RegexMatcher(regex=path.value)}
    prefix = path.value.rstrip("/")
    return {"path_separated_prefix": prefix} if prefix else {"prefix": "/"}


def _headers(match: Match) -> list[HeaderMatcher]:
    conditions = [HeaderMatcher(name=item.name, string_match=_text(item)) for item in match.headers]
    if match.method:
        conditions.insert(0, HeaderMatcher(name=":method", string_match=StringMatcher(exact=match.method)))
    return conditions


def _text(item: ValueMatch) -> StringMatcher:
    return StringMatcher(safe_regex=RegexMatcher(regex=item.value)) if item.regex else StringMatcher(exact=item.value)
