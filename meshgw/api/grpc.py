"""Gateway API v1.6.1: GRPCRoute."""

from typing import Annotated, Literal

from msgspec import Meta

from meshgw.api.filters import HTTPHeaderFilter, HTTPRequestMirrorFilter, SessionPersistence
from meshgw.api.gateway import BackendRef, CommonRouteSpec, LocalObjectReference
from meshgw.api.meta import ApiStruct, Resource
from meshgw.api.scalars import HeaderName, Hostname, SectionName

MatchType = Literal["Exact", "RegularExpression"]


class GRPCMethodMatch(ApiStruct, frozen=True, kw_only=True):
    """A condition on service and method, of which at least one is set."""

    type: MatchType = "Exact"
    service: Annotated[str, Meta(max_length=1024)] | None = None
    method: Annotated[str, Meta(max_length=1024)] | None = None


class GRPCHeaderMatch(ApiStruct, frozen=True, kw_only=True):
    """A condition on one header; of equal names (ignoring case) only the first entry counts."""

    type: MatchType = "Exact"
    name: HeaderName
    value: Annotated[str, Meta(min_length=1, max_length=4096)]


class GRPCRouteMatch(ApiStruct, frozen=True, kw_only=True):
    """Conditions of which all must hold; no ``method`` means any."""

    method: GRPCMethodMatch | None = None
    headers: tuple[GRPCHeaderMatch, ...] = ()


class GRPCRouteFilter(ApiStruct, frozen=True, kw_only=True):
    """One filter; the field that ``type`` names is set."""

    type: Literal["ResponseHeaderModifier", "RequestHeaderModifier", "RequestMirror", "ExtensionRef"]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    extension_ref: LocalObjectReference | None = None


class GRPCBackendRef(BackendRef, frozen=True, kw_only=True):
    """A backend, its share of the traffic, and the filters for it alone."""

    filters: tuple[GRPCRouteFilter, ...] = ()


class GRPCRouteRule(ApiStruct, frozen=True, kw_only=True):
    """Matches of which one must hold (none listed: every call), and what then happens."""

    name: SectionName | None = None
    matches: tuple[GRPCRouteMatch, ...] = ()
    filters: tuple[GRPCRouteFilter, ...] = ()
    backend_refs: tuple[GRPCBackendRef, ...] = ()
    session_persistence: SessionPersistence | None = None


class GRPCRouteSpec(CommonRouteSpec, frozen=True, kw_only=True):
    """Hosts and rules; no ``hostnames`` means those of the listener."""

    hostnames: tuple[Hostname, ...] = ()
    rules: tuple[GRPCRouteRule, ...] = ()


class GRPCRoute(Resource, frozen=True, kw_only=True):
    """A GRPCRoute."""

    spec: GRPCRouteSpec
