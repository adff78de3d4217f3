"""The bootstrap document."""

from __future__ import annotations

from typing import Any

import pytest

from meshgw.emit.bootstrap import Bootstrap, build_bootstrap


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
