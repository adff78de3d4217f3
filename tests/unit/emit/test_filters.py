from __future__ import annotations

from meshgw.emit.filters import (
    CORS,
    EXT_AUTHZ,
    STATEFUL_SESSION,
    authorization,
    cors_policy,
    route_filters,
    sticky_session,
)
from meshgw.ir.route import Cors, ExternalAuth, Filters, SessionPersistence
from meshgw.protos import CookieBasedSessionState, ExecuteFilterAction, ExtAuthz, HeaderBasedSessionState
from tests.unit.emit.world import target


def asked(auth: ExternalAuth) -> ExtAuthz:
    action = authorization(auth).xds_matcher.on_no_match.action.typed_config
    run = ExecuteFilterAction.FromString(action.value)
    return ExtAuthz.FromString(run.typed_config.typed_config.value)


def test_a_route_configures_only_the_filters_it_uses() -> None:
    assert route_filters(Filters(), None) == {}
    auth = ExternalAuth(target=target("auth"), grpc=True)
    every = route_filters(Filters(cors=Cors(), external_auth=auth), SessionPersistence(name="s"))
    assert set(every) == {CORS, STATEFUL_SESSION, EXT_AUTHZ}


def test_origins_are_exact_or_patterns_within_one_host() -> None:
    policy = cors_policy(Cors(origins=("https://a.test", "https://*.b.test", "*")))
    exact, wild, every = policy.allow_origin_string_match
    assert exact.exact == "https://a.test"
    assert wild.safe_regex.regex == r"https://[^/]+\.b\.test"
    assert every.safe_regex.regex == ".*"
    assert not policy.HasField("allow_credentials")


def test_an_origin_too_long_for_a_pattern_matches_nothing() -> None:
    assert list(cors_policy(Cors(origins=("https://*." + "a" * 2000,))).allow_origin_string_match) == []


def test_preflights_never_reach_a_backend() -> None:
    policy = cors_policy(Cors(credentials=True, methods=("GET", "PUT")))
    assert policy.HasField("forward_not_matching_preflights")
    assert not policy.forward_not_matching_preflights.value
    assert policy.allow_credentials.value
    assert policy.allow_methods == "GET, PUT"
    assert policy.max_age == "5"


def test_sessions_are_kept_in_a_cookie_or_a_header() -> None:
    state = sticky_session(SessionPersistence(name="s", lifetime=3, path="/a")).stateful_session.session_state
    cookie = CookieBasedSessionState.FromString(state.typed_config.value).cookie
    assert (cookie.name, cookie.path, cookie.ttl.seconds) == ("s", "/a", 3)
    brief = sticky_session(SessionPersistence(name="s")).stateful_session.session_state
    assert not CookieBasedSessionState.FromString(brief.typed_config.value).cookie.HasField("ttl")
    state = sticky_session(SessionPersistence(name="h", header=True)).stateful_session.session_state
    assert HeaderBasedSessionState.FromString(state.typed_config.value).name == "h"


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
