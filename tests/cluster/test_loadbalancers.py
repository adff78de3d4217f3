from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.cluster.loadbalancers import Addresses, status_for


def _service(name: str, *, held: str = "", kind: str = "LoadBalancer", **spec: str) -> Mapping[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": name},
        "spec": {"type": kind, **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": held}]} if held else {}},
    }


def _given(service: Mapping[str, Any], addresses: Addresses) -> str:
    status = status_for(service, addresses)
    assert status is not None
    ((address,),) = [[entry["ip"] for entry in status["ingress"]]]
    return str(address)


def test_services_get_addresses_of_the_range_and_no_two_the_same() -> None:
    addresses = Addresses("10.0.0.0/29")
    given = [_given(_service(f"s{number}"), addresses) for number in range(6)]
    assert given == [f"10.0.0.{number}" for number in range(1, 7)]
    assert status_for(_service("one-too-many"), addresses) is None


def test_address_that_a_service_has_is_kept() -> None:
    addresses = Addresses("10.0.0.0/29")
    assert status_for(_service("old", held="10.0.0.1"), addresses) is None
    assert _given(_service("new"), addresses) == "10.0.0.2"


def test_wanted_address_is_given_if_it_can_be() -> None:
    addresses = Addresses("10.0.0.0/29")
    assert _given(_service("first", loadBalancerIP="10.0.0.5"), addresses) == "10.0.0.5"
    assert _given(_service("second", loadBalancerIP="10.0.0.5"), addresses) == "10.0.0.1"
    assert _given(_service("third", loadBalancerIP="192.0.2.1"), addresses) == "10.0.0.2"


def test_address_is_taken_back_when_the_type_changes() -> None:
    addresses = Addresses("10.0.0.0/29")
    assert _given(_service("s"), addresses) == "10.0.0.1"
    assert status_for(_service("s", held="10.0.0.1", kind="ClusterIP"), addresses) == {}
    assert _given(_service("other"), addresses) == "10.0.0.1"


def test_service_of_another_class_is_left_alone() -> None:
    assert status_for(_service("s", loadBalancerClass="example.test/other"), Addresses("10.0.0.0/29")) is None
