"""What is known and allowed of a connected proxy, and whom to tell about it."""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, Protocol

import msgspec

CloseCode = Literal["PERMISSION_DENIED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNAUTHENTICATED"]
"""Names of gRPC status codes."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Who a proxy has proven to be: a pod, and the ServiceAccount it runs as."""

    namespace: str
    service_account: str
    pod: str
    pod_uid: str


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The far end of a stream: the transport's address and request headers (which may hold tokens: never shown)."""

    address: str
    headers: Mapping[str, str] = {}
    account: Account | None = None
    proven_for: float = math.inf
    """Seconds from authentication on for which the proof of the account holds."""

    def __repr__(self) -> str:
        return f"Peer({self.address!r}, account={self.account!r})"


class Refused(msgspec.Struct, frozen=True):
    """The answer to a proxy that may not have what it asks for; the reason is sent to it."""

    reason: str
    code: CloseCode = "PERMISSION_DENIED"


Authorize = Callable[[Peer, str, Mapping[str, object]], str | Refused]
"""Decides from peer, node id and node metadata whose configuration a proxy gets: a group, or a refusal.

Called for every request, the first and all later ones.
"""

Authenticate = Callable[[Peer], Awaitable[Peer | Refused]]
"""Finds out who a peer is, from its headers: the peer with its account, or a refusal; once per stream."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what peers may make the server hold and do."""

    message_bytes: int = 16 * 1024 * 1024
    names: int = 100_000  # in one request, and subscribed per stream
    held_bytes: int = 32 * 1024 * 1024  # of names and versions that a stream's requests make the session remember
    metadata_bytes: int = 64 * 1024  # of a node, and a fraction of it for a node id and a type URL
    types: int = 16  # per stream
    streams: int = 2_000
    connections: int = 4_000  # whether or not they have streams
    streams_per_connection: int = 16
    streams_per_namespace: int = 1_000  # so that no tenant has them all
    streams_per_account: int = 500  # of one ServiceAccount
    streams_per_pod: int = 4  # a proxy has one; those of connections that broke linger a while
    waiting: int = 256  # streams being authenticated
    patience: float = 10.0  # seconds for a TLS handshake, and for authentication
    failures: float = 10.0  # per second and address, of those that prove nothing; then they are not heard
    failure_burst: float = 200.0
    requests: float = 500.0  # per second and stream; large ones, and pushes, count as several
    request_burst: float = 5_000.0
    age: float = 1_800.0
    """Seconds a stream lives, plus or minus a fifth; streams of this machine alone (no credentials) live on."""
    grace: float = 20.0
    """Seconds an old stream has to answer what is on its way: longer than Envoy lets a cluster warm."""


class TypeState(msgspec.Struct, frozen=True, kw_only=True):
    """One type on one stream: what was asked, sent, accepted and refused."""

    wildcard: bool = False
    names: int = 0  # explicit subscriptions
    resources: int = 0  # sent and not removed since
    version_sent: str = ""
    version_acked: str = ""
    unanswered: int = 0  # responses without an ACK or NACK yet
    nack: str = ""
    refused: tuple[str, ...] = ()  # the resources the NACK text is about
    ack_seconds: float | None = None  # push to ACK, the latest


class ProxyState(msgspec.Struct, frozen=True, kw_only=True):
    """One connected proxy as the server sees it; times are those of the server's clock."""

    proxy: int  # a number unique among this server's streams
    node_id: str
    group: str
    address: str
    protocol: str  # "delta" or "sotw"
    connected_at: float
    connected: bool = True
    types: Mapping[str, TypeState] = {}


class XdsObserver(Protocol):
    """Receives what is worth measuring; calls must not block."""

    def pushed(self, group: str, type_url: str, size: int, resources: int) -> None:
        """A response of `size` bytes is on its way to one proxy."""

    def acked(self, group: str, type_url: str, seconds: float) -> None:
        """A proxy accepted a response, this long after it was handed to the transport."""

    def nacked(self, group: str, type_url: str) -> None:
        """A proxy refused a response."""

    def connected(self, proxies: int) -> None:
        """The number of streams with a known group changed."""

    def refused(self, code: str) -> None:
        """A stream was not admitted, or ended by the server for what the proxy did, with this gRPC status."""


class NoObserver:
    """An `XdsObserver` that measures nothing."""

    def pushed(self, group: str, type_url: str, size: int, resources: int) -> None:
        """Ignore it."""

    def acked(self, group: str, type_url: str, seconds: float) -> None:
        """Ignore it."""

    def nacked(self, group: str, type_url: str) -> None:
        """Ignore it."""

    def connected(self, proxies: int) -> None:
        """Ignore it."""

    def refused(self, code: str) -> None:
        """Ignore it."""
