from __future__ import annotations

from meshgw.emit.endpoint import build_endpoints
from meshgw.emit.resource import CLUSTER, ENDPOINTS
from meshgw.ir.backend import Endpoint, UpstreamProtocol
from meshgw.protos import ClusterLoadAssignment, HealthStatus, SocketAddress
from meshgw.resolve import tables as t
from tests.unit.emit.world import World, target

ID = "spiffe://cluster.local/ns/default/sa/app"


def test_endpoints_gather_by_zone_in_one_order() -> None:
    rows = [
        Endpoint(address="10.0.0.3", port=80, region="r", zone="b"),
        Endpoint(address="10.0.0.2", port=80, region="r", zone="a"),
        Endpoint(address="10.0.0.1", port=80, region="r", zone="b", healthy=False),
        Endpoint(address="10.0.0.9", port=80),
    ]
    built = build_endpoints("c", rows)
    assert built == build_endpoints("c", [*reversed(rows), rows[0]])
    assert [(group.locality.zone, len(group.lb_endpoints)) for group in built.endpoints] == [
        ("", 1),
        ("a", 1),
        ("b", 2),
    ]
    assert not built.endpoints[0].HasField("locality")
    assert [item.health_status for item in built.endpoints[2].lb_endpoints] == [
        HealthStatus.UNHEALTHY,
        HealthStatus.HEALTHY,
    ]


def test_weights_and_transport_are_the_endpoints_own() -> None:
    (group,) = build_endpoints("c", [Endpoint(address="10.0.0.1", port=53, weight=7)], udp=True).endpoints
    (item,) = group.lb_endpoints
    assert item.load_balancing_weight.value == 7
    assert item.endpoint.address.socket_address.protocol == SocketAddress.UDP


def test_tunnels_name_their_end_and_who_must_be_there() -> None:
    rows = [Endpoint(address=address, port=80, hbone=True, identity=ID) for address in ("10.0.0.1", "fd00::1")]
    found = {}
    for item in build_endpoints("c", rows).endpoints[0].lb_endpoints:
        address = item.endpoint.address.envoy_internal_address
        assert address.server_listener_name == "connect_originate"
        metadata = item.metadata.filter_metadata
        assert metadata["meshgw"]["san"] == ID
        assert metadata["envoy.transport_socket_match"]["tunnel"] == "http"
        found[address.endpoint_id] = metadata["envoy.filters.listener.original_dst"]["local"]
    assert found == {"10.0.0.1:80": "10.0.0.1:80", "[fd00::1]:80": "[fd00::1]:80"}


def test_no_tunnel_goes_to_an_endpoint_without_an_identity() -> None:
    assert len(build_endpoints("c", [Endpoint(address="10.0.0.1", port=80, hbone=True)]).endpoints) == 0


def test_an_endpoint_change_touches_nothing_else() -> None:
    world = World()
    key = world.reach(target(), ("10.0.0.1", 80), protocol=UpstreamProtocol.UDP)
    world.commit()
    world.put(t.ENDPOINTS, key, t_endpoints(world, key))
    delta = world.commit()
    assert {name for name, count in delta.recomputed.items() if count} == {"endpoint-resources", "resources"}
    body = world.resource(ENDPOINTS, "service/default/app/80").body
    assert len(ClusterLoadAssignment.FromString(body).endpoints) == 0


def t_endpoints(world: World, key: object) -> object:
    row = world.graph.rows(t.ENDPOINTS)[key]  # type: ignore[index]
    return type(row)(key=row.key)


def test_clusters_that_are_refused_have_no_eds() -> None:
    world = World()
    world.reach(target(), ("10.0.0.1", 80), refused="bad policy")
    world.commit()
    assert [key.type_url for key in world.resources] == [CLUSTER]
