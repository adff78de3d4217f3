"""Gateway API v1.6.1: TLSRoute, TCPRoute and UDPRoute."""

from typing import Annotated

from msgspec import Meta

from meshgw.api.gateway import BackendRef, CommonRouteSpec
from meshgw.api.meta import ApiStruct, Resource
from meshgw.api.scalars import Hostname, SectionName


class L4RouteRule(ApiStruct, frozen=True, kw_only=True):
    """Backends of a route that forwards connections or datagrams; base of the kinds' own rules."""

    name: SectionName | None = None
    backend_refs: Annotated[tuple[BackendRef, ...], Meta(min_length=1)]


class TLSRouteRule(L4RouteRule, frozen=True, kw_only=True):
    """Backends of a TLSRoute."""


class TCPRouteRule(L4RouteRule, frozen=True, kw_only=True):
    """Backends of a TCPRoute."""


class UDPRouteRule(L4RouteRule, frozen=True, kw_only=True):
    """Backends of a UDPRoute."""


class TLSRouteSpec(CommonRouteSpec, frozen=True, kw_only=True):
    """Server names and backends; v1alpha2 allows no ``hostnames``, which means those of the listener."""

    hostnames: tuple[Hostname, ...] = ()
    rules: Annotated[tuple[TLSRouteRule, ...], Meta(min_length=1)]


class TLSRoute(Resource, frozen=True, kw_only=True):
    """A TLSRoute."""

    spec: TLSRouteSpec


class TCPRouteSpec(CommonRouteSpec, frozen=True, kw_only=True):
    """Backends of a TCPRoute; v1 allows one rule."""

    rules: Annotated[tuple[TCPRouteRule, ...], Meta(min_length=1)]


class TCPRoute(Resource, frozen=True, kw_only=True):
    """A TCPRoute."""

    spec: TCPRouteSpec


class UDPRouteSpec(CommonRouteSpec, frozen=True, kw_only=True):
    """Backends of a UDPRoute; v1 allows one rule."""

    rules: Annotated[tuple[UDPRouteRule, ...], Meta(min_length=1)]


class UDPRoute(Resource, frozen=True, kw_only=True):
    """A UDPRoute."""

    spec: UDPRouteSpec
