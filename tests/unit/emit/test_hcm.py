from __future__ import annotations

from meshgw.emit.hcm import access_log, connection_manager
from meshgw.emit.rbac import ALLOW_FILTER, DENY_FILTER, authorization_filters
from meshgw.protos import HttpConnectionManager, StdoutAccessLog


def manager(**options: object) -> HttpConnectionManager:
    built = connection_manager("http/80", stat_prefix="tcp/80", **options)  # type: ignore[arg-type]
    return HttpConnectionManager.FromString(built.typed_config.value)


def test_the_filters_are_the_same_for_all_and_the_router_is_last() -> None:
    names = [item.name for item in manager().http_filters]
    assert names == [
        "envoy.filters.http.cors",
        "meshgw.ext_authz",
        "envoy.filters.http.stateful_session",
        "envoy.filters.http.router",
    ]


def test_a_chains_own_authorization_comes_after_preflights_and_before_all_others_are_asked() -> None:
    guarded = manager(authorization=authorization_filters())
    assert [item.name for item in guarded.http_filters] == [
        "envoy.filters.http.cors",
        DENY_FILTER,
        ALLOW_FILTER,
        "meshgw.ext_authz",
        "envoy.filters.http.stateful_session",
        "envoy.filters.http.router",
    ]


def test_the_edge_believes_no_client_about_itself() -> None:
    built = manager()
    assert built.use_remote_address.value
    assert [item.address_prefix for item in built.internal_address_config.cidr_ranges] == ["::"]
    assert built.forward_client_cert_details == HttpConnectionManager.SANITIZE
    assert not manager(edge=False).use_remote_address.value


def test_slow_clients_and_greedy_connections_are_bounded() -> None:
    built = manager()
    assert built.request_headers_timeout.seconds == 10
    assert built.http2_protocol_options.max_concurrent_streams.value == 100
    assert built.stream_idle_timeout.seconds == built.common_http_protocol_options.idle_timeout.seconds == 3600


def test_logs_are_json_without_queries() -> None:
    fields = StdoutAccessLog.FromString(access_log(http=True, extra={"more": "%BYTES_SENT%"}).typed_config.value)
    document = fields.log_format.json_format
    assert document["path"] == "%PATH(NQ:ORIG_OR_PATH)%"
    assert document["more"] == "%BYTES_SENT%"
    assert not any("(:PATH)" in str(document[name]) for name in document)
    plain = StdoutAccessLog.FromString(access_log(http=False).typed_config.value).log_format.json_format
    assert "path" not in plain
    assert "server_name" in plain
