from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.api.grpc import GRPCHeaderMatch, GRPCMethodMatch, GRPCRouteMatch
from meshgw.api.http import HTTPHeaderMatch, HTTPPathMatch, HTTPQueryParamMatch, HTTPRouteMatch
from meshgw.api.meta import ObjectRef
from meshgw.ir.route import Match, PathKind, PathMatch, ValueMatch
from meshgw.names import REGEX_PROGRAM_SIZE
from meshgw.resolve.matches import check_regex, compile_grpc_matches, compile_http_matches
from meshgw.resolve.report import Report


def report() -> Report:
    return Report(ObjectRef("HTTPRoute", "default", "r"))


def http(*matches: HTTPRouteMatch) -> tuple[Match, ...]:
    notes = report()
    compiled = compile_http_matches(notes, "matches", matches)
    assert notes.errors == []
    return compiled


def grpc(*matches: GRPCRouteMatch) -> tuple[Match, ...]:
    notes = report()
    compiled = compile_grpc_matches(notes, "matches", matches)
    assert notes.errors == []
    return compiled


def path(value: str, kind: str = "PathPrefix") -> HTTPRouteMatch:
    return HTTPRouteMatch(path=HTTPPathMatch(type=kind, value=value))  # type: ignore[arg-type]


def test_no_match_is_the_prefix_of_everything() -> None:
    assert http() == http(HTTPRouteMatch())
    assert http()[0].path == PathMatch(PathKind.PREFIX, "/")


@pytest.mark.parametrize(("value", "kept"), [("/", "/"), ("/a", "/a"), ("/a/", "/a"), ("/a/b/", "/a/b")])
def test_a_prefix_loses_its_trailing_slash(value: str, kept: str) -> None:
    assert http(path(value))[0].path == PathMatch(PathKind.PREFIX, kept)


def test_an_exact_path_keeps_its_trailing_slash() -> None:
    assert http(path("/a/", "Exact"))[0].path == PathMatch(PathKind.EXACT, "/a/")


@pytest.mark.parametrize(
    "value", ["a", "/a//b", "/a/./b", "/a/../b", "/a/..", "/a/.", "/a%2Fb", "/a%2fb", "/a#b", "/a?b", "/a b", "/ä", ""]
)
@pytest.mark.parametrize("kind", ["Exact", "PathPrefix"])
def test_a_path_that_no_request_can_have_is_an_error(value: str, kind: str) -> None:
    notes = report()
    assert compile_http_matches(notes, "spec.rules[0].matches", [path(value, kind)]) == ()
    assert len(notes.errors) == 1
    assert [(f.code, f.field) for f in notes.findings] == [("MG4001", "spec.rules[0].matches[0].path.value")]


def test_a_bad_match_leaves_its_neighbours() -> None:
    notes = report()
    compiled = compile_http_matches(notes, "m", [path("/good"), path("(", "RegularExpression"), path("/too")])
    assert [match.path.value for match in compiled] == ["/good", "/too"]
    assert [finding.field for finding in notes.findings] == ["m[1].path.value"]


def test_header_names_ignore_case_and_the_first_counts() -> None:
    headers = (HTTPHeaderMatch(name="X-A", value="1"), HTTPHeaderMatch(name="x-a", value="2"))
    (match,) = http(HTTPRouteMatch(headers=headers))
    assert match.headers == (ValueMatch("x-a", "1"),)


def test_query_parameter_names_keep_case_and_the_first_counts() -> None:
    query = tuple(HTTPQueryParamMatch(name=name, value=value) for name, value in (("A", "1"), ("a", "2"), ("A", "3")))
    (match,) = http(HTTPRouteMatch(query_params=query))
    assert match.query == (ValueMatch("A", "1"), ValueMatch("a", "2"))


def test_regular_expressions_of_values_are_marked_and_checked() -> None:
    good = HTTPHeaderMatch(name="a", value="v[12]", type="RegularExpression")
    assert http(HTTPRouteMatch(headers=(good,)))[0].headers == (ValueMatch("a", "v[12]", True),)
    notes = report()
    bad = HTTPQueryParamMatch(name="q", value="(?!x)", type="RegularExpression")
    assert compile_http_matches(notes, "m", [HTTPRouteMatch(query_params=(bad,))]) == ()
    assert [(f.code, f.field) for f in notes.findings] == [("MG4002", "m[0].queryParams[0].value")]


def test_a_header_name_with_a_colon_is_an_error() -> None:
    notes = report()
    header = HTTPHeaderMatch(name=":path", value="/x")
    assert compile_http_matches(notes, "m", [HTTPRouteMatch(headers=(header,))]) == ()
    assert notes.findings[0].field == "m[0].headers[0].name"


def test_an_unknown_method_is_an_error() -> None:
    notes = report()
    assert compile_http_matches(notes, "m", [HTTPRouteMatch(method="BREW")]) == ()  # type: ignore[arg-type]
    assert notes.errors == ["method 'BREW' is not one of HTTP's"]


@pytest.mark.parametrize("pattern", ["/v[0-9]+/.*", "", "(?i)/api", r"/\w+\.json"])
def test_re2_expressions_pass(pattern: str) -> None:
    assert check_regex(pattern) == ""


@pytest.mark.parametrize("pattern", ["(", "[a", "(?=x)", r"(a)\1", "x{1001}", "(?<=y)z"])
def test_what_is_not_re2_is_refused_with_its_reason(pattern: str) -> None:
    assert check_regex(pattern).startswith("regular expression ")
    assert "is not RE2: " in check_regex(pattern)


def test_a_program_larger_than_envoys_limit_is_refused() -> None:
    assert check_regex(f"x{{{REGEX_PROGRAM_SIZE - 10}}}") == ""
    assert "is too large: program size" in check_regex(f"x{{{REGEX_PROGRAM_SIZE}}}")


def test_expressions_are_of_bytes_as_in_envoy() -> None:
    assert check_regex("é+[ä-ü]") == ""
    assert "invalid escape sequence" in check_regex(r"\x{1F600}")
    assert check_regex(f".{{{REGEX_PROGRAM_SIZE // 4}}}") == ""  # four times as large, were a dot a character


def test_a_long_expression_is_cut_in_messages() -> None:
    assert len(check_regex("(" * 1000)) < 250


def test_text_that_is_no_unicode_is_refused() -> None:
    assert "is not RE2" in check_regex("\ud800")


@pytest.mark.parametrize("value", ["a\r\nb", "\x00", "a\x7f"])
def test_values_that_no_request_has_are_errors(value: str) -> None:
    notes = report()
    bad = HTTPQueryParamMatch(name="a", value=value)
    assert compile_http_matches(notes, "m", [HTTPRouteMatch(query_params=(bad,))]) == ()
    assert [(f.code, f.field) for f in notes.findings] == [("MG4001", "m[0].queryParams[0].value")]


def test_a_grpc_match_of_service_and_method_is_an_exact_path() -> None:
    (match,) = grpc(GRPCRouteMatch(method=GRPCMethodMatch(service="a.B", method="Get")))
    assert match.path == PathMatch(PathKind.EXACT, "/a.B/Get")
    assert match.grpc


def test_a_grpc_match_of_a_service_is_a_prefix_and_of_a_method_an_expression() -> None:
    (service,) = grpc(GRPCRouteMatch(method=GRPCMethodMatch(service="a.B")))
    (method,) = grpc(GRPCRouteMatch(method=GRPCMethodMatch(method="Get")))
    assert service.path == PathMatch(PathKind.PREFIX, "/a.B")
    assert method.path == PathMatch(PathKind.REGEX, "/[^/]+/Get")


def test_a_grpc_match_without_a_method_takes_every_call() -> None:
    assert grpc() == grpc(GRPCRouteMatch())
    assert grpc()[0].path == PathMatch(PathKind.PREFIX, "/")


def test_grpc_expressions_are_held_together() -> None:
    method = GRPCMethodMatch(type="RegularExpression", service="a|b")
    assert grpc(GRPCRouteMatch(method=method))[0].path == PathMatch(PathKind.REGEX, "/(?:a|b)/(?:[^/]+)")


@pytest.mark.parametrize(
    "method",
    [
        GRPCMethodMatch(type="RegularExpression", service="a)|(b"),
        GRPCMethodMatch(type="RegularExpression", service="a", method="("),
        GRPCMethodMatch(service="a/b"),
        GRPCMethodMatch(service="a", method="Get?x"),
    ],
)
def test_bad_grpc_methods_are_errors(method: GRPCMethodMatch) -> None:
    notes = report()
    assert compile_grpc_matches(notes, "m", [GRPCRouteMatch(method=method)]) == ()
    assert {finding.field for finding in notes.findings} == {"m[0].method"}


def test_grpc_matches_come_before_http_matches() -> None:
    (call,), (page,) = grpc(), http(path("/very/long/path", "Exact"))
    assert call.precedence < page.precedence


def test_longer_services_come_first_then_longer_methods_then_headers() -> None:
    header = (GRPCHeaderMatch(name="a", value="b"),)
    expected = [
        GRPCRouteMatch(method=GRPCMethodMatch(service="long.Service", method="M")),
        GRPCRouteMatch(method=GRPCMethodMatch(service="Service", method="Method")),
        GRPCRouteMatch(method=GRPCMethodMatch(service="Service", method="M"), headers=header),
        GRPCRouteMatch(method=GRPCMethodMatch(service="Service", method="M")),
        GRPCRouteMatch(method=GRPCMethodMatch(service="Service")),
        GRPCRouteMatch(method=GRPCMethodMatch(method="Method")),
        GRPCRouteMatch(method=GRPCMethodMatch(type="RegularExpression", service="Service.*")),
        GRPCRouteMatch(headers=header),
        GRPCRouteMatch(),
    ]
    precedences = [grpc(match)[0].precedence for match in expected]
    assert precedences == sorted(precedences)
    assert len(set(precedences)) == len(precedences)


def test_regular_expressions_come_after_exact_paths_and_before_prefixes() -> None:
    kinds = [path("/a", "Exact"), path("/a.*", "RegularExpression"), path("/aaaaaaaaa")]
    for order in permutations(kinds):
        ordered = sorted(http(*order), key=lambda match: match.precedence)
        assert [match.path.kind for match in ordered] == [PathKind.EXACT, PathKind.REGEX, PathKind.PREFIX]


# The precedence of the Gateway API, written a second time: as a choice among what matches one request.

_SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3)
_FLAGS = st.dictionaries(st.sampled_from(["h1", "h2", "h3"]), st.sampled_from(["1", "2"]), max_size=3)
_PATHS = st.builds(lambda parts: "/" + "/".join(parts), _SEGMENTS)
_MATCHES = st.builds(
    lambda kind, value, method, headers, query: HTTPRouteMatch(
        path=HTTPPathMatch(type=kind, value=value),
        method=method,
        headers=tuple(HTTPHeaderMatch(name=name, value=text) for name, text in headers.items()),
        query_params=tuple(HTTPQueryParamMatch(name=name, value=text) for name, text in query.items()),
    ),
    st.sampled_from(["Exact", "PathPrefix"]),
    _PATHS,
    st.sampled_from([None, None, "GET", "POST"]),
    _FLAGS,
    _FLAGS,
)
_REQUESTS = st.tuples(_PATHS, st.sampled_from(["GET", "POST"]), _FLAGS, _FLAGS)
_Request = tuple[str, str, dict[str, str], dict[str, str]]


def takes(match: HTTPRouteMatch, request: _Request) -> bool:
    asked, method, headers, query = request
    wanted = match.path.value
    if match.path.type == "Exact":
        found = asked == wanted
    else:
        found = [*wanted.strip("/").split("/")] == [*asked.strip("/").split("/")][: wanted.strip("/").count("/") + 1]
        found = found or wanted == "/"
    return (
        found
        and match.method in {None, method}
        and all(headers.get(item.name) == item.value for item in match.headers)
        and all(query.get(item.name) == item.value for item in match.query_params)
    )


def better(one: HTTPRouteMatch, other: HTTPRouteMatch) -> bool:
    """Whether `one` takes precedence, criterion by criterion."""
    if (one.path.type == "Exact") != (other.path.type == "Exact"):
        return one.path.type == "Exact"
    if len(one.path.value) != len(other.path.value):
        return len(one.path.value) > len(other.path.value)
    if (one.method is None) != (other.method is None):
        return one.method is not None
    if len(one.headers) != len(other.headers):
        return len(one.headers) > len(other.headers)
    return len(one.query_params) > len(other.query_params)


@given(st.lists(_MATCHES, min_size=1, max_size=6), _REQUESTS)
def test_the_first_match_in_order_is_the_one_the_api_chooses(matches: list[HTTPRouteMatch], request: _Request) -> None:
    precedence = {position: match.precedence for position, match in enumerate(http(*matches))}
    taking = [position for position, match in enumerate(matches) if takes(match, request)]
    chosen = min(taking, key=lambda position: (precedence[position], position), default=None)
    expected = None
    for position in taking:
        if expected is None or better(matches[position], matches[expected]):
            expected = position
    assert chosen == expected
