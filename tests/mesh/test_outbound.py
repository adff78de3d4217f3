"""Where connections go, by what istiod tells."""

from __future__ import annotations

from typing import Any

from meshgw.emit.dump import dump
from tests.mesh.document import NOBODY
from tests.mesh.outbound import Mesh, Way, outbound, outbound_ways
from tests.mesh.workload import Service, Waypoint, Workload

BY_NAME = Waypoint("shop/waypoint.shop.svc", "", 15008)


def service(name: str, address: str, *, waypoint: Waypoint | None = None, port: int = 80) -> Service:
    addresses = (address,) if address else ()
    return Service(name, "shop", f"{name}.shop.svc", addresses, {port: 8080}, (), waypoint)


def workload(
    name: str, address: str, *services: str, waypoint: Waypoint | None = None, port: int = 80, **state: Any
) -> Workload:
    found = {f"shop/{service}.shop.svc": {port: 8080} for service in services}
    options = {"hbone": True, "healthy": True, **state}
    return Workload(
        f"Kubernetes//Pod/shop/{name}",
        name,
        "shop",
        (address,),
        "td",
        name,
        services=found,
        waypoint=waypoint,
        **options,
    )


MESH = Mesh(
    [
        service("cart", "10.0.0.1", waypoint=BY_NAME),
        service("plain", "10.0.0.2"),
        service("headless", ""),
        service("waypoint", "10.0.0.3", port=15008),
        workload("cart-1", "10.1.0.1", "cart"),
        workload("plain-1", "10.1.0.2", "plain"),
        workload("plain-2", "10.1.0.3", "plain", hbone=False),
        workload("plain-3", "10.1.0.4", "plain", healthy=False),
        workload("way-1", "10.1.0.5", "waypoint", hbone=False, port=15008),
        workload("bound-1", "10.1.0.6", waypoint=BY_NAME),
    ]
)


def identity(name: str) -> str:
    return f"spiffe://td/ns/shop/sa/{name}"


def test_a_service_goes_through_its_waypoint_and_others_do_not() -> None:
    ways = outbound_ways(MESH)
    through = Way("waypoint/shop/waypoint.shop.svc:15008", tunnel=True)
    assert ways["10.0.0.1"] == {0: through}
    assert ways["10.0.0.2"] == {80: Way("service/shop/plain.shop.svc/80", tunnel=False)}
    assert ways["10.1.0.6"] == {0: through}


def test_a_workload_is_reached_by_hbone_if_it_speaks_it() -> None:
    ways = outbound_ways(MESH)
    assert ways["10.1.0.1"] == {0: Way(identity("cart-1"), tunnel=True)}
    assert "10.1.0.3" not in ways
    assert ways["127.0.0.1"] == {0: Way(NOBODY, tunnel=False)}


def test_a_virtual_address_is_not_taken_for_a_pod() -> None:
    impostor = workload("impostor", "10.0.0.1")
    assert outbound_ways(Mesh([*MESH.services, impostor]))["10.0.0.1"] == outbound_ways(MESH)["10.0.0.1"]


def documents() -> dict[str, Any]:
    return {f"{resource.type_url.rpartition('.')[2]} {resource.name}": dump(resource) for resource in outbound(MESH)}


def test_endpoints_are_the_healthy_ones_each_by_its_own_way() -> None:
    found = str(documents()["ClusterLoadAssignment service/shop/plain.shop.svc/80"])
    assert "tunnels" in found
    assert "10.1.0.2:8080" in found
    assert identity("plain-1") in found
    assert "'10.1.0.3'" in found
    assert "10.1.0.4" not in found


def test_a_waypoint_must_be_one_of_its_own_pods() -> None:
    found = documents()
    assert "10.1.0.5" in str(found["ClusterLoadAssignment waypoint/shop/waypoint.shop.svc:15008"])
    names = str(found["Cluster waypoint/shop/waypoint.shop.svc:15008"])
    assert identity("way-1") in names
    assert identity("cart-1") not in names


def test_a_waypoint_without_pods_is_nobody_and_no_way_round() -> None:
    mesh = Mesh([service("cart", "10.0.0.1", waypoint=BY_NAME), workload("cart-1", "10.1.0.1", "cart")])
    assert outbound_ways(mesh)["10.0.0.1"] == outbound_ways(MESH)["10.0.0.1"]
    assert mesh.places(BY_NAME) == []
    assert [resource.name for resource in outbound(mesh) if resource.name.startswith("service/")] == []


def test_a_waypoint_by_address_is_its_service() -> None:
    assert MESH.places(Waypoint("", "10.0.0.3", 15008)) == MESH.places(BY_NAME)
    assert [place[1:] for place in MESH.places(Waypoint("", "10.1.0.5", 15008))] == [("10.1.0.5", 15008)]
    assert MESH.places(Waypoint("", "10.9.9.9", 15008)) == []
