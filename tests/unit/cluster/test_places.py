"""Where Gateways are reached: at their Services, as far as these have addresses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshgw.api.meta import Key, ObjectRef
from meshgw.cluster.places import ServicePlacing
from meshgw.cluster.workloads import Shortfall
from meshgw.control import Control
from meshgw.ir.gateway import Binding, Settings
from meshgw.ir.status import GatewayStatus
from meshgw.kube.seen import Observed, Seen
from meshgw.observe.metrics import Metrics
from meshgw.resolve import tables as t
from tests.unit.cluster.world import batch

GATEWAY = Key("edge", "gw")
SERVICE = Key("edge", "gw-meshgw")
WAYPOINT = Key("edge", "gw-meshgw-waypoint")
HOSTNAME = "gw-meshgw-waypoint.edge.svc.cluster.local"


def gateway(class_: str = "meshgw", **spec: Any) -> dict[str, Any]:
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    if class_ == "meshgw-waypoint":
        listener = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "gw", "namespace": "edge", "uid": "g"},
        "spec": {"gatewayClassName": class_, "listeners": [listener], **spec},
    }


def gateway_class(name: str = "meshgw") -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": "meshgw.dev/gateway-controller"},
    }


def service(key: Key = SERVICE, *, ingress: list[dict[str, str]] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.9", "ports": [{"port": 80}], **spec},
        "status": {"loadBalancer": {"ingress": ingress or []}},
    }


def node(name: str, *, ready: bool = True, **addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "addresses": [{"type": type_, "address": address} for type_, address in addresses.items()],
        },
    }


class World:
    """A pipeline whose Gateways are placed at Services."""

    def __init__(self) -> None:
        self.missing: Shortfall | None = None
        self.placing = ServicePlacing(lambda _gateway: self.missing)
        self.control = Control(
            settings=Settings(deploys=True, mesh=True),
            placing=self.placing,
            publish=lambda _gateway, _changes: None,
            metrics=Metrics(),
        )

    def put(self, *documents: dict[str, Any]) -> None:
        self.control.commit(
            batch("---\n".join(msgspec.json.encode(document).decode() + "\n" for document in documents))
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.control.binding(GATEWAY).addresses

    @property
    def programmed(self) -> tuple[bool, str, str]:
        status = self.control.graph.get(t.STATUSES, ObjectRef("Gateway", *GATEWAY))
        assert isinstance(status, GatewayStatus)
        found = next(c for c in status.conditions if c.type == "Programmed")
        return found.status, found.reason, found.message


@pytest.fixture
def world() -> World:
    made = World()
    made.put(gateway_class(), gateway_class("meshgw-waypoint"))
    return made


def test_a_load_balancer_gives_the_address_when_it_has_one(world: World) -> None:
    world.put(gateway())
    assert (world.addresses, world.programmed[:2]) == ((), (False, "AddressNotAssigned"))
    world.put(service())
    assert (world.addresses, world.programmed[:2]) == ((), (False, "AddressNotAssigned"))
    world.put(service(ingress=[{"ip": "192.0.2.7"}, {"hostname": "lb.test"}], externalIPs=["192.0.2.1"]))
    assert world.addresses == ("192.0.2.1", "192.0.2.7", "lb.test")
    assert world.programmed[:2] == (True, "Programmed")
    status = world.control.graph.get(t.STATUSES, ObjectRef("Gateway", *GATEWAY))
    assert isinstance(status, GatewayStatus)
    assert [address.type for address in status.addresses] == ["IPAddress", "IPAddress", "Hostname"]
    world.put(service())
    assert world.addresses == ()


def test_a_waypoint_has_its_name_and_address_in_the_cluster_and_keeps_them(world: World) -> None:
    world.put(gateway("meshgw-waypoint"), service(WAYPOINT, type="ClusterIP"))
    assert world.addresses == (HOSTNAME, "10.0.0.9")
    world.control.commit({t.SERVICES: {WAYPOINT: None}})
    assert world.addresses == (HOSTNAME, "10.0.0.9")
    world.put(service(WAYPOINT, type="ClusterIP", clusterIP="10.0.0.10"))
    assert world.addresses == (HOSTNAME, "10.0.0.10")
    world.put(
        gateway("meshgw-waypoint", infrastructure={"parametersRef": {"group": "", "kind": "Secret", "name": "x"}})
    )
    assert world.addresses == (HOSTNAME, "10.0.0.10")
    world.control.commit({t.GATEWAYS: {GATEWAY: None}})
    assert world.control.graph.get(t.BINDINGS, GATEWAY) is None


def test_the_addresses_of_a_waypoint_outlive_the_controller_that_published_them(world: World) -> None:
    status = msgspec.json.encode({"addresses": [{"type": "IPAddress", "value": "10.0.0.3"}]})
    world.placing.see([Seen(GATEWAY, None, Observed(uid="g", resource_version="1", generation=1, status=status))])
    world.put(gateway("meshgw-waypoint"))
    assert world.addresses == ("10.0.0.3",)


@pytest.mark.parametrize("status", [b"", b"null", b"{]", b'{"addresses": 3}', b'{"addresses": [{}]}'])
def test_a_status_without_addresses_publishes_none(world: World, status: bytes) -> None:
    world.placing.see([Seen(GATEWAY, None, Observed(uid="g", resource_version="1", generation=1, status=status))])
    world.put(gateway("meshgw-waypoint"))
    assert world.addresses == ()


def test_node_ports_are_reached_at_ready_nodes_from_outside_if_they_have_such_addresses(world: World) -> None:
    world.put(gateway(), service(type="NodePort"))
    world.put(
        node("a", InternalIP="10.1.0.12"),
        node("b", InternalIP="10.1.0.3"),
        node("c", ready=False, InternalIP="10.1.0.1"),
    )
    assert world.addresses == ("10.1.0.3", "10.1.0.12")
    world.put(node("a", InternalIP="10.1.0.12", ExternalIP="192.0.2.4"))
    assert world.addresses == ("192.0.2.4",)


def test_other_services_have_their_own_addresses(world: World) -> None:
    world.put(gateway(), service(type="ClusterIP", clusterIPs=["10.0.0.9", "fd00::9"]))
    assert world.addresses == ("10.0.0.9", "fd00::9")
    world.put(service(type="ClusterIP", clusterIP="None"))
    assert world.addresses == ()


def test_requested_addresses_are_those_and_what_is_not_given_is_named(world: World) -> None:
    wanted = [{"type": "IPAddress", "value": value} for value in ("192.0.2.7", "192.0.2.8")]
    world.put(gateway(addresses=wanted), service())
    assert world.control.binding(GATEWAY).unusable == ()
    world.put(service(ingress=[{"ip": "192.0.2.7"}, {"ip": "192.0.2.9"}]))
    binding = world.control.binding(GATEWAY)
    assert (binding.addresses, binding.unusable) == (("192.0.2.7",), ("192.0.2.8",))
    assert world.programmed[:2] == (False, "AddressNotUsable")


@pytest.mark.parametrize(
    ("missing", "addressed", "expected"),
    [
        (Shortfall("Pending", "no pod"), False, (False, "AddressNotAssigned", "no address yet")),
        (Shortfall("Pending", "no pod"), True, (False, "Pending", "no pod")),
        (Shortfall("NoResources", "quota"), False, (False, "NoResources", "quota")),
        (Shortfall("NoResources", "quota"), True, (False, "NoResources", "quota")),
    ],
)
def test_a_proxy_that_does_not_run_programs_nothing(
    world: World, missing: Shortfall, addressed: object, expected: tuple[bool, str, str]
) -> None:
    world.missing = missing
    world.put(gateway(), service(ingress=[{"ip": "192.0.2.7"}] if addressed else []))
    assert world.programmed == expected
    world.missing = None
    world.control.commit({}, moved=True)
    assert world.programmed[0] is bool(addressed)


@pytest.mark.parametrize(("dual_stack", "bind"), [(False, "0.0.0.0"), (True, "::")])
def test_proxies_listen_in_the_families_that_pods_have(world: World, bind: str, *, dual_stack: bool) -> None:
    world.control.commit({t.SETTINGS: {t.SINGLE: Settings(deploys=True, dual_stack=dual_stack)}})
    world.put(gateway(), service(ingress=[{"ip": "192.0.2.7"}]))
    assert world.control.binding(GATEWAY).bind == bind


def test_only_what_moves_is_bound_anew(world: World) -> None:
    world.put(gateway(), service(ingress=[{"ip": "192.0.2.7"}]))
    assert world.placing.place(world.control.graph) == {}
    world.missing = Shortfall("Pending", "no pod")
    expected = Binding(addresses=("192.0.2.7",), pending="no pod", pending_reason="Pending")
    assert world.placing.place(world.control.graph) == {GATEWAY: expected}
