"""A waypoint's own resources: what is in them, how they are joined, and what a change costs."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from meshgw.api.meta import Key
from meshgw.emit import tables as out
from meshgw.emit.connect import ORIGINAL_DST, authority
from meshgw.emit.dump import dump
from meshgw.emit.internal import CLUSTER_DIRECT, CLUSTER_TUNNEL, chain_name, join_matcher
from meshgw.emit.rbac import ALLOW_FILTER, DENY_FILTER, PEER_FILTER
from meshgw.emit.resource import CLUSTER, LISTENER, ROUTE_CONFIGURATION, SECRET, Resource
from meshgw.engine import Delta, Graph
from meshgw.ir.gateway import Settings
from meshgw.ir.keys import ResourceKey
from meshgw.ir.mesh import AppProtocol, WaypointPort, WaypointService
from meshgw.protos import IPMatcher, Listener, Matcher, RouteConfiguration
from meshgw.resolve import tables as t
from tests.rig.mesh import CLASS, WAYPOINT, endpoints, feed, gateway, mesh_graph, pod, policy, remove, service

ECHO = service("echo", "10.0.0.1", "[{name: http, port: 80}]")
DB = service("db", "10.0.0.2", "[{name: tcp, port: 3306}]")
HTTP, TCP = "inbound-vip|80|http|echo.default.svc.cluster.local", "inbound-vip|3306|tcp|db.default.svc.cluster.local"


def world(*texts: str, traffic: str = "all", **options: Any) -> Graph:
    chosen = Settings(**{"mesh": True, "loopback_endpoints": True, **options})
    return mesh_graph(CLASS + gateway(traffic=traffic) + "".join(texts), bind="127.9.9.9", settings=chosen)


def resource(graph: Graph, type_url: str, name: str) -> Resource:
    row = graph.get(out.RESOURCES, ResourceKey(WAYPOINT, type_url, name))
    assert row is not None, f"{name} is not among {sorted(key.name for key in graph.rows(out.RESOURCES))}"
    return row


def names(graph: Graph, type_url: str) -> set[str]:
    return {key.name for key in graph.rows(out.RESOURCES) if key.type_url == type_url}


def listener(graph: Graph, name: str) -> dict[str, Any]:
    return dump(resource(graph, LISTENER, name))


def connect_hosts(graph: Graph) -> dict[str, dict[str, Any]]:
    found = dump(resource(graph, ROUTE_CONFIGURATION, "connect_terminate"))
    return {host["name"]: host for host in found["virtual_hosts"]}


def changed(delta: Delta) -> set[tuple[str, str]]:
    return {(key.type_url.rsplit(".", 1)[1], key.name) for key in delta.changed(out.RESOURCES)}


def manager(document: dict[str, Any]) -> dict[str, Any]:
    (chain,) = document["filter_chains"]
    found: dict[str, Any] = chain["filters"][0]["typed_config"]
    return found


# --- Who serves ----------------------------------------------------------------------------------------------------


def test_a_waypoint_has_its_listeners_clusters_secrets_and_routes() -> None:
    graph = world(ECHO, DB)
    assert names(graph, LISTENER) == {"connect_terminate", "main_internal", "connect_originate"}
    assert names(graph, ROUTE_CONFIGURATION) == {"connect_terminate", "service/default/echo/80"}
    own = {"main_internal", "connect_originate", CLUSTER_TUNNEL, CLUSTER_DIRECT}
    assert names(graph, CLUSTER) == own | {"service/default/echo/80", "service/default/db/3306/tcp"}
    assert names(graph, SECRET) == {"default", "ROOTCA"}


def test_without_mesh_identity_nothing_is_served() -> None:
    assert not world(ECHO, mesh=False).rows(out.WAYPOINT_RESOURCES)
    assert not names(world(ECHO, mesh=False), LISTENER)


def test_a_waypoint_that_is_not_accepted_serves_nothing() -> None:
    refused = gateway(labels="meshgw.dev/role: nonsense")
    graph = mesh_graph(CLASS + refused + ECHO)
    assert not graph.rows(out.RESOURCES)


def test_another_role_has_no_waypoint_listeners() -> None:
    graph = mesh_graph(CLASS + gateway(labels="meshgw.dev/role: ingress"))
    assert not graph.rows(out.WAYPOINT_RESOURCES)


def test_a_waypoint_without_services_accepts_tunnels_and_refuses_all() -> None:
    graph = world()
    assert names(graph, LISTENER) == {"connect_terminate", "connect_originate"}
    assert list(connect_hosts(graph)) == ["*"]


# --- connect_terminate ---------------------------------------------------------------------------------------------


def test_tunnels_need_tls_1_3_and_a_certificate_of_our_trust_domains() -> None:
    document = listener(world(trust_domain="td", trust_domain_aliases=("old",)), "connect_terminate")
    assert document["address"]["socket_address"] == {"address": "127.9.9.9", "port_value": 15008}
    tls = document["filter_chains"][0]["transport_socket"]["typed_config"]
    common = tls["common_tls_context"]
    assert tls["require_client_certificate"]
    assert common["tls_params"] == {
        "tls_minimum_protocol_version": "TLSv1_3",
        "tls_maximum_protocol_version": "TLSv1_3",
    }
    assert common["alpn_protocols"] == ["h2"]
    assert [item["name"] for item in common["tls_certificate_sds_secret_configs"]] == ["default"]
    validation = common["combined_validation_context"]
    assert validation["validation_context_sds_secret_config"]["name"] == "ROOTCA"
    assert validation["default_validation_context"]["match_typed_subject_alt_names"] == [
        {"san_type": "URI", "matcher": {"prefix": "spiffe://td/"}},
        {"san_type": "URI", "matcher": {"prefix": "spiffe://old/"}},
    ]


def test_who_the_peer_is_comes_first_and_authorization_before_anything_is_reached() -> None:
    found = manager(listener(world(), "connect_terminate"))
    assert [item["name"] for item in found["http_filters"]] == [
        "meshgw.state",
        PEER_FILTER,
        DENY_FILTER,
        ALLOW_FILTER,
        "envoy.filters.http.router",
    ]
    assert found["codec_type"] == "HTTP2"
    assert "use_remote_address" in found
    assert not found["use_remote_address"]
    state = {item["object_key"] for item in found["http_filters"][0]["typed_config"]["on_request_headers"]}
    assert state == {
        f"{ORIGINAL_DST}.local_ip",
        f"{ORIGINAL_DST}.remote_ip",
        "io.istio.connect_authority",
        "io.istio.peer_principal",
        "io.istio.local_principal",
    }


def test_every_address_and_port_has_one_spelling() -> None:
    dual = ECHO.replace('clusterIP: "10.0.0.1"', 'clusterIP: "10.0.0.1", clusterIPs: ["10.0.0.1", "FD00:0::0001"]')
    graph = world(dual, DB, pod("app", "10.1.0.1", labels="{istio.io/use-waypoint: waypoint}"))
    assert {name: host["domains"] for name, host in connect_hosts(graph).items()} == {
        "*": ["*"],
        "service/default/echo/80": ["10.0.0.1:80", "[fd00::1]:80"],
        "service/default/db/3306": ["10.0.0.2:3306"],
        "workload/default/app": ["10.1.0.1:*"],
    }


def test_authority_puts_brackets_around_ipv6() -> None:
    assert [authority("10.0.0.1", 80), authority("fd00::1", 80)] == ["10.0.0.1:80", "[fd00::1]:80"]


def test_what_is_not_known_is_answered_404() -> None:
    (route,) = connect_hosts(world(ECHO))["*"]["routes"]
    assert route["direct_response"] == {"status": 404}


def test_the_authorization_of_tcp_ports_is_in_their_virtual_hosts_and_of_http_ports_is_not() -> None:
    deny = "action: DENY\n  rules: [{from: [{source: {namespaces: [evil]}}]}]"
    graph = world(ECHO, DB, policy("p", deny), policy("q", deny, target="Service db"))
    hosts = connect_hosts(graph)
    configs = {name: host.get("typed_per_filter_config", {}) for name, host in hosts.items()}
    assert set(configs["service/default/db/3306"]) == {DENY_FILTER, ALLOW_FILTER}
    assert "default/q/0" in configs["service/default/db/3306"][DENY_FILTER]["rbac"]["rules"]["policies"]
    http = configs["service/default/echo/80"]
    assert [set(http[name]) for name in (DENY_FILTER, ALLOW_FILTER)] == [{"@type"}, {"@type"}]


def test_the_authorization_of_workloads_is_that_of_the_whole() -> None:
    rule = "action: DENY\n  rules: [{from: [{source: {namespaces: [evil]}}]}]"
    graph = world(policy("p", rule, target="Gateway waypoint"))
    config = dump(resource(graph, ROUTE_CONFIGURATION, "connect_terminate"))["typed_per_filter_config"]
    assert "default/p/0" in config[DENY_FILTER]["rbac"]["rules"]["policies"]


# --- main_internal -------------------------------------------------------------------------------------------------


def test_chains_are_named_as_istio_names_them() -> None:
    port = WaypointPort(port=80, protocol=AppProtocol.HTTP)
    row = WaypointService(gateway=WAYPOINT, service=Key("a", "b"), hostname="b.a.svc.cluster.local", ports=(port,))
    assert chain_name(row, port) == "inbound-vip|80|http|b.a.svc.cluster.local"


def test_address_and_port_lead_to_the_chain() -> None:
    document = listener(world(ECHO, DB), "main_internal")
    assert [chain["name"] for chain in document["filter_chains"]] == [TCP, HTTP]
    tree = document["filter_chain_matcher"]["matcher_tree"]
    ranges = tree["custom_match"]["typed_config"]["range_matchers"]
    leads = {}
    for item in ranges:
        (host,) = item["ranges"]
        for port, action in item["on_match"]["matcher"]["matcher_tree"]["exact_match_map"]["map"].items():
            leads[host["address_prefix"], host["prefix_len"], port] = action["action"]["typed_config"]["value"]
    assert leads == {("10.0.0.1", 32, "80"): HTTP, ("10.0.0.2", 32, "3306"): TCP}


def test_the_only_listener_filter_restores_the_address() -> None:
    document = listener(world(ECHO, DB), "main_internal")
    assert [item["name"] for item in document["listener_filters"]] == [ORIGINAL_DST]
    assert "internal_listener" in document


def test_a_workload_is_tunnelled_to_as_itself_or_reached_directly() -> None:
    labels = "{istio.io/use-waypoint: waypoint}"
    graph = world(pod("mesh", "10.1.0.1", labels=labels), pod("plain", "10.1.0.2", hbone=False, labels=labels))
    chains = {chain["name"]: chain["filters"] for chain in listener(graph, "main_internal")["filter_chains"]}
    state, tunnel = (item["typed_config"] for item in chains["workload/default/mesh"])
    assert tunnel["cluster"] == CLUSTER_TUNNEL
    found = {
        item["object_key"]: item["format_string"]["text_format_source"]["inline_string"]
        for item in state["on_new_connection"]
    }
    assert found == {
        f"{ORIGINAL_DST}.local_ip": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "meshgw.identity": "spiffe://cluster.local/ns/default/sa/app",
    }
    (direct,) = chains["workload/default/plain"]
    assert direct["typed_config"]["cluster"] == CLUSTER_DIRECT


def test_a_headless_service_has_no_chain() -> None:
    assert names(world(ECHO.replace('"10.0.0.1"', "None")), LISTENER) == {"connect_terminate", "connect_originate"}


def test_http_chains_do_not_trust_what_clients_say_of_their_address_and_name_their_routes() -> None:
    found = manager(listener(world(ECHO), "main_internal"))
    assert found["rds"]["route_config_name"] == "service/default/echo/80"
    assert [item["name"] for item in found["http_filters"]][1:3] == [DENY_FILTER, ALLOW_FILTER]
    assert found["path_with_escaped_slashes_action"] == "UNESCAPE_AND_REDIRECT"
    assert found["normalize_path"]
    assert found["merge_slashes"]


# --- Joining -------------------------------------------------------------------------------------------------------

PARTS = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), unique=True)


@given(PARTS)
def test_the_joined_matcher_is_the_one_built_whole(hosts: list[str]) -> None:
    parts = [
        IPMatcher(range_matchers=[{"ranges": [{"address_prefix": host, "prefix_len": {"value": 32}}]}])
        for host in hosts
    ]
    joined = Matcher.FromString(join_matcher([part.SerializeToString() for part in parts]))
    whole = IPMatcher(range_matchers=[item for part in parts for item in part.range_matchers])
    custom = joined.matcher_tree.custom_match
    assert IPMatcher.FromString(custom.typed_config.value) == whole
    assert custom.typed_config.type_url == "type.googleapis.com/xds.type.matcher.v3.IPMatcher"
    assert joined.matcher_tree.input.name == "ip"


@settings(max_examples=20, deadline=None)
@given(st.permutations([ECHO, DB, policy("p", "rules: [{}]"), pod("app", "10.1.0.1")]))
def test_the_order_of_documents_changes_no_bytes(texts: list[str]) -> None:
    graph = world()
    for text in texts:
        feed(graph, text)
    whole = world(ECHO, DB, policy("p", "rules: [{}]"), pod("app", "10.1.0.1"))
    assert {key: row.body for key, row in graph.rows(out.WAYPOINT_RESOURCES).items()} == {
        key: row.body for key, row in whole.rows(out.WAYPOINT_RESOURCES).items()
    }


def test_joined_bodies_parse() -> None:
    graph = world(ECHO, DB)
    assert Listener.FromString(resource(graph, LISTENER, "main_internal").body).name == "main_internal"
    body = resource(graph, ROUTE_CONFIGURATION, "connect_terminate").body
    assert RouteConfiguration.FromString(body).name == "connect_terminate"


# --- What a change costs -------------------------------------------------------------------------------------------


def test_a_new_policy_changes_routes_and_no_listener() -> None:
    graph = world(ECHO, DB)
    assert changed(feed(graph, policy("p", "rules: [{}]"))) == {("RouteConfiguration", "service/default/echo/80")}
    assert changed(feed(graph, policy("q", "rules: [{}]", target="Service db"))) == {
        ("RouteConfiguration", "connect_terminate")
    }


def test_new_endpoints_change_endpoints_only() -> None:
    graph = world(ECHO)
    delta = feed(graph, endpoints("echo", {"http": 8080}, "127.0.0.9"))
    assert changed(delta) == {("ClusterLoadAssignment", "service/default/echo/80")}


def test_a_new_service_leaves_the_outer_listener_alone() -> None:
    graph = world(ECHO)
    assert changed(feed(graph, DB)) == {
        ("Listener", "main_internal"),
        ("RouteConfiguration", "connect_terminate"),
        ("Cluster", "service/default/db/3306/tcp"),
        ("ClusterLoadAssignment", "service/default/db/3306/tcp"),
    }
    assert ("Listener", "main_internal") in changed(remove(graph, t.SERVICES, Key("default", "db")))


def test_one_service_of_many_recomputes_its_own_parts() -> None:
    graph = world(*(service(f"s{n}", f"10.0.0.{n + 1}", "[{name: http, port: 80}]") for n in range(100)))
    delta = feed(graph, service("s7", "10.0.0.8", "[{name: http, port: 80}, {name: tcp, port: 90}]"))
    assert delta.recomputed[out.INBOUND.name] == 1
    assert delta.recomputed[out.CONNECT_HOSTS.name] == 1
    assert out.GUARDS.name not in delta.recomputed
    assert delta.recomputed[out.WAYPOINT_RESOURCES.name] == 1
    assert out.ROUTE_CONFIGS.name not in delta.recomputed
