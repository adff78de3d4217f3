"""Gateway API v1.6.1: GatewayClass, Gateway, ListenerSet, and the references other kinds share."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from meshgw.api.meta import ApiStruct, LabelSelector, Resource
from meshgw.api.scalars import (
    ADDRESS_TYPE_PATTERN,
    CONTROLLER_PATTERN,
    PROTOCOL_PATTERN,
    GatewayDefaultScope,
    Group,
    Hostname,
    KindName,
    LabelValue,
    NamespaceName,
    ObjectName,
    OptionValue,
    PortNumber,
    SectionName,
    Weight,
)

GATEWAY_GROUP = "gateway.networking.k8s.io"


class ParentReference(ApiStruct, frozen=True, kw_only=True):
    """The resource a route attaches to: a Gateway, a ListenerSet, or a Service in a mesh."""

    group: Group = GATEWAY_GROUP
    kind: KindName = "Gateway"
    namespace: NamespaceName | None = None
    name: ObjectName
    section_name: SectionName | None = None
    port: PortNumber | None = None


class BackendObjectReference(ApiStruct, frozen=True, kw_only=True):
    """A backend; no ``namespace`` means that of the referrer."""

    group: Group = ""
    kind: KindName = "Service"
    name: ObjectName
    namespace: NamespaceName | None = None
    port: PortNumber | None = None


class BackendRef(BackendObjectReference, frozen=True, kw_only=True):
    """A backend and its share of the traffic."""

    weight: Weight = 1


class LocalObjectReference(ApiStruct, frozen=True, kw_only=True):
    """An object in the namespace of the referrer."""

    group: Group
    kind: KindName
    name: ObjectName


class ObjectReference(ApiStruct, frozen=True, kw_only=True):
    """An object in any namespace; no ``namespace`` means that of the referrer."""

    group: Group
    kind: KindName
    name: ObjectName
    namespace: NamespaceName | None = None


class ParametersReference(ApiStruct, frozen=True, kw_only=True):
    """Parameters of a GatewayClass; no ``namespace`` means a cluster-scoped object."""

    group: Group
    kind: KindName
    name: ObjectName
    namespace: NamespaceName | None = None


class SecretObjectReference(ApiStruct, frozen=True, kw_only=True):
    """A certificate, by default a Secret; no ``namespace`` means that of the referrer."""

    group: Group = ""
    kind: KindName = "Secret"
    name: ObjectName
    namespace: NamespaceName | None = None


class GatewayClassSpec(ApiStruct, frozen=True, kw_only=True):
    """Which controller serves the Gateways of a class."""

    controller_name: Annotated[str, Meta(pattern=CONTROLLER_PATTERN, max_length=253)]
    parameters_ref: ParametersReference | None = None
    description: str | None = None


class GatewayClass(Resource, frozen=True, kw_only=True):
    """A GatewayClass; cluster-scoped."""

    spec: GatewayClassSpec


class RouteGroupKind(ApiStruct, frozen=True, kw_only=True):
    """A kind of route."""

    group: Group = GATEWAY_GROUP
    kind: KindName


class RouteNamespaces(ApiStruct, frozen=True, kw_only=True):
    """Namespaces routes may come from."""

    from_: Literal["All", "Selector", "Same"] = "Same"
    selector: LabelSelector | None = None


class AllowedRoutes(ApiStruct, frozen=True, kw_only=True):
    """Routes a listener accepts; no ``kinds`` means those its protocol supports."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteGroupKind, ...] = ()


class ListenerTLSConfig(ApiStruct, frozen=True, kw_only=True):
    """TLS of a listener."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: tuple[SecretObjectReference, ...] = ()
    options: Mapping[str, OptionValue] = {}


class Listener(ApiStruct, frozen=True, kw_only=True):
    """One listener of a Gateway or ListenerSet; no ``hostname`` means any."""

    name: SectionName
    hostname: Hostname | None = None
    port: PortNumber
    protocol: Annotated[str, Meta(pattern=PROTOCOL_PATTERN, max_length=255)]
    tls: ListenerTLSConfig | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewayAddress(ApiStruct, frozen=True, kw_only=True):
    """A requested address; no ``value`` means any address of the type."""

    type: Annotated[str, Meta(pattern=ADDRESS_TYPE_PATTERN, max_length=253)] = "IPAddress"
    value: Annotated[str, Meta(max_length=253)] = ""


class LocalParametersReference(LocalObjectReference, frozen=True, kw_only=True):
    """Parameters of a Gateway's infrastructure, in its namespace."""


class GatewayInfrastructure(ApiStruct, frozen=True, kw_only=True):
    """What the objects that make up a Gateway carry."""

    labels: Mapping[str, LabelValue] = {}
    annotations: Mapping[str, OptionValue] = {}
    parameters_ref: LocalParametersReference | None = None


class ListenerNamespaces(ApiStruct, frozen=True, kw_only=True):
    """Namespaces ListenerSets may come from."""

    from_: Literal["All", "Selector", "Same", "None"] = "None"
    selector: LabelSelector | None = None


class AllowedListeners(ApiStruct, frozen=True, kw_only=True):
    """ListenerSets a Gateway accepts: by default none."""

    namespaces: ListenerNamespaces = ListenerNamespaces()


class FrontendTLSValidation(ApiStruct, frozen=True, kw_only=True):
    """How client certificates are verified (GEP-91)."""

    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], Meta(min_length=1)]
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"


class FrontendTLSConfig(ApiStruct, frozen=True, kw_only=True):
    """TLS towards clients; without ``validation`` no client certificate is asked for."""

    validation: FrontendTLSValidation | None = None


class PortTLSConfig(ApiStruct, frozen=True, kw_only=True):
    """TLS towards clients of one port; replaces the default as a whole."""

    port: PortNumber
    tls: FrontendTLSConfig


class FrontendTLS(ApiStruct, frozen=True, kw_only=True):
    """TLS towards clients, for all HTTPS ports and per port."""

    default: FrontendTLSConfig
    per_port: tuple[PortTLSConfig, ...] = ()


class BackendTLS(ApiStruct, frozen=True, kw_only=True):
    """The certificate a Gateway shows to backends (GEP-3155)."""

    client_certificate_ref: SecretObjectReference | None = None


class GatewayTLSConfig(ApiStruct, frozen=True, kw_only=True):
    """TLS of a whole Gateway."""

    backend: BackendTLS | None = None
    frontend: FrontendTLS | None = None


class GatewaySpec(ApiStruct, frozen=True, kw_only=True):
    """Listeners of a Gateway and what surrounds them."""

    gateway_class_name: ObjectName
    listeners: Annotated[tuple[Listener, ...], Meta(min_length=1)]
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: GatewayInfrastructure | None = None
    allowed_listeners: AllowedListeners = AllowedListeners()
    tls: GatewayTLSConfig | None = None
    default_scope: GatewayDefaultScope | None = None


class Gateway(Resource, frozen=True, kw_only=True):
    """A Gateway."""

    spec: GatewaySpec


class ParentGatewayReference(ApiStruct, frozen=True, kw_only=True):
    """The Gateway a ListenerSet extends; no ``namespace`` means that of the ListenerSet."""

    group: Group = GATEWAY_GROUP
    kind: KindName = "Gateway"
    name: ObjectName
    namespace: NamespaceName | None = None


class ListenerSetSpec(ApiStruct, frozen=True, kw_only=True):
    """Listeners added to a Gateway (GEP-1713)."""

    parent_ref: ParentGatewayReference
    listeners: Annotated[tuple[Listener, ...], Meta(min_length=1)]


class ListenerSet(Resource, frozen=True, kw_only=True):
    """A ListenerSet."""

    spec: ListenerSetSpec


class CommonRouteSpec(ApiStruct, frozen=True, kw_only=True):
    """What the specs of all routes share."""

    parent_refs: tuple[ParentReference, ...] = ()
    use_default_gateways: GatewayDefaultScope | None = None
