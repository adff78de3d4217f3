from __future__ import annotations

import pytest

from meshgw.emit.match import build_match, path_cases
from meshgw.ir.route import PathEdit, PathKind, PathMatch, ValueMatch
from tests.unit.emit.world import match


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (PathMatch(PathKind.EXACT, "/a/"), {"path": "/a/"}),
        (PathMatch(PathKind.PREFIX, "/a"), {"path_separated_prefix": "/a"}),
        (PathMatch(PathKind.PREFIX, "/a/"), {"path_separated_prefix": "/a"}),
        (PathMatch(PathKind.PREFIX, "/"), {"prefix": "/"}),
    ],
)
def test_prefixes_end_at_a_segment(path: PathMatch, expected: dict[str, str]) -> None:
    (case,) = path_cases(path, None)
    assert case.match == expected
    assert case.rewrite == case.redirect == {}


def test_the_root_as_a_new_prefix_takes_two_cases() -> None:
    exact, below = path_cases(PathMatch(PathKind.PREFIX, "/old"), PathEdit("/", prefix=True))
    assert (exact.match, exact.rewrite) == ({"path": "/old"}, {"prefix_rewrite": "/"})
    assert (below.match, below.rewrite) == ({"prefix": "/old/"}, {"prefix_rewrite": "/"})


def test_the_root_as_the_old_prefix_keeps_a_slash_between() -> None:
    (case,) = path_cases(PathMatch(PathKind.PREFIX, "/"), PathEdit("new", prefix=True))
    assert (case.match, case.redirect) == ({"prefix": "/"}, {"prefix_rewrite": "/new/"})


def test_a_whole_new_path_is_literal() -> None:
    (case,) = path_cases(PathMatch(PathKind.REGEX, "/.*"), PathEdit(r"/a\1"))
    assert case.rewrite["regex_rewrite"].substitution == r"/a\\1"
    assert case.redirect == {"path_redirect": r"/a\1"}


def test_all_conditions_hold_together() -> None:
    conditions = match(
        method="GET",
        headers=(ValueMatch("a", "1"), ValueMatch("b", "x+", regex=True)),
        query=(ValueMatch("q", "1"),),
        grpc=True,
    )
    built = build_match(conditions, {"prefix": "/"}, below=10)
    assert [item.name for item in built.headers] == [":method", "a", "b"]
    assert built.headers[2].string_match.safe_regex.regex == "x+"
    assert [item.name for item in built.query_parameters] == ["q"]
    assert built.HasField("grpc")
    assert built.runtime_fraction.default_value.numerator == 10
    plain = build_match(match(), {"prefix": "/"})
    assert not plain.HasField("grpc")
    assert not plain.HasField("runtime_fraction")
