"""Clusters and their endpoints, resolved per Gateway."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from meshgw.api.gateway import ParentReference
from meshgw.api.meta import Key
from meshgw.ir.finding import Finding
from meshgw.ir.keys import BackendTarget, ClusterKey
from meshgw.ir.status import Condition


class UpstreamProtocol(StrEnum):
    """What is spoken to the endpoints."""

    HTTP1 = "http1"
    """Over TLS the backend may choose HTTP/2."""
    WEBSOCKET = "websocket"
    """HTTP/1.1 and nothing else: few servers upgrade over HTTP/2."""
    HTTP2 = "http2"
    TCP = "tcp"
    UDP = "udp"


class SanKind(StrEnum):
    """Kind of a subject alternative name."""

    DNS = "dns"
    URI = "uri"


class UpstreamTls(msgspec.Struct, frozen=True, kw_only=True):
    """TLS to the backend (BackendTLSPolicy). `bundles` are SDS names of CA bundles; none means the system's roots."""

    sni: str
    sans: tuple[tuple[SanKind, str], ...] = ()
    bundles: tuple[str, ...] = ()
    system_roots: bool = False
    client_certificate: str = ""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """One port of a backend as one Gateway reaches it.

    `members` (with weights) is for composite clusters only (UDP routes).
    """

    key: ClusterKey
    protocol: UpstreamProtocol = UpstreamProtocol.HTTP1
    tls: UpstreamTls | None = None
    refused: str = ""
    """Not empty: the backend may not be reached (an invalid policy); the cluster has no endpoints and answers 503."""
    hbone: bool = False
    """Whether endpoints may be reached by HBONE (then the choice is per endpoint)."""
    members: tuple[tuple[BackendTarget, int], ...] = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, order=True, gc=False):
    """One address. With `hbone`, the tunnel ends at port 15008 of the address, which must prove `identity`."""

    address: str
    port: int
    healthy: bool = True
    region: str = ""
    zone: str = ""
    weight: int = 0
    """Load-balancing weight in a composite cluster, where groups of different sizes share; 0 elsewhere."""
    hbone: bool = False
    identity: str = ""
    """SPIFFE id the endpoint must prove; "" only without HBONE."""


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """All endpoints of a cluster, sorted."""

    key: ClusterKey
    endpoints: tuple[Endpoint, ...] = ()
    findings: tuple[Finding, ...] = ()


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate with its key, from a Secret. `error` says why it cannot be used; then chain and key are empty."""

    name: str
    chain: bytes = b""
    key: bytes = b""
    not_after: int = 0
    """When the first certificate of the chain expires, in Unix seconds."""
    error: str = ""

    def __repr__(self) -> str:
        """Hide the key."""
        return f"Certificate({self.name!r}, error={self.error!r})"


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """CA certificates, from a ConfigMap or Secret."""

    name: str
    roots: bytes = b""
    error: str = ""


class WorkloadCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A mesh certificate of one ServiceAccount, as SDS needs it."""

    chain: bytes
    key: bytes
    roots: bytes

    def __repr__(self) -> str:
        """Hide the key."""
        return "WorkloadCertificate(...)"


def certificate_name(namespace: str, name: str) -> str:
    """Return the SDS name of a Secret's certificate."""
    return f"certificate/{namespace}/{name}"


def bundle_name(kind: str, namespace: str, name: str) -> str:
    """Return the SDS name of a CA bundle in a ConfigMap or Secret."""
    return f"bundle/{kind.lower()}/{namespace}/{name}"


class SecretUse(msgspec.Struct, frozen=True, kw_only=True):
    """Some part of a Gateway's configuration names a secret, already found permitted."""

    gateway: Key
    name: str


class BackendTlsResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one BackendTLSPolicy: its conditions per Gateway that uses a targeted backend (the ancestors)."""

    key: Key
    ancestors: tuple[tuple[ParentReference, tuple[Condition, ...]], ...] = ()
    findings: tuple[Finding, ...] = ()
