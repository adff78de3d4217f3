"""What a session is told and what it wants done."""

from typing import TypeAlias

import msgspec
from envoy.service.discovery.v3 import discovery_pb2

from meshgw.xds.cache import Changes
from meshgw.xds.proxy import CloseCode

Request: TypeAlias = discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest


class Received(msgspec.Struct, frozen=True):
    """The proxy sent a request."""

    request: Request
    now: float


class Changed(msgspec.Struct, frozen=True):
    """The cache changed for the session's group."""

    changes: Changes
    now: float


class Writable(msgspec.Struct, frozen=True):
    """The transport can take a message, or time has passed since there was none to give."""

    now: float


Event = Received | Changed | Writable


class Send(msgspec.Struct, frozen=True):
    """Write this response; the body may hold keys and is not shown."""

    type_url: str
    nonce: str
    body: bytes
    resources: int = 0

    def __repr__(self) -> str:
        return f"Send({self.type_url!r}, nonce={self.nonce!r}, {len(self.body)} bytes, resources={self.resources})"


class Acked(msgspec.Struct, frozen=True):
    """The proxy accepted a response, `seconds` after it was handed out."""

    type_url: str
    version: str
    seconds: float


class Nacked(msgspec.Struct, frozen=True):
    """The proxy refused a response, and with it possibly any of these resources."""

    type_url: str
    version: str
    text: str
    resources: tuple[str, ...]


class Settled(msgspec.Struct, frozen=True):
    """The proxy acknowledged every route and listener of this commit of its group."""

    commit: int


class Close(msgspec.Struct, frozen=True):
    """End the stream with this status."""

    code: CloseCode
    text: str


Command = Send | Acked | Nacked | Settled | Close
