"""HTTP filters: their names, and what a route asks of those that are off unless a route asks."""

from __future__ import annotations

from typing import Any, Final

from meshgw.emit import checks
from meshgw.ir.route import Cors, ExternalAuth, Filters, SessionPersistence
from meshgw.protos import (
    AnyMessage,
    BoolValue,
    BufferSettings,
    Composite,
    CookieBasedSessionState,
    CorsPolicy,
    ExecuteFilterAction,
    ExtAuthz,
    ExtensionWithMatcher,
    ExtensionWithMatcherPerRoute,
    GrpcService,
    HeaderBasedSessionState,
    HttpService,
    HttpUri,
    ListStringMatcher,
    Matcher,
    Message,
    RegexMatcher,
    SkipFilter,
    StatefulSession,
    StatefulSessionPerRoute,
    StringMatcher,
    TypedExtensionConfig,
    XdsExtension,
    any_of,
    duration,
)

CORS: Final = "envoy.filters.http.cors"
STATEFUL_SESSION: Final = "envoy.filters.http.stateful_session"
EXT_AUTHZ: Final = "meshgw.ext_authz"
"""A place that routes fill: an override of a filter that is there could not say which headers it sends."""
ROUTER: Final = "envoy.filters.http.router"

_AUTH_TIMEOUT: Final = 10_000
_SPECIAL: Final = frozenset(r"\.+*?()|[]{}^$")


def route_filters(filters: Filters, session: SessionPersistence | None) -> dict[str, AnyMessage]:
    """The `typed_per_filter_config` of a route."""
    configs: dict[str, AnyMessage] = {}
    if filters.cors is not None:
        configs[CORS] = any_of(cors_policy(filters.cors))
    if session is not None:
        configs[STATEFUL_SESSION] = any_of(sticky_session(session))
    if filters.external_auth is not None:
        configs[EXT_AUTHZ] = any_of(authorization(filters.external_auth))
    return configs


def cors_policy(cors: Cors) -> CorsPolicy:
    """Cross-origin answers. Preflights of other origins end here too: no backend ever sees one."""
    policy = CorsPolicy(
        allow_origin_string_match=[origin for value in cors.origins for origin in _origin(value)],
        allow_methods=", ".join(cors.methods),
        allow_headers=", ".join(cors.headers),
        expose_headers=", ".join(cors.expose),
        max_age=str(cors.max_age),
        forward_not_matching_preflights=BoolValue(value=False),
    )
    if cors.credentials:
        policy.allow_credentials.value = True
    return policy


def _origin(value: str) -> tuple[StringMatcher, ...]:
    """Conditions on the Origin header; an expression too large for Envoy matches nothing."""
    if "*" not in value:
        return (StringMatcher(exact=value, ignore_case=True),)
    if value == "*":
        return (StringMatcher(safe_regex=RegexMatcher(regex=".*")),)
    pattern = "".join("[^/]+" if char == "*" else f"\\{char}" if char in _SPECIAL else char for char in value)
    return (StringMatcher(safe_regex=RegexMatcher(regex=pattern)),) if checks.regex(pattern) else ()


def sticky_session(session: SessionPersistence) -> StatefulSessionPerRoute:
    """Sessions that stick to an endpoint; one that is gone is replaced."""
    state: Any
    if session.header:
        state = HeaderBasedSessionState(name=session.name)
    else:
        state = CookieBasedSessionState()
        state.cookie.name = session.name
        state.cookie.path = session.path
        if session.lifetime:
            state.cookie.ttl.CopyFrom(duration(session.lifetime * 1000))
    kind = "header" if session.header else "cookie"
    return StatefulSessionPerRoute(
        stateful_session=StatefulSession(
            session_state=TypedExtensionConfig(name=f"envoy.http.stateful_session.{kind}", typed_config=any_of(state))
        )
    )


def no_authorization() -> ExtensionWithMatcher:
    """What the listener has in the place: nothing."""
    return ExtensionWithMatcher(
        extension_config=TypedExtensionConfig(name="envoy.filters.http.composite", typed_config=any_of(Composite())),
        xds_matcher=_always("skip", SkipFilter()),
    )


def authorization(auth: ExternalAuth) -> ExtensionWithMatcherPerRoute:
    """The service asked before each request; a request that it cannot answer for is denied."""
    config = ExtAuthz(clear_route_cache=False)
    if auth.grpc:
        config.grpc_service.CopyFrom(_grpc_service(auth.target.cluster))
    else:
        config.http_service.CopyFrom(_http_service(auth))
    if auth.request_headers:
        config.allowed_headers.CopyFrom(_names(auth.request_headers))
    if auth.max_body:
        config.with_request_body.CopyFrom(BufferSettings(max_request_bytes=auth.max_body))
    run = ExecuteFilterAction(
        typed_config=TypedExtensionConfig(name="envoy.filters.http.ext_authz", typed_config=any_of(config))
    )
    return ExtensionWithMatcherPerRoute(xds_matcher=_always("run", run))


def _always(name: str, action: Message) -> Matcher:
    return Matcher(on_no_match=Matcher.OnMatch(action=XdsExtension(name=name, typed_config=any_of(action))))


def _grpc_service(cluster: str) -> GrpcService:
    return GrpcService(envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=cluster), timeout=duration(_AUTH_TIMEOUT))


def _http_service(auth: ExternalAuth) -> HttpService:
    uri = HttpUri(uri=f"http://{auth.target.name}", cluster=auth.target.cluster, timeout=duration(_AUTH_TIMEOUT))
    service = HttpService(server_uri=uri, path_prefix=auth.path)
    if auth.response_headers:
        service.authorization_response.allowed_upstream_headers.CopyFrom(_names(auth.response_headers))
    return service


def _names(headers: tuple[str, ...]) -> ListStringMatcher:
    return ListStringMatcher(patterns=[StringMatcher(exact=name, ignore_case=True) for name in headers])
