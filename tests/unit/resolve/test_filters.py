from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.api.filters import HTTPHeader, HTTPHeaderFilter
from meshgw.api.grpc import GRPCRouteFilter
from meshgw.api.http import HTTPCORSFilter, HTTPRequestRedirectFilter, HTTPRouteFilter
from meshgw.api.meta import ObjectRef
from meshgw.ir.route import (
    Cors,
    ExternalAuth,
    Filters,
    HeaderEdit,
    Mirror,
    PathEdit,
    Redirect,
    RefsReason,
    Rewrite,
)
from meshgw.resolve.filters import compile_filters, compile_header_edit
from meshgw.resolve.report import Report
from tests.unit.resolve.route_graph import World, codes, service, web


def compiled(
    *filters: dict[str, Any] | HTTPRouteFilter | GRPCRouteFilter,
    prefixes: bool = True,
    protocol: str = "",
    text: str = "",
) -> tuple[Filters, Report]:
    report = Report(ObjectRef("HTTPRoute", "default", "r"))
    rows = [msgspec.convert(item, HTTPRouteFilter) if isinstance(item, dict) else item for item in filters]
    world = World(text or service())
    built = compile_filters(world.graph, report, "f", rows, protocol=protocol, prefixes=prefixes)
    return built, report


def good(*filters: dict[str, Any], prefixes: bool = True) -> Filters:
    built, report = compiled(*filters, prefixes=prefixes)
    assert report.errors == []
    assert report.findings == []
    return built


def refusal(*filters: Any, prefixes: bool = True) -> tuple[str, str]:
    """Field and code of the one error."""
    _, report = compiled(*filters, prefixes=prefixes)
    assert len(report.errors) == 1
    (finding,) = report.findings
    assert finding.message == report.errors[0]
    return finding.field, finding.code


def headers(kind: str = "Request", **lists: Any) -> dict[str, Any]:
    return {"type": f"{kind}HeaderModifier", f"{kind.lower()}HeaderModifier": lists}


def redirect(**fields: Any) -> dict[str, Any]:
    return {"type": "RequestRedirect", "requestRedirect": fields}


def rewrite(**fields: Any) -> dict[str, Any]:
    return {"type": "URLRewrite", "urlRewrite": fields}


def mirror(name: str = "web", **fields: Any) -> dict[str, Any]:
    return {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name, "port": 80}, **fields}}


def auth(protocol: str, name: str = "web", **fields: Any) -> dict[str, Any]:
    settings = {"protocol": protocol, "backendRef": {"name": name, "port": 80}, **fields}
    return {"type": "ExternalAuth", "externalAuth": settings}


def test_no_filters_are_the_default() -> None:
    assert good() == Filters()


def test_headers_are_edited_with_lower_case_names_and_literal_values() -> None:
    edit = {
        "set": [{"name": "X-Set", "value": "100%"}],
        "add": [{"name": "X-Add", "value": "a, b"}],
        "remove": ["X-Old"],
    }
    expected = HeaderEdit(set=(("x-set", "100%"),), add=(("x-add", "a, b"),), remove=("x-old",))
    assert good(headers(**edit)) == Filters(request=expected)
    assert good(headers("Response", **edit)) == Filters(response=expected)


def test_of_equal_names_in_one_list_the_first_counts() -> None:
    edit = {"set": [{"name": "A", "value": "1"}, {"name": "a", "value": "2"}], "remove": ["B", "b"]}
    assert good(headers(**edit)).request == HeaderEdit(set=(("a", "1"),), remove=("b",))


@pytest.mark.parametrize("others", [{"add": [{"name": "A", "value": "2"}]}, {"remove": ["A"]}])
def test_two_actions_on_one_header_are_an_error(others: dict[str, Any]) -> None:
    assert refusal(headers(set=[{"name": "a", "value": "1"}], **others)) == ("f[0].requestHeaderModifier", "MG4001")


@pytest.mark.parametrize("name", [":path", "a b", "", "ü", "transfer-encoding", "Content-Length"])
def test_names_that_may_not_be_edited_are_errors(name: str) -> None:
    for edit in (HTTPHeaderFilter(add=(HTTPHeader(name=name, value="x"),)), HTTPHeaderFilter(remove=(name,))):
        report = Report(ObjectRef("HTTPRoute", "default", "r"))
        compile_header_edit(report, "f", edit, host=True)
        assert len(report.errors) == 1


@pytest.mark.parametrize("value", ["", "a\nb", "a\rb", "a\0b", "\x7f", "x" * 16385])
def test_values_that_no_header_can_have_are_errors(value: str) -> None:
    report = Report(ObjectRef("HTTPRoute", "default", "r"))
    compile_header_edit(report, "f", HTTPHeaderFilter(set=(HTTPHeader(name="a", value=value),)), host=True)
    assert [finding.field for finding in report.findings] == ["f.set[0].value"]


@pytest.mark.parametrize("value", ["a\tb", "ünicode", "x" * 16384, "%REQ(:path)%", '"]]'])
def test_unusual_values_stay_as_they_are(value: str) -> None:
    report = Report(ObjectRef("HTTPRoute", "default", "r"))
    edit = compile_header_edit(report, "f", HTTPHeaderFilter(set=(HTTPHeader(name="a", value=value),)), host=True)
    assert report.errors == []
    assert edit.set == (("a", value),)


@given(st.text())
def test_no_control_character_gets_into_a_header(value: str) -> None:
    report = Report(ObjectRef("HTTPRoute", "default", "r"))
    try:
        value.encode()
    except UnicodeEncodeError:
        return
    compile_header_edit(report, "f", HTTPHeaderFilter(set=(HTTPHeader(name="a", value=value),)), host=True)
    assert bool(report.errors) == (not value or any((ord(c) < 32 and c != "\t") or ord(c) == 127 for c in value))


@pytest.mark.parametrize(
    ("value", "taken"), [("a.example", True), ("A.example:8080", True), ("a b", False), ("a/b", False)]
)
def test_the_host_header_can_be_set_to_a_host(value: str, taken: bool) -> None:  # noqa: FBT001 - a parameter
    report = Report(ObjectRef("HTTPRoute", "default", "r"))
    compile_header_edit(report, "f", HTTPHeaderFilter(set=(HTTPHeader(name="Host", value=value),)), host=True)
    assert (report.errors == []) is taken


def test_the_host_header_cannot_be_added_removed_or_answered() -> None:
    host = {"name": "host", "value": "x"}
    assert refusal(headers(add=[host])) == ("f[0].requestHeaderModifier.add[0].name", "MG4001")
    assert refusal(headers(remove=["Host"])) == ("f[0].requestHeaderModifier.remove", "MG4001")
    assert refusal(headers("Response", set=[host])) == ("f[0].responseHeaderModifier.set[0].name", "MG4001")


def test_a_redirect_keeps_what_it_does_not_name() -> None:
    assert good(redirect()).redirect == Redirect()
    full = redirect(
        scheme="https",
        hostname="x.example",
        port=8443,
        statusCode=308,
        path={"type": "ReplaceFullPath", "replaceFullPath": "/new?x=1"},
    )
    assert good(full).redirect == Redirect(
        scheme="https", hostname="x.example", port=8443, status=308, path=PathEdit("/new?x=1")
    )


def test_a_rewrite_changes_host_and_path() -> None:
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
    assert good(rewrite(hostname="x.example", path=path)).rewrite == Rewrite(
        hostname="x.example", path=PathEdit("/new", prefix=True)
    )


def test_an_empty_replacement_is_the_root() -> None:
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}
    assert good(rewrite(path=path)).rewrite == Rewrite(path=PathEdit("/", prefix=True))
    assert good(rewrite(path={"type": "ReplaceFullPath"})).rewrite == Rewrite(path=PathEdit("/"))


def test_a_prefix_can_only_be_replaced_where_prefixes_match() -> None:
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
    assert refusal(rewrite(path=path), prefixes=False) == ("f[0].urlRewrite.path", "MG4001")
    assert refusal(redirect(path=path), prefixes=False) == ("f[0].requestRedirect.path", "MG4001")


@pytest.mark.parametrize("value", [".evil.example", "a", "/a b", "/a\nb", "/ü"])
def test_a_new_path_must_be_absolute_and_printable(value: str) -> None:
    path = {"type": "ReplaceFullPath", "replaceFullPath": value}
    assert refusal(redirect(path=path)) == ("f[0].requestRedirect.path", "MG4001")


def test_a_rewritten_path_has_no_fragment() -> None:
    path = {"type": "ReplaceFullPath", "replaceFullPath": "/a#b"}
    assert refusal(rewrite(path=path)) == ("f[0].urlRewrite.path", "MG4001")
    assert good(redirect(path=path)).redirect == Redirect(path=PathEdit("/a#b"))


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (HTTPRequestRedirectFilter(scheme="ftp"), "scheme"),  # type: ignore[arg-type]
        (HTTPRequestRedirectFilter(status_code=200), "statusCode"),  # type: ignore[arg-type]
        (HTTPRequestRedirectFilter(hostname="*.x"), "hostname"),
        (HTTPRequestRedirectFilter(hostname="x/y"), "hostname"),
    ],
)
def test_bad_parts_of_a_redirect_are_errors(bad: HTTPRequestRedirectFilter, field: str) -> None:
    item = HTTPRouteFilter(type="RequestRedirect", request_redirect=bad)
    assert refusal(item) == (f"f[0].requestRedirect.{field}", "MG4001")


def test_redirect_and_rewrite_exclude_each_other() -> None:
    assert refusal(redirect(), rewrite()) == ("f", "MG4001")


def test_a_repeated_filter_is_an_error_except_mirrors() -> None:
    assert refusal(rewrite(), rewrite()) == ("f[1]", "MG4001")
    assert len(good(mirror(), mirror()).mirrors) == 2


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({}, (100, 100)),
        ({"percent": 20}, (20, 100)),
        ({"fraction": {"numerator": 1, "denominator": 3}}, (1, 3)),
        ({"fraction": {"numerator": 5}}, (5, 100)),
    ],
)
def test_mirrors_take_a_share(fields: dict[str, Any], share: tuple[int, int]) -> None:
    assert good(mirror(**fields)).mirrors == (Mirror(target=web(), numerator=share[0], denominator=share[1]),)


def test_a_mirror_of_nothing_is_left_out() -> None:
    assert good(mirror(percent=0)).mirrors == ()


def test_a_share_over_one_is_an_error() -> None:
    assert refusal(mirror(fraction={"numerator": 3, "denominator": 2})) == ("f[0].requestMirror", "MG4001")


def test_a_bad_mirror_is_left_out_and_the_rule_is_served() -> None:
    built, report = compiled(mirror("absent"))
    assert built == Filters()
    assert report.errors == []
    assert [bad.reason for bad in report.bad_refs] == [RefsReason.NOT_FOUND]
    assert codes(tuple(report.findings)) == ["MG2001"]


def test_mirrors_of_grpc_routes_speak_grpc() -> None:
    item = GRPCRouteFilter(
        type="RequestMirror", request_mirror=msgspec.convert(mirror(), HTTPRouteFilter).request_mirror
    )
    built, _ = compiled(item, protocol="grpc")
    assert built.mirrors == (Mirror(target=web(protocol="grpc")),)


def test_cors_is_kept_in_order_without_repetition() -> None:
    cors = {
        "allowOrigins": ["https://a.example", "https://*.b.example:8443", "https://a.example"],
        "allowMethods": ["GET", "PUT"],
        "allowHeaders": ["X-A"],
        "exposeHeaders": ["X-B", "*"],
        "allowCredentials": True,
        "maxAge": 60,
    }
    assert good({"type": "CORS", "cors": cors}).cors == Cors(
        origins=("https://a.example", "https://*.b.example:8443"),
        methods=("GET", "PUT"),
        headers=("x-a",),
        expose=("x-b", "*"),
        credentials=True,
        max_age=60,
    )


def test_bad_cors_values_are_errors() -> None:
    for bad, field in (
        (HTTPCORSFilter(allow_origins=("nowhere",)), "allowOrigins"),
        (HTTPCORSFilter(allow_headers=("a b",)), "allowHeaders"),
    ):
        assert refusal(HTTPRouteFilter(type="CORS", cors=bad)) == (f"f[0].cors.{field}", "MG4001")


def test_a_grpc_authorizer_is_spoken_to_in_grpc() -> None:
    item = auth("GRPC", grpc={"allowedHeaders": ["X-User"]}, forwardBody={"maxSize": 1024})
    assert good(item).external_auth == ExternalAuth(
        target=web(protocol="grpc"), grpc=True, request_headers=("x-user",), max_body=1024
    )


def test_an_http_authorizer_gets_a_path_and_headers() -> None:
    settings = {"path": "check", "allowedHeaders": ["Cookie"], "allowedResponseHeaders": ["X-User"]}
    assert good(auth("HTTP", http=settings)).external_auth == ExternalAuth(
        target=web(), grpc=False, path="/check", request_headers=("cookie",), response_headers=("x-user",)
    )
    assert good(auth("HTTP")).external_auth == ExternalAuth(target=web(), grpc=False)


def test_a_rule_whose_authorizer_cannot_be_asked_is_not_served() -> None:
    _, report = compiled(auth("GRPC", "absent"))
    assert report.errors == ["the external authorizer cannot be reached"]
    assert [bad.reason for bad in report.bad_refs] == [RefsReason.NOT_FOUND]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "ExtensionRef", "extensionRef": {"group": "x.example", "kind": "Lua", "name": "x"}},
        {"type": "URLRewrite"},
        {"type": "RequestHeaderModifier"},
    ],
)
def test_filters_that_are_not_served_are_errors(item: dict[str, Any]) -> None:
    assert refusal(item) == ("f[0]", "MG4003")


def test_an_extension_of_a_grpc_route_is_an_error() -> None:
    assert refusal(GRPCRouteFilter(type="ExtensionRef")) == ("f[0]", "MG4003")
