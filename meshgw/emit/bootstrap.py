"""Envoy's bootstrap: all a proxy knows before its first xDS response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from meshgw.emit.proxy_listeners import StatusListeners, admin_cluster, status_listeners
from meshgw.emit.proxy_xds import XdsCredentials, credentials_filters, credentials_socket, is_numeric
from meshgw.names import REGEX_PROGRAM_SIZE

XDS_CLUSTER = "xds_cluster"

_TYPE = "type.googleapis.com/envoy.extensions"
_STAT_PREFIXES = ("server.", "cluster_manager.", "listener_manager.", "control_plane.", f"cluster.{XDS_CLUSTER}.")
_STAT_SUFFIXES = (
    ".downstream_cx_active",
    ".downstream_cx_total",
    ".downstream_rq_active",
    ".downstream_rq_total",
    *(f".downstream_rq_{code}xx" for code in range(1, 6)),
    ".upstream_cx_active",
    ".upstream_cx_connect_fail",
    ".upstream_cx_total",
    ".upstream_rq_total",
    ".upstream_rq_pending_overflow",
    ".upstream_rq_retry",
    ".upstream_rq_time",
    ".upstream_rq_timeout",
    *(f".upstream_rq_{code}xx" for code in range(1, 6)),
    ".membership_healthy",
    ".membership_total",
    ".ssl.handshake",
    ".ssl.connection_error",
    ".ssl.fail_verify_error",
    ".ssl.fail_verify_san",
    ".ssl.fail_verify_no_cert",
    ".rbac.allowed",
    ".rbac.denied",
)


class Bootstrap(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from one proxy to the next; addresses are `unix:/path` or `host:port`.

    `xds` may be a host name. Without a node id the command line of Envoy must give it.
    """

    node_id: str = ""
    cluster: str = ""
    xds: str
    admin: str
    credentials: XdsCredentials | None = None
    """How server and proxy prove to each other who they are; without them the connection is in plain text."""
    status: StatusListeners | None = None
    """Listeners of a proxy in a cluster; then `admin` is a port of 127.0.0.1."""
    metadata: Mapping[str, str] = {}
    all_stats: bool = False
    """Keep every statistic: costs four times the CDS time and twice the memory at thousands of clusters."""
    max_connections: int = 50_000
    """Downstream connections of the whole proxy; more are refused."""
    max_regex_program_size: int = REGEX_PROGRAM_SIZE
    """RE2 program size above which Envoy rejects a configuration (its own default is 100)."""
    state_of_the_world: bool = False


def build_bootstrap(options: Bootstrap) -> dict[str, Any]:
    """Return the bootstrap as a document for `envoy -c`."""
    return {
        **_node(options),
        "admin": {"address": _address(options.admin, mode=0o600)},
        "dynamic_resources": _dynamic_resources(state_of_the_world=options.state_of_the_world),
        "static_resources": _static_resources(options),
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {"@type": f"{_TYPE}.bootstrap.internal_listener.v3.InternalListener"},
            }
        ],
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        **_statistics(keep_all=options.all_stats),
        "overload_manager": _overload_manager(options.max_connections),
        "layered_runtime": {
            "layers": [
                {
                    "name": "meshgw",
                    "static_layer": {
                        "re2.max_program_size.error_level": options.max_regex_program_size,
                        "re2.max_program_size.warn_level": options.max_regex_program_size,
                    },
                }
            ]
        },
    }


def _node(options: Bootstrap) -> dict[str, Any]:
    given = {"id": options.node_id, "cluster": options.cluster, "metadata": dict(options.metadata)}
    node = {name: value for name, value in given.items() if value}
    return {"node": node} if node else {}


def _static_resources(options: Bootstrap) -> dict[str, Any]:
    xds = _xds_cluster(options.xds, options.credentials)
    if options.status is None:
        return {"clusters": [xds]}
    port = int(options.admin.rpartition(":")[2])
    return {"listeners": status_listeners(options.status), "clusters": [xds, admin_cluster(port)]}


def _dynamic_resources(*, state_of_the_world: bool) -> dict[str, Any]:
    # No initial fetch timeout: a proxy without configuration must not call itself ready.
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    # No rate_limit_settings: an empty one already throttles acknowledgements.
    service = {
        "envoy_grpc": {
            "cluster_name": XDS_CLUSTER,
            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "2s"}},
        }
    }
    return {
        "ads_config": {
            "api_type": "GRPC" if state_of_the_world else "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [service],
        },
        "lds_config": source,
        "cds_config": source,
    }


def _xds_cluster(address: str, credentials: XdsCredentials | None) -> dict[str, Any]:
    # A replica that is frozen, or whose node is gone, is left within 20 seconds.
    http2 = {"connection_keepalive": {"interval": "10s", "timeout": "10s"}}
    protocol: dict[str, Any] = {
        "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": http2},
    }
    cluster: dict[str, Any] = {
        "name": XDS_CLUSTER,
        **_discovery(address),
        "connect_timeout": "1s" if credentials is None else "5s",
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(address)}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
    }
    if credentials is not None:
        protocol["http_filters"] = credentials_filters(credentials)
        cluster["transport_socket"] = credentials_socket(credentials)
        cluster["upstream_connection_options"] = {"tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10}}
    return cluster


def _discovery(address: str) -> dict[str, Any]:
    if address.startswith("unix:") or is_numeric(address.rpartition(":")[0].strip("[]")):
        return {"type": "STATIC"}
    return {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}


def _statistics(*, keep_all: bool) -> dict[str, Any]:
    # Nothing reads a sink, so the periodic flush (seconds of the main thread at thousands of clusters) is off.
    document: dict[str, Any] = {"stats_flush_on_admin": True}
    if not keep_all:
        patterns = [{"prefix": prefix} for prefix in _STAT_PREFIXES]
        patterns += [{"suffix": suffix} for suffix in _STAT_SUFFIXES]
        document["stats_config"] = {"stats_matcher": {"inclusion_list": {"patterns": patterns}}}
    return document


def _overload_manager(max_connections: int) -> dict[str, Any]:
    config = {
        "@type": f"{_TYPE}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": max_connections,
    }
    return {
        "resource_monitors": [
            {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": config}
        ]
    }


def _address(text: str, *, mode: int | None = None) -> dict[str, Any]:
    """Return an Envoy address; a unix socket gets `mode`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        return {"pipe": {"path": path} if mode is None else {"path": path, "mode": mode}}
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
