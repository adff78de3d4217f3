"""Reading what istiod tells; the bytes are those that any protobuf encoder makes of workload.proto."""

from __future__ import annotations

import socket

import pytest
from google.protobuf.message import DecodeError

from meshgw.protos import field
from tests.mesh.workload import Service, Waypoint, Workload, read


def number(tag: int, value: int) -> bytes:
    """A varint field; both numbers are small enough for one or two bytes each."""
    return b"".join(_varint(part) for part in (tag << 3, value))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def port(service: int, target: int) -> bytes:
    return number(1, service) + number(2, target)


BY_NAME = field(1, field(1, b"shop") + field(2, b"waypoint.shop.svc.cluster.local")) + number(3, 15008)
BY_ADDRESS = field(2, field(1, b"net") + field(2, socket.inet_aton("10.0.0.9"))) + number(3, 15008)


def test_a_service_is_read() -> None:
    encoded = b"".join(
        (
            field(1, b"cart"),
            field(2, b"shop"),
            field(3, b"cart.shop.svc.cluster.local"),
            field(4, field(2, socket.inet_aton("10.0.0.1"))),
            field(4, field(2, socket.inet_pton(socket.AF_INET6, "fd00::1"))),
            field(5, port(80, 8080)),
            field(5, port(443, 0)),
            field(6, b"spiffe://cluster.local/ns/a/sa/b"),
            field(7, BY_NAME),
            field(99, b"of a later version"),
        )
    )
    found = read(field(2, encoded))
    assert found == Service(
        name="cart",
        namespace="shop",
        hostname="cart.shop.svc.cluster.local",
        addresses=("10.0.0.1", "fd00::1"),
        ports={80: 8080, 443: 0},
        names=("spiffe://cluster.local/ns/a/sa/b",),
        waypoint=Waypoint("shop/waypoint.shop.svc.cluster.local", "", 15008),
    )
    assert found.key == "shop/cart.shop.svc.cluster.local"


def test_a_workload_is_read() -> None:
    ports = field(1, b"shop/cart.shop.svc.cluster.local") + field(2, field(1, port(80, 8080)))
    encoded = b"".join(
        (
            field(1, b"cart-1"),
            field(2, b"shop"),
            field(3, socket.inet_aton("10.1.0.1")),
            number(5, 1),
            field(6, b"td"),
            field(7, b"cart"),
            field(8, BY_ADDRESS),
            number(17, 1),
            field(20, b"Kubernetes//Pod/shop/cart-1"),
            field(22, ports),
        )
    )
    found = read(field(1, encoded))
    assert isinstance(found, Workload)
    assert (found.uid, found.addresses) == ("Kubernetes//Pod/shop/cart-1", ("10.1.0.1",))
    assert found.identity == "spiffe://td/ns/shop/sa/cart"
    assert (found.hbone, found.healthy) == (True, False)
    assert found.services == {"shop/cart.shop.svc.cluster.local": {80: 8080}}
    assert found.waypoint == Waypoint("", "10.0.0.9", 15008)


def test_what_is_left_out_is_what_protobuf_leaves_out() -> None:
    found = read(field(1, field(1, b"cart-1") + field(2, b"shop")))
    assert isinstance(found, Workload)
    assert found.identity == "spiffe://cluster.local/ns/shop/sa/default"
    assert (found.hbone, found.healthy, found.waypoint) == (False, True, None)


def test_what_is_neither_is_an_error() -> None:
    with pytest.raises(ValueError, match="neither"):
        read(b"")
    with pytest.raises(DecodeError):
        read(b"\xff")
