from __future__ import annotations

from meshgw.features.external_auth import authorization, configure
from meshgw.ir.route import ExternalAuth, Filters
from meshgw.protos import ExecuteFilterAction, ExtAuthz
from tests.unit.emit.world import target
from tests.unit.features.scopes import scope


def asked(auth: ExternalAuth) -> ExtAuthz:
    action = authorization(auth).xds_matcher.on_no_match.action.typed_config
    run = ExecuteFilterAction.FromString(action.value)
    return ExtAuthz.FromString(run.typed_config.typed_config.value)


def test_authorization_fails_closed_and_sends_what_the_route_names() -> None:
    auth = ExternalAuth(
        target=target("auth"), grpc=False, path="/check", request_headers=("a",), response_headers=("b",), max_body=9
    )
    config = asked(auth)
    assert not config.failure_mode_allow
    assert config.http_service.path_prefix == "/check"
    assert config.http_service.server_uri.cluster == "service/default/auth/80"
    assert [item.exact for item in config.allowed_headers.patterns] == ["a"]
    upstream = config.http_service.authorization_response.allowed_upstream_headers
    assert [item.exact for item in upstream.patterns] == ["b"]
    assert config.with_request_body.max_request_bytes == 9


def test_grpc_authorization_names_its_cluster() -> None:
    config = asked(ExternalAuth(target=target("auth", protocol="grpc"), grpc=True))
    assert config.grpc_service.envoy_grpc.cluster_name == "service/default/auth/80/grpc"
    assert not config.HasField("with_request_body")


def test_a_rule_without_external_auth_asks_for_nothing() -> None:
    assert configure(scope(filters=Filters())) is None
