"""The HTTP connection manager: the same filters whatever the routes ask for, so no route ever changes a listener."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshgw.emit.filters import http_filters
from meshgw.protos import (
    AccessLog,
    CidrRange,
    Filter,
    Http2ProtocolOptions,
    HttpConnectionManager,
    HttpFilter,
    HttpProtocolOptions,
    Rds,
    StdoutAccessLog,
    Struct,
    SubstitutionFormatString,
    ads,
    any_of,
    duration,
)

MAX_STREAMS: Final = 100
_IDLE: Final = 3_600_000
_HEADERS_WITHIN: Final = 10_000
_STREAM_WINDOW: Final = 65_536
_CONNECTION_WINDOW: Final = 1_048_576

# The path without its query, where tokens travel. JSON escapes what clients send: none can write a line of its own.
_HTTP_FIELDS: Final = {
    "time": "%START_TIME%",
    "method": "%REQUEST_HEADER(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "authority": "%REQUEST_HEADER(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "duration": "%DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "request_id": "%REQUEST_HEADER(X-REQUEST-ID)%",
    "agent": "%REQUEST_HEADER(USER-AGENT)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream": "%UPSTREAM_HOST%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
_TCP_FIELDS: Final = {
    "time": "%START_TIME%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%CONNECTION_TERMINATION_DETAILS%",
    "duration": "%DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "server_name": "%REQUESTED_SERVER_NAME%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream": "%UPSTREAM_HOST%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}


def access_log(*, http: bool, extra: dict[str, str] | None = None) -> AccessLog:
    """A log of one JSON object per request or connection on Envoy's standard output."""
    fields = {**(_HTTP_FIELDS if http else _TCP_FIELDS), **(extra or {})}
    document = Struct()
    document.update(dict(sorted(fields.items())))
    stdout = StdoutAccessLog(log_format=SubstitutionFormatString(json_format=document, omit_empty_values=True))
    return AccessLog(name="envoy.access_loggers.stdout", typed_config=any_of(stdout))


def connection_manager(
    route_config: str,
    *,
    stat_prefix: str,
    edge: bool = True,
    authorization: Iterable[HttpFilter] = (),
    log: dict[str, str] | None = None,
) -> Filter:
    """The network filter that serves HTTP by a RouteConfiguration of that name.

    At the `edge` the peer is the client: its address is what counts, and what it claims in x-forwarded-for and x-envoy
    headers does not. `authorization` are filters of the chain's own, `log` are more fields of the access log.
    """
    manager = HttpConnectionManager(
        stat_prefix=stat_prefix,
        rds=Rds(config_source=ads(), route_config_name=route_config),
        http_filters=http_filters(authorization),
        use_remote_address={"value": edge},
        normalize_path={"value": True},
        merge_slashes=True,
        path_with_escaped_slashes_action=HttpConnectionManager.UNESCAPE_AND_REDIRECT,
        strip_trailing_host_dot=True,
        server_header_transformation=HttpConnectionManager.PASS_THROUGH,
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=duration(_IDLE)),
        http2_protocol_options=Http2ProtocolOptions(
            max_concurrent_streams={"value": MAX_STREAMS},
            initial_stream_window_size={"value": _STREAM_WINDOW},
            initial_connection_window_size={"value": _CONNECTION_WINDOW},
            allow_connect=True,
        ),
        stream_idle_timeout=duration(_IDLE),
        request_headers_timeout=duration(_HEADERS_WITHIN),
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        access_log=[access_log(http=True, extra=log)],
    )
    nobody = CidrRange(address_prefix="::", prefix_len={"value": 128})  # no list at all would mean private addresses
    manager.internal_address_config.cidr_ranges.append(nobody)
    return Filter(name="envoy.filters.network.http_connection_manager", typed_config=any_of(manager))
