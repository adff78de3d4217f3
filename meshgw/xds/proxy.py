"""What is known and allowed of a connected proxy, and whom to tell about it."""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The far end of a stream: the transport's address and request headers (which may hold tokens: never shown)."""

    address: str
    headers: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"Peer({self.address!r})"


class Refused(msgspec.Struct, frozen=True):
    """The answer to a proxy that may not have what it asks for; the reason is sent to it."""

    reason: str


Authorize = Callable[[Peer, str, Mapping[str, object]], str | Refused]
"""Decides from peer, node id and node metadata whose configuration a proxy gets: a group, or a refusal."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what peers may make the server hold."""

    message_bytes: int = 16 * 1024 * 1024
    names: int = 100_000  # in one request, and subscribed per type and stream
    types: int = 16  # per stream
    streams: int = 2_000


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
