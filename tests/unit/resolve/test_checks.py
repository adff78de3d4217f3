from __future__ import annotations

import pytest

from meshgw.ir.route import (
    Cors,
    ExternalAuth,
    Filters,
    HeaderEdit,
    PathEdit,
    PathKind,
    PathMatch,
    Redirect,
    Rewrite,
    Rule,
    ValueMatch,
)
from meshgw.names import REGEX_PROGRAM_SIZE
from meshgw.resolve import checks
from tests.unit.emit.world import backend, match, target


@pytest.mark.parametrize("domain", ["*", "a.test", "*.a.test", "a-b_c.test", "127.0.0.1", "[::1]"])
def test_domains_are_hosts_or_wildcards(domain: str) -> None:
    assert checks.domain(domain)


@pytest.mark.parametrize(
    "domain", ["", "*a.test", "a.*", "a..test", "A.test", "a.test:80", "a test", "a.test\n", "*.*.x"]
)
def test_what_is_no_host_is_no_domain(domain: str) -> None:
    assert not checks.domain(domain)


def test_regular_expressions_obey_syntax_and_size() -> None:
    assert checks.regex("/a[0-9]+")
    assert not checks.regex("(")
    assert not checks.regex("(?=x)")
    assert not checks.regex("x" * (REGEX_PROGRAM_SIZE + 1))


@pytest.mark.parametrize(
    "conditions",
    [
        {"path": PathMatch(PathKind.REGEX, "[")},
        {"path": PathMatch(PathKind.PREFIX, "/a?b")},
        {"path": PathMatch(PathKind.PREFIX, "a#")},
        {"path": PathMatch(PathKind.EXACT, "")},
        {"headers": (ValueMatch("a b", "x"),)},
        {"headers": (ValueMatch(":path", "x"),)},
        {"headers": (ValueMatch("a", "x\n"),)},
        {"headers": (ValueMatch("a", "(", regex=True),)},
        {"query": (ValueMatch("", "x"),)},
        {"query": (ValueMatch("q", "(", regex=True),)},
        {"method": "GET /"},
    ],
)
def test_matches_that_envoy_refuses_are_found(conditions: dict[str, object]) -> None:
    assert checks.match(match())
    assert not checks.match(match(**conditions))


PREFIX = (match(path=PathMatch(PathKind.PREFIX, "/a")),)
EXACT = (match(path=PathMatch(PathKind.EXACT, "/a")),)
PREFIX_EDIT = PathEdit("/b", prefix=True)


@pytest.mark.parametrize(
    "filters",
    [
        Filters(request=HeaderEdit(set=(("a b", "x"),))),
        Filters(request=HeaderEdit(add=((":path", "x"),))),
        Filters(response=HeaderEdit(remove=("",))),
        Filters(response=HeaderEdit(set=(("a", "x\r\ny"),))),
        Filters(request=HeaderEdit(set=(("a", "x" * 20_000),))),
        Filters(request=HeaderEdit(remove=("Host",))),
        Filters(request=HeaderEdit(add=(("host", "x"),))),
        Filters(request=HeaderEdit(set=(("Host", "a b"),))),
        Filters(redirect=Redirect(scheme="ftp")),
        Filters(redirect=Redirect(status=200)),
        Filters(redirect=Redirect(port=70_000)),
        Filters(redirect=Redirect(hostname="a/b")),
        Filters(rewrite=Rewrite(hostname="a b")),
        Filters(rewrite=Rewrite(path=PathEdit("/\n"))),
        Filters(cors=Cors(methods=("GET\n",))),
        Filters(external_auth=ExternalAuth(target=target(), grpc=False, path="no slash")),
    ],
)
def test_filters_that_envoy_refuses_are_named(filters: Filters) -> None:
    assert checks.rule(Rule(matches=PREFIX, filters=Filters())) == ""
    assert checks.rule(Rule(matches=PREFIX, filters=filters))
    own = backend()
    assert checks.rule(Rule(matches=PREFIX, backends=(type(own)(target=own.target, filters=filters),)))


@pytest.mark.parametrize(
    "filters", [Filters(redirect=Redirect(path=PREFIX_EDIT)), Filters(rewrite=Rewrite(path=PREFIX_EDIT))]
)
def test_prefixes_are_replaced_only_where_prefixes_match(filters: Filters) -> None:
    assert checks.rule(Rule(matches=PREFIX, filters=filters)) == ""
    assert checks.rule(Rule(matches=PREFIX + EXACT, filters=filters))


def test_weights_sum_to_what_envoy_can_hold() -> None:
    assert checks.rule(Rule(matches=PREFIX, backends=(backend(weight=2**32),)))
