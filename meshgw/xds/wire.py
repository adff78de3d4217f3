"""Protobuf framing of discovery responses, joined from bytes that all proxies of a group share.

Joining length-prefixed fields in field order gives the bytes protobuf itself would write, at the price of a copy.
"""

from collections.abc import Iterable

import msgspec
from envoy.config.cluster.v3 import cluster_pb2
from google.protobuf.message import DecodeError

from meshgw.emit.resource import CLUSTER, Resource


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A resource ready for the wire: the parts of its body, not copied, with what delta puts before and behind it.

    From `any_at` on, `head` begins the `Any` in field 2, which both kinds of response number alike.
    """

    version: str
    head: bytes
    any_at: int
    body: tuple[bytes, ...]
    tail: bytes
    endpoints: str | None = None  # the EDS resource a cluster warms on

    def __repr__(self) -> str:
        return f"Entry({self.version} {sum(map(len, self.body))} bytes)"


def varint(value: int) -> bytes:
    """The base-128 encoding of an unsigned integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def prefix(number: int, length: int) -> bytes:
    """The tag and length before a length-delimited field."""
    return varint(number << 3 | 2) + varint(length)


def field(number: int, value: bytes) -> bytes:
    """A singular bytes, string or message field; empty values are left out as proto3 does."""
    return prefix(number, len(value)) + value if value else b""


def encode(resource: Resource) -> Entry:
    """The resource framed once."""
    type_field = field(1, resource.type_url.encode())
    length = resource.size
    body_prefix = prefix(2, length) if length else b""
    size = len(type_field) + len(body_prefix) + length
    any_head = prefix(2, size) + type_field + body_prefix
    version, name = field(1, resource.version.encode()), field(3, resource.name.encode())
    delta_head = prefix(2, len(version) + len(any_head) + length + len(name)) + version
    return Entry(
        version=resource.version,
        head=delta_head + any_head,
        any_at=len(delta_head),
        body=resource.parts,
        tail=name,
        endpoints=_endpoints_of(resource) if resource.type_url == CLUSTER else None,
    )


def _endpoints_of(resource: Resource) -> str | None:
    """The name of the EDS resource a cluster asks for; bytes that are no cluster ask for nothing."""
    try:
        cluster = cluster_pb2.Cluster.FromString(resource.body)
    except DecodeError:
        return None
    if cluster.type != cluster_pb2.Cluster.EDS:
        return None
    return str(cluster.eds_cluster_config.service_name or cluster.name)


def delta_response(
    *, type_url: str, version: str, nonce: str, entries: Iterable[Entry], removed: Iterable[str] = ()
) -> bytes:
    """A serialized `DeltaDiscoveryResponse`."""
    parts = [field(1, version.encode())]
    for entry in entries:
        parts += (entry.head, *entry.body, entry.tail)
    parts += (field(4, type_url.encode()), field(5, nonce.encode()))
    for name in removed:
        encoded = name.encode()
        parts += (prefix(6, len(encoded)), encoded)
    return b"".join(parts)


def sotw_response(*, type_url: str, version: str, nonce: str, entries: Iterable[Entry]) -> bytes:
    """A serialized `DiscoveryResponse`."""
    parts = [field(1, version.encode())]
    for entry in entries:
        parts += (entry.head[entry.any_at :], *entry.body)
    parts += (field(4, type_url.encode()), field(5, nonce.encode()))
    return b"".join(parts)
