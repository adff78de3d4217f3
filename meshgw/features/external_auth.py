"""A service asked before each request (GEP-1494)."""

from __future__ import annotations

from typing import Final

from meshgw.features.feature import Feature, RouteFilter, RouteScope, Slot
from meshgw.ir.route import ExternalAuth
from meshgw.protos import (
    BufferSettings,
    Composite,
    ExecuteFilterAction,
    ExtAuthz,
    ExtensionWithMatcher,
    ExtensionWithMatcherPerRoute,
    GrpcService,
    HttpService,
    HttpUri,
    ListStringMatcher,
    Matcher,
    Message,
    SkipFilter,
    StringMatcher,
    TypedExtensionConfig,
    XdsExtension,
    any_of,
    duration,
)

_AUTH_TIMEOUT: Final = 10_000


def configure(scope: RouteScope) -> ExtensionWithMatcherPerRoute | None:
    """The service that a rule asks."""
    auth = scope.filters.external_auth
    return authorization(auth) if auth is not None else None


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


EXTERNAL_AUTH: Final = Feature(
    name="external-auth",
    # A place that routes fill: an override of a filter that is there could not say which headers it sends.
    filters=(
        RouteFilter(
            slot=Slot.AUTHORIZATION,
            name="meshgw.ext_authz",
            inert=no_authorization,
            configure=configure,
        ),
    ),
)
