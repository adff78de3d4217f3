"""The ConfigMap of a Gateway's proxies."""

from __future__ import annotations

import json
from typing import Any

from meshgw.emit.proxy_config import digest_of, drain_path
from meshgw.ir.proxy import ProxyPlan
from tests.unit.emit.deployed import deploy, deploy_with, gateway


def bootstrap(spec: str = "{}", **settings: Any) -> Any:
    return json.loads(deploy_with(spec, **settings).objects()["ConfigMap"]["data"]["envoy.json"])


def test_it_holds_all_files_that_the_bootstrap_names() -> None:
    data = deploy(gateway(), xds_roots="PEM").objects()["ConfigMap"]["data"]
    assert set(data) == {"envoy.json", "xds-roots.json", "xds-token.json", "ca.crt"}
    assert data["ca.crt"] == "PEM"
    text = data["envoy.json"]
    assert all(f"/etc/meshgw/{name}" in text for name in ("xds-roots.json", "xds-token.json"))
    assert "/etc/meshgw/ca.crt" in data["xds-roots.json"]


def test_the_server_must_bear_the_name_of_its_address() -> None:
    text = json.dumps(bootstrap(xds_address="xds.example.com:443"))
    assert '"exact": "xds.example.com"' in text
    assert '"port_value": 443' in text


def test_who_the_proxy_is_comes_with_the_command_line() -> None:
    assert "node" not in bootstrap()


def test_parameters_reach_the_bootstrap() -> None:
    found = bootstrap("{envoy: {allStats: true, maxConnections: 7, drainSeconds: 3}}")
    assert "stats_config" not in found
    assert "stats_config" in bootstrap()
    (monitor,) = found["overload_manager"]["resource_monitors"]
    assert monitor["typed_config"]["max_active_downstream_connections"] == 7
    assert '"fixed_delay": "3s"' in json.dumps(found)


def test_listeners_are_in_both_families_where_the_service_is() -> None:
    def hosts(spec: str) -> set[str]:
        listeners = bootstrap(spec)["static_resources"]["listeners"]
        return {listener["address"]["socket_address"]["address"] for listener in listeners}

    assert hosts("{}") == {"0.0.0.0"}
    assert hosts("{service: {ipFamilies: [IPv4]}}") == {"0.0.0.0"}
    assert hosts("{service: {ipFamilies: [IPv6]}}") == {"::"}


def test_the_digest_is_of_what_is_read_once() -> None:
    one = {"data": {"envoy.json": "a", "ca.crt": "b"}}
    assert digest_of(one) == digest_of({"data": {"envoy.json": "a", "ca.crt": "other"}})
    assert digest_of(one) != digest_of({"data": {"envoy.json": "other", "ca.crt": "b"}})


def test_the_way_to_end_a_proxy_cannot_be_guessed() -> None:
    assert drain_path(ProxyPlan(gateway=deploy(gateway()).plan().gateway, name="n", uid="u")) == "/drain/u"
