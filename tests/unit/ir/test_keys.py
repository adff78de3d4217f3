"""Names that Envoy sees come from keys and hold no position of a rule."""

from __future__ import annotations

import pytest

from meshgw.api.meta import Key
from meshgw.ir.keys import BackendTarget, PortKey, RouteKey


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (BackendTarget("Service", "ns", "app", 80), "service/ns/app/80"),
        (BackendTarget("Service", "ns", "app", 80, "grpc"), "service/ns/app/80/grpc"),
        (BackendTarget("UDPRoute", "ns", "dns", 0, "udp"), "udproute/ns/dns/0/udp"),
    ],
)
def test_a_cluster_is_named_for_what_it_points_at(target: BackendTarget, name: str) -> None:
    assert target.cluster == name


def test_a_listener_is_named_for_its_port() -> None:
    assert [PortKey(Key("ns", "gw"), transport, 53).resource for transport in ("TCP", "UDP")] == ["tcp/53", "udp/53"]


def test_a_route_has_its_key_among_its_kind() -> None:
    assert RouteKey("HTTPRoute", "ns", "a").key == Key("ns", "a")
