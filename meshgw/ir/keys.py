"""Keys of the derived tables. Every key is a tuple of names, so that sorting it is stable and meaningful."""

from __future__ import annotations

from typing import NamedTuple

from meshgw.api.meta import Key

__all__ = ["BackendTarget", "ClusterKey", "Key", "ListenerKey", "PortKey", "ResourceKey", "RouteConfigKey", "RouteKey"]


class RouteKey(NamedTuple):
    """One route object: `kind` is HTTPRoute, GRPCRoute, TLSRoute, TCPRoute or UDPRoute."""

    kind: str
    namespace: str
    name: str

    @property
    def key(self) -> Key:
        """The namespace and name."""
        return Key(self.namespace, self.name)


class ListenerKey(NamedTuple):
    """One attachment point of a Gateway.

    `owner_kind` is Gateway or ListenerSet for a listener, and Service for a service port behind a waypoint (GAMMA),
    where `name` is the decimal port.
    """

    gateway: Key
    owner_kind: str
    owner: Key
    name: str


class PortKey(NamedTuple):
    """One bound port of a Gateway; `transport` is TCP or UDP."""

    gateway: Key
    transport: str
    port: int

    @property
    def resource(self) -> str:
        """The Envoy listener's name."""
        return f"{self.transport.lower()}/{self.port}"


class RouteConfigKey(NamedTuple):
    """One Envoy RouteConfiguration of a Gateway."""

    gateway: Key
    name: str


class BackendTarget(NamedTuple):
    """What a cluster points at: one port of a Service, addressed with one protocol.

    `kind` is Service, or UDPRoute for the weighted endpoints of a whole route. `protocol` is what the route asks for:
    "" (the Service decides), "grpc", "tcp", "tcp+tls" (bytes of TLS that the listener ended) or "udp".
    """

    kind: str
    namespace: str
    name: str
    port: int
    protocol: str = ""

    @property
    def cluster(self) -> str:
        """The cluster's name; it holds no rule index, so reordering rules renames nothing."""
        name = f"{self.kind.lower()}/{self.namespace}/{self.name}/{self.port}"
        return f"{name}/{self.protocol}" if self.protocol else name


class ClusterKey(NamedTuple):
    """One cluster of a Gateway's proxies."""

    gateway: Key
    target: BackendTarget


class ResourceKey(NamedTuple):
    """One xDS resource of a Gateway's proxies."""

    gateway: Key
    type_url: str
    name: str
