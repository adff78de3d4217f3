"""Gateways and their listeners, resolved."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from meshgw import names
from meshgw.api.gateway import RouteGroupKind
from meshgw.api.meta import Key
from meshgw.ir.finding import Finding
from meshgw.ir.keys import ListenerKey
from meshgw.ir.status import Condition

Transport = Literal["tcp", "udp"]
"""What a port is of."""


class Role(StrEnum):
    """What a Gateway is for."""

    INGRESS = "ingress"
    EGRESS = "egress"
    WAYPOINT = "waypoint"


class WaypointFor(StrEnum):
    """Which traffic a waypoint takes (`istio.io/waypoint-for`)."""

    SERVICE = "service"
    WORKLOAD = "workload"
    ALL = "all"
    NONE = "none"


class OwnParameters(StrEnum):
    """What a Gateway may say by GatewayParameters of its own, beside those of its class.

    ANY: everything, so whoever writes them may run any pod. SAFE: what neither changes the pods' software nor as whom
    and how confined it runs. NONE: nothing.
    """

    ANY = "any"
    SAFE = "safe"
    NONE = "none"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator chose for all gateways: the single row of its table."""

    controller_name: str = names.CONTROLLER_NAME
    trust_domain: str = names.DEFAULT_TRUST_DOMAIN
    trust_domain_aliases: tuple[str, ...] = ()
    cluster_domain: str = names.DEFAULT_CLUSTER_DOMAIN
    root_namespace: str = names.DEFAULT_ROOT_NAMESPACE
    mesh: bool = False
    """Whether gateways have mesh certificates and may speak HBONE."""
    loopback_endpoints: bool = False
    """Whether endpoints may be loopback or link-local addresses: standalone only; elsewhere they reach the proxy."""
    deploys: bool = False
    """Whether proxies are Kubernetes objects that are made for each Gateway: in a cluster, not standalone."""
    dual_stack: bool = False
    """Whether pods have IPv6 addresses, alone or beside IPv4: then proxies listen on all addresses of both families."""
    network: str = ""
    """What Istio calls the network of the pods; "" leaves that to Istio."""
    own_parameters: OwnParameters = OwnParameters.ANY
    proxy_image: str = names.PROXY_IMAGE
    """Envoy's image, best with a digest (`image@sha256:...`)."""
    xds_address: str = names.XDS_ADDRESS
    """host:port where proxies in the cluster find their configuration; the host is the name in its certificate."""
    xds_roots: str = ""
    """PEM certificates that verify that server."""

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """All trust domains that are ours, without repetition."""
        return tuple(dict.fromkeys((self.trust_domain, *self.trust_domain_aliases)))


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """Where a Gateway's proxies listen, as its deployment decided. Without a row: 0.0.0.0 and no offset."""

    bind: str = "0.0.0.0"  # noqa: S104 - inside a pod; standalone always sets a loopback address
    addresses: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    """Requested addresses that cannot be bound."""
    pending: str = ""
    """What keeps the proxies from running, if anything does; `pending_reason` is that of Programmed."""
    pending_reason: str = "Pending"
    port_offset: int = 0
    """Added to ports below 1024."""

    def port(self, port: int) -> int:
        """Return the port that is really bound for a listener's port."""
        return port + self.port_offset if port < 1024 else port


class IdentityProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a ServiceAccount gets no new mesh certificate; `ends` is when the one in use does, "" if there is none."""

    code: str
    message: str
    ends: str = ""


class GatewayClass(msgspec.Struct, frozen=True, kw_only=True):
    """A class of ours; `role` is None when its role label is unknown."""

    name: str
    role: Role | None
    waypoint_for: WaypointFor | None = None
    conditions: tuple[Condition, ...] = ()
    findings: tuple[Finding, ...] = ()


class ValidationMode(StrEnum):
    """What happens to a client certificate that does not verify (GEP-91)."""

    VALID_ONLY = "AllowValidOnly"
    INSECURE_FALLBACK = "AllowInsecureFallback"


class ClientValidation(msgspec.Struct, frozen=True, kw_only=True):
    """Client certificates demanded on a port: `bundles` are SDS names of CA bundles."""

    bundles: tuple[str, ...]
    mode: ValidationMode = ValidationMode.VALID_ONLY


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """A Gateway of ours. One that is not `accepted` serves nothing."""

    key: Key
    class_name: str
    role: Role | None
    accepted: bool
    held: bool = False
    """In a cluster, its parameters cannot be used: what serves goes on, with its addresses, and nothing is deployed."""
    generation: int = 0
    waypoint_for: WaypointFor = WaypointFor.SERVICE
    service_account: str = ""
    client_certificate: str = ""
    """SDS name of the certificate shown to TLS backends ("" = none; GEP-3155)."""
    client_certificate_refused: bool = False
    """A certificate was asked for and cannot be had: TLS backends are not reached without it."""
    conditions: tuple[Condition, ...] = ()
    """Accepted and ResolvedRefs as the Gateway object itself decides them; the status step adds the listeners."""
    findings: tuple[Finding, ...] = ()


class Protocol(StrEnum):
    """Protocol of a listener. A waypoint's HBONE listener is implied when it declares none."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"
    TLS = "TLS"
    TCP = "TCP"
    UDP = "UDP"
    HBONE = "HBONE"


class TlsMode(StrEnum):
    """Whether a listener ends TLS or forwards it."""

    TERMINATE = "Terminate"
    PASSTHROUGH = "Passthrough"


class ListenerTls(msgspec.Struct, frozen=True, kw_only=True):
    """TLS of a listener; `certificates` are SDS names."""

    mode: TlsMode = TlsMode.TERMINATE
    certificates: tuple[str, ...] = ()
    client: ClientValidation | None = None
    minimum_version: str = "1.2"


class AllowedNamespaces(msgspec.Struct, frozen=True, kw_only=True):
    """Namespaces whose routes may attach.

    `source` is Same, All, Selector or None; a selector is kept as canonical JSON.
    """

    source: str = "Same"
    selector: bytes = b""


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """One listener of a Gateway, its own or from a ListenerSet."""

    key: ListenerKey
    port: int
    protocol: Protocol | None
    """None when it is not one of ours."""
    hostname: str = ""
    """Lower case; "" matches every host, `*.x` every host below x."""
    tls: ListenerTls | None = None
    serving: bool = False
    """Accepted, not conflicted and every reference good: only then does it reach the data plane."""
    accepted: bool = False
    kinds: tuple[RouteGroupKind, ...] = ()
    namespaces: AllowedNamespaces = AllowedNamespaces()
    conditions: tuple[Condition, ...] = ()
    precedence: int = 0
    """Position among the Gateway's listeners: its own first, then ListenerSets oldest first (GEP-1713)."""
    findings: tuple[Finding, ...] = ()


class ListenerSetResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one ListenerSet that names a Gateway of ours."""

    key: Key
    gateway: Key
    accepted: bool
    conditions: tuple[Condition, ...] = ()
    generation: int = 0
    findings: tuple[Finding, ...] = ()
