"""Gateway API v1.6.1: HTTPRoute, with the fields of the experimental channel."""

from typing import Annotated, Literal

from msgspec import Meta

from meshgw.api.filters import HTTPHeaderFilter, HTTPRequestMirrorFilter, SessionPersistence
from meshgw.api.gateway import BackendObjectReference, BackendRef, CommonRouteSpec, LocalObjectReference
from meshgw.api.meta import ApiStruct, Resource
from meshgw.api.scalars import (
    ORIGIN_PATTERN,
    PATH_PATTERN,
    Duration,
    HeaderName,
    HeaderValue,
    Hostname,
    HTTPMethod,
    PortNumber,
    PreciseHostname,
    SectionName,
)

MatchType = Literal["Exact", "RegularExpression"]


class HTTPPathMatch(ApiStruct, frozen=True, kw_only=True):
    """A condition on the path."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, Meta(max_length=1024)] = "/"


class HTTPHeaderMatch(ApiStruct, frozen=True, kw_only=True):
    """A condition on one header; of equal names (ignoring case) only the first entry counts."""

    type: MatchType = "Exact"
    name: HeaderName
    value: HeaderValue


class HTTPQueryParamMatch(ApiStruct, frozen=True, kw_only=True):
    """A condition on one query parameter."""

    type: MatchType = "Exact"
    name: HeaderName
    value: Annotated[str, Meta(min_length=1, max_length=1024)]


class HTTPRouteMatch(ApiStruct, frozen=True, kw_only=True):
    """Conditions of which all must hold."""

    path: HTTPPathMatch = HTTPPathMatch()
    headers: tuple[HTTPHeaderMatch, ...] = ()
    query_params: tuple[HTTPQueryParamMatch, ...] = ()
    method: HTTPMethod | None = None


class HTTPPathModifier(ApiStruct, frozen=True, kw_only=True):
    """A new path, whole or for the matched prefix."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Annotated[str, Meta(max_length=1024)] | None = None
    replace_prefix_match: Annotated[str, Meta(max_length=1024)] | None = None


class HTTPRequestRedirectFilter(ApiStruct, frozen=True, kw_only=True):
    """A redirect; what is not set stays as in the request."""

    scheme: Literal["http", "https"] | None = None
    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None
    port: PortNumber | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class HTTPURLRewriteFilter(ApiStruct, frozen=True, kw_only=True):
    """A new host or path for the backend."""

    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None


class HTTPCORSFilter(ApiStruct, frozen=True, kw_only=True):
    """Cross-origin rules (GEP-1767); ``max_age`` is in seconds."""

    allow_origins: tuple[Annotated[str, Meta(pattern=ORIGIN_PATTERN, max_length=253)], ...] = ()
    allow_credentials: bool | None = None
    allow_methods: tuple[HTTPMethod | Literal["*"], ...] = ()
    allow_headers: tuple[HeaderName, ...] = ()
    expose_headers: tuple[HeaderName, ...] = ()
    max_age: Annotated[int, Meta(ge=1, le=2_147_483_647)] = 5


class GRPCAuthConfig(ApiStruct, frozen=True, kw_only=True):
    """Request headers a gRPC authorizer gets; none listed means all."""

    allowed_headers: tuple[str, ...] = ()


class HTTPAuthConfig(ApiStruct, frozen=True, kw_only=True):
    """What an HTTP authorizer gets and may return."""

    path: Annotated[str, Meta(pattern=PATH_PATTERN, max_length=1024)] | None = None
    allowed_headers: tuple[str, ...] = ()
    allowed_response_headers: tuple[str, ...] = ()


class ForwardBodyConfig(ApiStruct, frozen=True, kw_only=True):
    """How many bytes of the body an authorizer gets; 0 means none."""

    max_size: Annotated[int, Meta(ge=0, le=65535)] = 0


class HTTPExternalAuthFilter(ApiStruct, frozen=True, kw_only=True):
    """An authorizer that decides about each request (GEP-1494)."""

    protocol: Literal["HTTP", "GRPC"]
    backend_ref: BackendObjectReference
    grpc: GRPCAuthConfig | None = None
    http: HTTPAuthConfig | None = None
    forward_body: ForwardBodyConfig | None = None


class HTTPRouteFilter(ApiStruct, frozen=True, kw_only=True):
    """One filter; the field that ``type`` names is set."""

    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
        "ExternalAuth",
    ]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    request_redirect: HTTPRequestRedirectFilter | None = None
    url_rewrite: HTTPURLRewriteFilter | None = None
    extension_ref: LocalObjectReference | None = None
    cors: HTTPCORSFilter | None = None
    external_auth: HTTPExternalAuthFilter | None = None


class HTTPBackendRef(BackendRef, frozen=True, kw_only=True):
    """A backend, its share of the traffic, and the filters for it alone."""

    filters: tuple[HTTPRouteFilter, ...] = ()


class HTTPRouteTimeouts(ApiStruct, frozen=True, kw_only=True):
    """Timeouts of a whole request and of each try (GEP-1742); ``0s`` means none."""

    request: Duration | None = None
    backend_request: Duration | None = None


class HTTPRouteRetry(ApiStruct, frozen=True, kw_only=True):
    """When and how often to retry (GEP-1731)."""

    codes: tuple[Annotated[int, Meta(ge=400, le=599)], ...] = ()
    attempts: Annotated[int, Meta(ge=1)] | None = None
    backoff: Duration | None = None


class HTTPRouteRule(ApiStruct, frozen=True, kw_only=True):
    """Matches of which one must hold, and what then happens."""

    name: SectionName | None = None
    matches: tuple[HTTPRouteMatch, ...] = (HTTPRouteMatch(),)
    filters: tuple[HTTPRouteFilter, ...] = ()
    backend_refs: tuple[HTTPBackendRef, ...] = ()
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session_persistence: SessionPersistence | None = None


class HTTPRouteSpec(CommonRouteSpec, frozen=True, kw_only=True):
    """Hosts and rules; no ``hostnames`` means those of the listener."""

    hostnames: tuple[Hostname, ...] = ()
    rules: Annotated[tuple[HTTPRouteRule, ...], Meta(min_length=1)] = (HTTPRouteRule(),)


class HTTPRoute(Resource, frozen=True, kw_only=True):
    """An HTTPRoute."""

    spec: HTTPRouteSpec
