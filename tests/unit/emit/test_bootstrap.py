"""The bootstrap document."""

from __future__ import annotations

from typing import Any

import pytest

from meshgw.emit.bootstrap import Bootstrap, build_bootstrap
from meshgw.emit.proxy_listeners import StatusListeners
from meshgw.emit.proxy_xds import XdsCredentials, credentials_filters, credentials_socket


def build(**options: Any) -> dict[str, Any]:
    defaults = {"node_id": "n", "cluster": "c", "xds": "unix:/run/xds.sock", "admin": "unix:/run/admin.sock"}
    return build_bootstrap(Bootstrap(**{**defaults, **options}))


def test_configuration_comes_by_delta_ads_over_the_unix_socket() -> None:
    document = build(metadata={"gateway": "default/web"})
    assert document["node"] == {"id": "n", "cluster": "c", "metadata": {"gateway": "default/web"}}
    dynamic = document["dynamic_resources"]
    assert dynamic["ads_config"]["api_type"] == "DELTA_GRPC"
    assert dynamic["lds_config"] == dynamic["cds_config"]
    (cluster,) = document["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    assert group["lb_endpoints"][0]["endpoint"]["address"] == {"pipe": {"path": "/run/xds.sock"}}
    assert cluster["name"] == dynamic["ads_config"]["grpc_services"][0]["envoy_grpc"]["cluster_name"]


def test_acknowledgements_are_never_throttled() -> None:
    assert "rate_limit_settings" not in build()["dynamic_resources"]["ads_config"]


def test_a_proxy_without_configuration_is_not_ready() -> None:
    assert build()["dynamic_resources"]["lds_config"]["initial_fetch_timeout"] == "0s"


def test_the_admin_socket_is_private() -> None:
    assert build()["admin"]["address"] == {"pipe": {"path": "/run/admin.sock", "mode": 0o600}}


@pytest.mark.parametrize(("text", "host"), [("127.0.0.1:9901", "127.0.0.1"), ("[::1]:9901", "::1")])
def test_addresses_may_be_loopback_ports(text: str, host: str) -> None:
    assert build(admin=text)["admin"]["address"] == {"socket_address": {"address": host, "port_value": 9901}}


def test_state_of_the_world_on_request() -> None:
    assert build(state_of_the_world=True)["dynamic_resources"]["ads_config"]["api_type"] == "GRPC"


def test_statistics_are_an_inclusion_list_unless_all_are_wanted() -> None:
    document = build()
    patterns = document["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]
    assert {"suffix": ".upstream_rq_5xx"} in patterns
    assert document["deferred_stat_options"]["enable_deferred_creation_stats"] is True
    assert "stats_config" not in build(all_stats=True)


def test_limits_reach_the_document() -> None:
    document = build(max_connections=7, max_regex_program_size=200)
    (monitor,) = document["overload_manager"]["resource_monitors"]
    assert monitor["typed_config"]["max_active_downstream_connections"] == 7
    (layer,) = document["layered_runtime"]["layers"]
    assert layer["static_layer"]["re2.max_program_size.error_level"] == 200


def test_a_name_is_resolved_and_an_address_is_not() -> None:
    found = {
        xds: build(xds=xds)["static_resources"]["clusters"][0]["type"]
        for xds in ("meshgw.meshgw-system.svc:18000", "10.0.0.1:18000", "[fd00::1]:18000")
    }
    assert list(found.values()) == ["STRICT_DNS", "STATIC", "STATIC"]


def test_credentials_are_for_the_connection_to_the_discovery_service() -> None:
    credentials = XdsCredentials(server_name="a.b", folder="/c", token_folder="/t")
    (cluster,) = build(xds="a.b:18000", credentials=credentials)["static_resources"]["clusters"]
    assert cluster["transport_socket"] == credentials_socket(credentials)
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert options["http_filters"] == credentials_filters(credentials)


def test_a_proxy_in_a_cluster_has_listeners_and_their_way_to_the_admin_interface() -> None:
    status = StatusListeners(drain_path="/drain", drain_seconds=1)
    static = build(admin="127.0.0.1:19000", status=status)["static_resources"]
    assert [listener["name"] for listener in static["listeners"]] == ["status", "metrics"]
    assert [cluster["name"] for cluster in static["clusters"]] == ["xds_cluster", "admin"]


def test_who_the_proxy_is_may_be_left_to_the_command_line() -> None:
    assert "node" not in build(node_id="", cluster="")
