"""The listeners of a bootstrap; a real Envoy shows in `tests/envoy` what they do."""

from __future__ import annotations

from typing import Any

import pytest

from meshgw.emit.proxy_listeners import StatusListeners, admin_cluster, socket_address, status_listeners


def listeners(**options: Any) -> dict[str, Any]:
    made = status_listeners(StatusListeners(**{"drain_path": "/drain/1", "drain_seconds": 20, **options}))
    return {listener["name"]: listener for listener in made}


def routes(listener: dict[str, Any]) -> dict[str, Any]:
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    return {route["match"]["path"]: route for route in host["routes"]}


def test_each_listener_leads_nowhere_but_where_it_must() -> None:
    found = listeners()
    assert set(routes(found["status"])) == {"/healthz/ready", "/healthz/live", "/drain/1"}
    assert set(routes(found["metrics"])) == {"/stats/prometheus"}


def test_probes_are_answered_whatever_the_load() -> None:
    for listener in listeners().values():
        assert (listener["ignore_global_conn_limit"], listener["bypass_overload_manager"]) == (True, True)


def test_the_answer_to_a_drain_takes_its_time() -> None:
    route = routes(listeners(drain_seconds=7)["status"])["/drain/1"]
    assert route["typed_per_filter_config"]["fault"]["delay"]["fixed_delay"] == "7s"


def test_without_time_to_drain_there_is_no_such_path() -> None:
    assert "/drain/1" not in routes(listeners(drain_seconds=0)["status"])


@pytest.mark.parametrize(("host", "both"), [("0.0.0.0", None), ("::", True), ("::1", None)])
def test_the_ipv6_wildcard_means_both_families(host: str, both: bool | None) -> None:  # noqa: FBT001 - a row
    assert socket_address(host, 80).get("ipv4_compat") is both


def test_the_admin_interface_is_on_loopback() -> None:
    (group,) = admin_cluster(19000)["load_assignment"]["endpoints"]
    address = group["lb_endpoints"][0]["endpoint"]["address"]
    assert address == {"socket_address": {"address": "127.0.0.1", "port_value": 19000}}
