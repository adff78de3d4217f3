"""Origins of Envoy's names, and dumps with something odd in them; `tests/envoy` has those of a real Envoy."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from meshgw.diagnose.proxy_config import (
    gateway_of,
    list_clusters,
    list_endpoints,
    list_listeners,
    list_routes,
    list_secrets,
    origin,
)
from tests.rig.certs import authority

NOW = datetime.now(UTC)


def dump(name: str, **section: Any) -> dict[str, Any]:
    return {"configs": [{"@type": f"type.googleapis.com/envoy.admin.v3.{name}ConfigDump", **section}]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("service/shop/cart/80/grpc", "Service shop/cart"),
        ("httproute/shop/cart/0", "HTTPRoute shop/cart, rule 0"),
        ("grpcroute/shop/cart/by-name", "GRPCRoute shop/cart, rule by-name"),
        ("udproute/shop/dns", "UDPRoute shop/dns"),
        ("certificate/shop/cert", "Secret shop/cert"),
        ("bundle/configmap/shop/roots", "ConfigMap shop/roots"),
        ("bundle/configmap/a/b+bundle/secret/c/d", "ConfigMap a/b, Secret c/d"),
        ("https/443/shop/edge/web", "Gateway shop/edge, listener web"),
        ("https/443/listenerset/shop/more/web", "ListenerSet shop/more, listener web"),
        ("tls/443/gateway/shop/edge/db", "Gateway shop/edge, listener db"),
        ("tls/443/gateway/shop/edge/db/shop/route/any", "Gateway shop/edge, listener db"),
        ("http/80", "Gateway here/gw"),
        ("tcp/443", "Gateway here/gw"),
        ("https/443/odd", "Gateway here/gw"),
        ("connect_terminate", "Gateway here/gw"),
        ("", "Gateway here/gw"),
    ],
)
def test_a_name_tells_its_origin(name: str, expected: str) -> None:
    assert origin(name, "here/gw") == expected


def test_without_a_gateway_the_rest_is_of_unknown_origin() -> None:
    assert origin("http/80") == "-"


@pytest.mark.parametrize(
    "odd", [{}, {"configs": None}, {"configs": ["x", {"@type": 3}]}, dump("Bootstrap", bootstrap=[])]
)
def test_a_dump_of_another_shape_gives_empty_tables(odd: dict[str, Any]) -> None:
    assert gateway_of(odd) == ""
    for sheet in (
        list_listeners(odd),
        list_routes(odd),
        list_clusters(odd),
        list_endpoints(odd),
        list_secrets(odd, NOW),
    ):
        assert sheet.rows == ()
        assert sheet.documents() == []


def test_the_gateway_is_in_the_node_id() -> None:
    assert gateway_of(dump("Bootstrap", bootstrap={"node": {"id": "shop/edge/edge-meshgw-7f9c"}})) == "shop/edge"
    assert gateway_of(dump("Bootstrap", bootstrap={"node": {"id": "other"}})) == ""
    assert gateway_of(dump("Bootstrap", bootstrap={}), {"node": {"id": "shop/edge/edge-meshgw-7f9c"}}) == "shop/edge"


def test_what_is_of_no_single_object_is_the_gateways() -> None:
    listener = {"name": "tcp/80", "filter_chains": [{"filters": [{"typed_config": {"cluster": "odd"}}]}]}
    listeners = dump("Listeners", dynamic_listeners=[{"active_state": {"listener": listener}}])
    assert [row[-1] for row in list_listeners(listeners, "shop/edge").rows] == ["Gateway shop/edge"]
    assert [row[-1] for row in list_listeners(listeners).rows] == ["-"]


def test_matches_of_routes_are_short() -> None:
    match = {
        "safe_regex": {"regex": "/v[0-9]+"},
        "headers": [
            {"name": ":method", "string_match": {"exact": "GET"}},
            {"name": "a", "string_match": {"safe_regex": {"regex": "x.*"}}, "invert_match": True},
            {"name": "b", "present_match": True},
        ],
        "query_parameters": [{"name": "q", "string_match": {"prefix": "z"}}],
    }
    config = {
        "name": "http/80",
        "virtual_hosts": [
            {
                "name": "*",
                "domains": ["*"],
                "routes": [
                    {"match": match, "redirect": {"scheme_redirect": "https", "host_redirect": "x.test"}},
                    {"match": {"path_separated_prefix": "/a"}, "direct_response": {"status": 500}},
                    {"route": {}},
                ],
            }
        ],
    }
    sheet = list_routes(dump("Routes", dynamic_route_configs=[{"route_config": config}]))
    assert [row["match"] for row in sheet.documents()] == [
        "~/v[0-9]+ :method=GET a!~x.* b present ?q=z*",
        "/a/*",
        "-",
    ]
    assert [row["destination"] for row in sheet.documents()] == ["redirect https//x.test", "status 500", "-"]


def test_addresses_have_the_form_people_know() -> None:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "fd00::1", "port_value": 80}}}},
        {"endpoint": {"address": {"pipe": {"path": "/run/x"}}}},
        {"endpoint": {}},
    ]
    assignment = {"cluster_name": "c", "endpoints": [{"lb_endpoints": endpoints}]}
    sheet = list_endpoints(dump("Endpoints", static_endpoint_configs=[{"endpoint_config": assignment}]))
    assert {row["address"] for row in sheet.documents()} == {"[fd00::1]:80", "unix:/run/x", "-"}


def test_a_udp_listener_shows_where_its_datagrams_go() -> None:
    chosen = {"on_no_match": {"action": {"typed_config": {"cluster": "udproute/shop/dns"}}}}
    proxy = {"typed_config": {"matcher": chosen}}
    listener = {"name": "udp/53", "listener_filters": [proxy]}
    sheet = list_listeners(dump("Listeners", dynamic_listeners=[{"active_state": {"listener": listener}}]))
    assert [row["destination"] for row in sheet.documents()] == ["udproute/shop/dns"]


def test_keys_are_not_shown_even_where_a_dump_has_them() -> None:
    leaf = authority().issue("site.test")
    certificate = {
        "certificate_chain": {"inline_bytes": base64.b64encode(leaf.chain).decode()},
        "private_key": {"inline_bytes": base64.b64encode(leaf.key).decode()},
    }
    found = dump("Secrets", dynamic_active_secrets=[{"name": "x", "secret": {"tls_certificate": certificate}}])
    sheet = list_secrets(found, NOW)
    (row,) = sheet.documents()
    assert row["subject"] == "site.test"
    for line in base64.b64encode(leaf.key).decode(), *leaf.key.decode().splitlines()[1:-1]:
        assert line not in str(sheet)


@pytest.mark.parametrize("data", [{}, {"inline_string": "no certificate"}, {"inline_bytes": "!"}, {"filename": "/x"}])
def test_a_secret_without_a_readable_certificate_is_shown_as_such(data: dict[str, str]) -> None:
    secret = {"validation_context": {"trusted_ca": data}}
    found = dump("Secrets", dynamic_warming_secrets=[{"name": "ROOTCA", "secret": secret}])
    (row,) = list_secrets(found, NOW).documents()
    assert (row["type"], row["state"], row["subject"]) == ("roots", "waiting", "-")
