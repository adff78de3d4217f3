from __future__ import annotations

from typing import Any

import pytest

from meshgw.api.decode import decode

GATEWAY = "gateway.networking.k8s.io/v1"
BACKEND = {"name": "a", "port": 80}
PREFIX = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}
FULL = {"type": "ReplaceFullPath", "replaceFullPath": "/x"}


def fields(kind: str, spec: dict[str, Any]) -> list[str]:
    decoded = decode({"apiVersion": GATEWAY, "kind": kind, "metadata": {"name": "a"}, "spec": spec})
    assert (decoded.object is None) == bool(decoded.problems)
    return [found.field.removeprefix("spec.") for found in decoded.problems]


def rule(**parts: Any) -> list[str]:
    return [field.removeprefix("rules[0].") for field in fields("HTTPRoute", {"rules": [parts]})]


def http_filter(kind: str, **parts: Any) -> list[str]:
    return [field.removeprefix("filters[0].") for field in rule(filters=[{"type": kind, **parts}])]


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute", "TCPRoute", "UDPRoute", "TLSRoute"])
@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        ([{}], []),
        ([{}, {"name": "h"}, {"namespace": "b"}], []),
        ([{"sectionName": "a"}, {"sectionName": "b"}], []),
        ([{"port": 1}, {"port": 2}], []),
        ([{"sectionName": "a", "port": 1}, {"sectionName": "a", "port": 2}], []),
        ([{}, {}], ["parentRefs[1]"]),
        ([{"sectionName": "a"}, {"sectionName": "a"}], ["parentRefs[1]"]),
        ([{}, {"sectionName": "a"}], ["parentRefs[1]"]),
        ([{"sectionName": "a"}, {"port": 1}], ["parentRefs[1]"]),
    ],
)
def test_parents_differ(kind: str, parents: list[dict[str, Any]], expected: list[str]) -> None:
    listed = [{"name": "g", **parent} for parent in parents]
    assert fields(kind, {"parentRefs": listed, "rules": [{"backendRefs": [BACKEND]}]}) == expected


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute", "TCPRoute"])
def test_rule_names_differ(kind: str) -> None:
    rules = [
        {"name": name, "backendRefs": [BACKEND]} if name else {"backendRefs": [BACKEND]} for name in ("a", "", "", "a")
    ]
    assert fields(kind, {"rules": rules}) == ["rules[3].name"]


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"])
def test_a_service_is_a_backend_with_a_port(kind: str) -> None:
    backends = [{"name": "a"}, {"name": "a", "group": "x.y", "kind": "Z"}, BACKEND]
    assert fields(kind, {"rules": [{"backendRefs": backends}]}) == ["rules[0].backendRefs[0].port"]


def test_a_tls_route_names_no_addresses() -> None:
    assert fields("TLSRoute", {"hostnames": ["a.b", "1.2.3.4"], "rules": [{"backendRefs": [BACKEND]}]}) == [
        "hostnames[1]"
    ]


@pytest.mark.parametrize("value", ["/", "/a", "/a/", "/a.b/..c", "/%20", "/a;b=c"])
def test_a_normal_path_is_accepted(value: str) -> None:
    assert rule(matches=[{"path": {"type": "Exact", "value": value}}]) == []


@pytest.mark.parametrize(
    "value",
    ["", "a", "//", "/a//b", "/./a", "/a/../b", "/a/.", "/a/..", "/a%2fb", "/a%2Fb", "/a#b", "/a b", "/a?b", "/a%2"],
)
@pytest.mark.parametrize("kind", ["Exact", "PathPrefix"])
def test_a_path_that_can_never_match_is_refused(value: str, kind: str) -> None:
    assert rule(matches=[{"path": {"type": kind, "value": value}}]) == ["matches[0].path.value"]


def test_an_expression_may_be_any_text() -> None:
    assert rule(matches=[{"path": {"type": "RegularExpression", "value": "a//#"}}]) == []


@pytest.mark.parametrize("field", ["headers", "queryParams"])
def test_conditions_on_one_name_are_not_repeated(field: str) -> None:
    one, other = {"name": "a", "value": "1"}, {"name": "b", "value": "1"}
    assert rule(matches=[{field: [one, other]}]) == []
    assert rule(matches=[{field: [one, other, one]}]) == [f"matches[0].{field}[2].name"]


def test_a_redirect_has_no_backends() -> None:
    redirect = [{"type": "RequestRedirect", "requestRedirect": {}}]
    assert rule(filters=redirect) == []
    assert rule(filters=redirect, backendRefs=[BACKEND]) == ["backendRefs"]


@pytest.mark.parametrize(("kind", "field"), [("RequestRedirect", "requestRedirect"), ("URLRewrite", "urlRewrite")])
@pytest.mark.parametrize("per_backend", [False, True])
def test_a_new_prefix_needs_one_prefix_match(kind: str, field: str, *, per_backend: bool) -> None:
    filters = [{"type": kind, field: {"path": PREFIX}}]
    parts: dict[str, Any] = {"backendRefs": [{**BACKEND, "filters": filters}]} if per_backend else {"filters": filters}
    exact = {"path": {"type": "Exact", "value": "/a"}}
    assert rule(**parts) == []
    assert rule(matches=[exact], **parts) == ["matches"]
    assert rule(matches=[{}, {}], **parts) == ["matches"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (FULL, []),
        ({"type": "ReplaceFullPath"}, ["path.replaceFullPath"]),
        ({"type": "ReplacePrefixMatch"}, ["path.replacePrefixMatch"]),
        ({**PREFIX, "replaceFullPath": "/"}, ["path.replaceFullPath"]),
        ({**FULL, "replacePrefixMatch": "/"}, ["path.replacePrefixMatch"]),
    ],
)
def test_a_path_modifier_has_its_value(path: dict[str, Any], expected: list[str]) -> None:
    assert http_filter("URLRewrite", urlRewrite={"path": path}) == [f"urlRewrite.{field}" for field in expected]
    assert http_filter("RequestRedirect", requestRedirect={"path": path}) == [
        f"requestRedirect.{field}" for field in expected
    ]


FILTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "RequestHeaderModifier": ("requestHeaderModifier", {}),
    "ResponseHeaderModifier": ("responseHeaderModifier", {}),
    "RequestMirror": ("requestMirror", {"backendRef": BACKEND}),
    "RequestRedirect": ("requestRedirect", {}),
    "URLRewrite": ("urlRewrite", {}),
    "ExtensionRef": ("extensionRef", {"group": "a", "kind": "B", "name": "c"}),
    "CORS": ("cors", {}),
    "ExternalAuth": ("externalAuth", {"protocol": "GRPC", "backendRef": BACKEND, "grpc": {}}),
}


@pytest.mark.parametrize("kind", FILTERS)
def test_a_filter_has_the_field_of_its_type_and_no_other(kind: str) -> None:
    field, value = FILTERS[kind]
    other, other_value = FILTERS["CORS" if kind != "CORS" else "URLRewrite"]
    assert http_filter(kind, **{field: value}) == []
    assert http_filter(kind) == [field]
    assert http_filter(kind, **{field: value, other: other_value}) == [other]


@pytest.mark.parametrize("kind", FILTERS)
def test_most_filters_are_not_repeated(kind: str) -> None:
    field, value = FILTERS[kind]
    once = kind not in {"RequestMirror", "ExtensionRef", "ExternalAuth"}
    assert rule(filters=[{"type": kind, field: value}] * 2) == (["filters[1]"] if once else [])


def test_a_request_is_redirected_or_rewritten() -> None:
    filters = [{"type": "RequestRedirect", "requestRedirect": {}}, {"type": "URLRewrite", "urlRewrite": {}}]
    assert rule(filters=filters) == ["filters"]
    assert rule(backendRefs=[{**BACKEND, "filters": filters}]) == ["backendRefs[0].filters"]


@pytest.mark.parametrize("field", ["requestHeaderModifier", "responseHeaderModifier"])
def test_a_header_is_modified_once(field: str) -> None:
    header = {"name": "a", "value": "b"}
    kind = field[0].upper() + field[1:]
    assert http_filter(kind, **{field: {"set": [header], "add": [header], "remove": ["a"]}}) == []
    assert http_filter(kind, **{field: {"set": [header, header]}}) == [f"{field}.set[1]"]
    assert http_filter(kind, **{field: {"add": [header, header]}}) == [f"{field}.add[1]"]
    assert http_filter(kind, **{field: {"remove": ["a", "b", "a"]}}) == [f"{field}.remove[2]"]


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        ({"percent": 10}, []),
        ({"fraction": {"numerator": 1, "denominator": 3}}, []),
        ({"percent": 10, "fraction": {"numerator": 1}}, ["requestMirror"]),
        ({"fraction": {"numerator": 101}}, ["requestMirror.fraction"]),
        ({"backendRef": {"name": "a"}}, ["requestMirror.backendRef.port"]),
        ({"percent": 101}, ["requestMirror.percent"]),
    ],
)
def test_a_mirror_has_one_share(mirror: dict[str, Any], expected: list[str]) -> None:
    assert http_filter("RequestMirror", requestMirror={"backendRef": BACKEND, **mirror}) == expected


@pytest.mark.parametrize(
    ("cors", "expected"),
    [
        ({"allowOrigins": ["*"], "allowMethods": ["*"], "allowHeaders": ["*"], "exposeHeaders": ["a", "*"]}, []),
        ({"allowOrigins": ["*", "https://a"]}, ["allowOrigins"]),
        ({"allowMethods": ["*", "GET"]}, ["allowMethods"]),
        ({"allowHeaders": ["*", "a"]}, ["allowHeaders"]),
        ({"allowMethods": ["GET", "GET"]}, ["allowMethods[1]"]),
        ({"exposeHeaders": ["a", "a"]}, ["exposeHeaders[1]"]),
        ({"allowOrigins": ["a"]}, ["allowOrigins[0]"]),
    ],
)
def test_cors_lists_are_consistent(cors: dict[str, Any], expected: list[str]) -> None:
    assert http_filter("CORS", cors=cors) == [f"cors.{field}" for field in expected]


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({"protocol": "HTTP", "http": {"path": "/x"}}, []),
        ({"protocol": "HTTP"}, ["http"]),
        ({"protocol": "GRPC"}, ["grpc"]),
        ({"protocol": "GRPC", "grpc": {}, "http": {}}, ["http"]),
        ({"protocol": "HTTP", "http": {}, "backendRef": {"name": "a"}}, ["backendRef.port"]),
    ],
)
def test_an_authorizer_is_of_one_protocol(auth: dict[str, Any], expected: list[str]) -> None:
    found = http_filter("ExternalAuth", externalAuth={"backendRef": BACKEND, **auth})
    assert found == [f"externalAuth.{field}" for field in expected]


@pytest.mark.parametrize(
    ("timeouts", "expected"),
    [
        ({"request": "10s"}, []),
        ({"request": "10s", "backendRequest": "10s"}, []),
        ({"request": "0s", "backendRequest": "10s"}, []),
        ({"request": "1s", "backendRequest": "1001ms"}, ["timeouts.backendRequest"]),
    ],
)
def test_a_try_is_no_longer_than_the_request(timeouts: dict[str, Any], expected: list[str]) -> None:
    assert rule(timeouts=timeouts) == expected


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
@pytest.mark.parametrize(
    ("session", "expected"),
    [
        ({"type": "Header"}, []),
        ({"cookieConfig": {"lifetimeType": "Permanent"}, "absoluteTimeout": "1h"}, []),
        ({"cookieConfig": {"lifetimeType": "Permanent"}}, ["absoluteTimeout"]),
        ({"type": "Header", "cookieConfig": {}}, ["cookieConfig"]),
    ],
)
def test_a_session_is_consistent(kind: str, session: dict[str, Any], expected: list[str]) -> None:
    found = fields(kind, {"rules": [{"sessionPersistence": session}]})
    assert found == [f"rules[0].sessionPersistence.{field}" for field in expected]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"service": "a.b.C"}, []),
        ({"method": "Do_it"}, []),
        ({}, ["method"]),
        ({"service": "a b"}, ["method.service"]),
        ({"method": "a.b"}, ["method.method"]),
        ({"type": "RegularExpression", "service": "a.*", "method": "[a-z]+"}, []),
        ({"type": "RegularExpression"}, ["method"]),
    ],
)
def test_a_grpc_match_names_a_service_or_method(method: dict[str, Any], expected: list[str]) -> None:
    found = fields("GRPCRoute", {"rules": [{"matches": [{"method": method}]}]})
    assert found == [f"rules[0].matches[0].{field}" for field in expected]


def test_grpc_filters_and_headers_follow_the_same_rules() -> None:
    header = {"name": "a", "value": "b"}
    modifier = {"type": "RequestHeaderModifier", "requestHeaderModifier": {}}
    rules = [
        {
            "matches": [{"headers": [header, header]}],
            "filters": [modifier, modifier],
            "backendRefs": [{**BACKEND, "filters": [{"type": "RequestMirror"}]}],
        }
    ]
    assert fields("GRPCRoute", {"rules": rules}) == [
        "rules[0].matches[0].headers[1].name",
        "rules[0].filters[1]",
        "rules[0].backendRefs[0].filters[0].requestMirror",
    ]
