"""Addresses of one instance: held, refused, tried again and released."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from meshgw.api.meta import Key
from meshgw.emit.resource import LISTENER
from meshgw.ir.gateway import Binding
from meshgw.ir.keys import ResourceKey
from meshgw.standalone.claims import Claims
from meshgw.standalone.lock import InUseError
from tests.rig.addresses import free_port, next_loopback

GATEWAY = Key("default", "gw")


@pytest.fixture
def claims() -> Iterator[Claims]:
    held = Claims()
    yield held
    held.release()


@pytest.fixture
def other() -> Iterator[Claims]:
    held = Claims()
    yield held
    held.release()


def test_a_taken_address_keeps_its_listener_back_until_it_is_free(claims: Claims, other: Claims) -> None:
    host, port = next_loopback(), free_port()
    wanted = {GATEWAY: (Binding(bind=host), frozenset({("tcp", port)}))}
    other.claim(Binding(bind=host), [("tcp", port)])
    claims.follow(wanted)
    assert claims.held() == {ResourceKey(GATEWAY, LISTENER, f"tcp/{port}")}
    (finding,) = claims.findings()
    assert (finding.object.name, finding.code) == ("gw", "MG6003")
    assert str(port) in finding.message
    other.release()
    claims.follow(wanted)
    assert (claims.held(), claims.findings()) == (frozenset(), [])


def test_what_is_no_longer_wanted_is_released(claims: Claims, other: Claims) -> None:
    host, port = next_loopback(), free_port()
    claims.follow({GATEWAY: (Binding(bind=host), frozenset({("tcp", port)}))})
    with pytest.raises(InUseError):
        other.claim(Binding(bind=host), [("tcp", port)])
    claims.follow({})
    other.claim(Binding(bind=host), [("tcp", port)])


def test_somebody_elses_socket_counts_unless_it_may_be_our_own_proxys(claims: Claims) -> None:
    host = next_loopback()
    with socket.create_server((host, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InUseError):
            claims.claim(Binding(bind=host), [("tcp", port)])
        claims.claim(Binding(bind=host), [("tcp", port)], probe=False)


def test_ports_are_claimed_where_they_are_bound(claims: Claims, other: Claims) -> None:
    host = next_loopback()
    claims.claim(Binding(bind=host, port_offset=20_000), [("tcp", 80)])
    other.claim(Binding(bind=host, port_offset=30_000), [("tcp", 80)])
    with pytest.raises(InUseError):
        other.claim(Binding(bind=host), [("tcp", 20_080)])
