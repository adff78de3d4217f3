"""Listeners that every proxy in a cluster has from its bootstrap: for probes, for its end, and for Prometheus.

Both lead to the admin interface, which nobody else can reach, and to nothing there but what they name. They answer once
the first configuration has come, and whatever the load is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from meshgw.names import METRICS_PORT, STATUS_PORT

ADMIN_CLUSTER: Final = "admin"
ANY_IPV4: Final = "0.0.0.0"  # noqa: S104 - inside a pod
READY_PATH: Final = "/healthz/ready"
LIVE_PATH: Final = "/healthz/live"
METRICS_PATH: Final = "/stats/prometheus"

_TYPE: Final = "type.googleapis.com/envoy.extensions.filters"
_HTTP: Final = f"{_TYPE}.http"
# A hook of a pod can do no more than GET, and the admin interface takes POST only.
_FAIL_HEALTH_CHECKS: Final = """\
function envoy_on_request(handle)
  handle:httpCall("admin", {[":method"] = "POST", [":path"] = "/healthcheck/fail", [":authority"] = "admin"}, "", 5000)
end
"""


class StatusListeners(msgspec.Struct, frozen=True, kw_only=True):
    """Where the listeners are. A GET of `drain_path` starts the end and is answered after `drain_seconds`.

    From then on the proxy is not ready, and every response asks its client for another connection. Nobody else knows
    the path: whoever does can make a proxy leave.
    """

    bind: str = ANY_IPV4
    status_port: int = STATUS_PORT
    metrics_port: int = METRICS_PORT
    drain_path: str
    drain_seconds: int


def status_listeners(options: StatusListeners) -> list[dict[str, Any]]:
    """Return the listeners."""
    return [
        _listener("status", options.bind, options.status_port, _status_routes(options), filters=_drain_filters()),
        _listener("metrics", options.bind, options.metrics_port, [_to_admin(METRICS_PATH, METRICS_PATH)], filters=[]),
    ]


def _status_routes(options: StatusListeners) -> list[dict[str, Any]]:
    draining = {
        "match": {"path": options.drain_path},
        "direct_response": {"status": 200},
        "typed_per_filter_config": {
            "lua": {
                "@type": f"{_HTTP}.lua.v3.LuaPerRoute",
                "source_code": {"inline_string": _FAIL_HEALTH_CHECKS},
            },
            "fault": {
                "@type": f"{_HTTP}.fault.v3.HTTPFault",
                "delay": {"fixed_delay": f"{options.drain_seconds}s", "percentage": {"numerator": 100}},
            },
        },
    }
    return [
        _to_admin(READY_PATH, "/ready"),
        {"match": {"path": LIVE_PATH}, "direct_response": {"status": 200}},
        *([draining] if options.drain_seconds else []),
    ]


def _to_admin(path: str, target: str) -> dict[str, Any]:
    return {"match": {"path": path}, "route": {"cluster": ADMIN_CLUSTER, "prefix_rewrite": target, "timeout": "5s"}}


def _drain_filters() -> list[dict[str, Any]]:
    """Return the filters of a drain in order: first the news, then the wait."""
    return [
        {"name": "lua", "typed_config": {"@type": f"{_HTTP}.lua.v3.Lua"}},
        {"name": "fault", "typed_config": {"@type": f"{_HTTP}.fault.v3.HTTPFault"}},
    ]


def _listener(
    name: str, bind: str, port: int, routes: list[dict[str, Any]], *, filters: list[dict[str, Any]]
) -> dict[str, Any]:
    router = {"name": "router", "typed_config": {"@type": f"{_HTTP}.router.v3.Router"}}
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "generate_request_id": False,
        "stream_idle_timeout": "0s",
        "http_filters": [*filters, router],
        "route_config": {
            "name": name,
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}],
        },
    }
    return {
        "name": name,
        "address": {"socket_address": socket_address(bind, port)},
        "ignore_global_conn_limit": True,
        "bypass_overload_manager": True,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def socket_address(host: str, port: int) -> dict[str, Any]:
    """Return a socket address; `::` means all addresses of both families."""
    address: dict[str, Any] = {"address": host, "port_value": port}
    return {**address, "ipv4_compat": True} if host == "::" else address


def admin_cluster(port: int) -> dict[str, Any]:
    """Return the cluster of the proxy's own admin interface, on a port of loopback."""
    address = {"socket_address": socket_address("127.0.0.1", port)}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
