"""One Envoy resource as bytes: what the translator hands to the xDS server."""

import hashlib
from typing import Any, Final, Self

import msgspec

_PREFIX: Final = "type.googleapis.com/envoy."
LISTENER: Final = f"{_PREFIX}config.listener.v3.Listener"
ROUTE_CONFIGURATION: Final = f"{_PREFIX}config.route.v3.RouteConfiguration"
CLUSTER: Final = f"{_PREFIX}config.cluster.v3.Cluster"
ENDPOINTS: Final = f"{_PREFIX}config.endpoint.v3.ClusterLoadAssignment"
SECRET: Final = f"{_PREFIX}extensions.transport_sockets.tls.v3.Secret"

SHORT_NAMES: Final = {LISTENER: "LDS", ROUTE_CONFIGURATION: "RDS", CLUSTER: "CDS", ENDPOINTS: "EDS", SECRET: "SDS"}
"""The discovery service of each type, for logs, metrics and tables."""


def content_version(*fragments: bytes) -> str:
    """The version of a resource made of these fragments: 32 hex digits, the same in every process."""
    digest = hashlib.blake2b(digest_size=16)
    for fragment in fragments:
        digest.update(fragment)
    return digest.hexdigest()


class Resource(msgspec.Struct, frozen=True, gc=False):
    """A serialized Envoy message (not wrapped in `Any`) with its type, name and content version.

    Equal versions mean equal bodies. The body of a secret is a private key, so no body is ever shown. A large body
    stays in the `parts` it was made of until it is sent, as each join of megabytes costs about a millisecond.
    """

    type_url: str
    name: str
    version: str
    parts: tuple[bytes, ...]

    @classmethod
    def of(cls, type_url: str, name: str, *parts: bytes, version: str | None = None) -> Self:
        """A resource versioned by its content; a body made of hashed parts may bring its own version."""
        return cls(type_url, name, content_version(*parts) if version is None else version, parts)

    @property
    def body(self) -> bytes:
        """The message in one piece."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    @property
    def size(self) -> int:
        """Bytes of the message."""
        return sum(map(len, self.parts))

    def __repr__(self) -> str:
        kind = SHORT_NAMES.get(self.type_url, self.type_url)
        return f"Resource({kind} {self.name!r} {self.version} {self.size} bytes)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        kind = SHORT_NAMES.get(self.type_url, self.type_url)
        return [("type", kind), ("name", self.name), ("version", self.version), ("size", self.size)]
