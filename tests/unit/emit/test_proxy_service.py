"""The Service of a Gateway."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.emit.deployed import deploy, deploy_with, gateway, parameters, waypoint

ADDRESS = "  addresses: [{value: 192.0.2.7}]"


def service(*texts: str) -> Any:
    return deploy(*texts).objects()["Service"]["spec"]


@pytest.mark.parametrize(
    ("class_name", "kind"),
    [("meshgw", "LoadBalancer"), ("meshgw-egress", "ClusterIP"), ("meshgw-waypoint", "ClusterIP")],
)
def test_only_an_ingress_is_reached_from_outside(class_name: str, kind: str) -> None:
    assert service(gateway(class_name=class_name))["type"] == kind


def test_it_selects_the_pods_of_its_gateway() -> None:
    world = deploy(gateway())
    selector = world.objects()["Service"]["spec"]["selector"]
    assert selector.items() <= world.pod()["metadata"]["labels"].items()
    assert selector == world.objects()["Deployment"]["spec"]["selector"]["matchLabels"]


def test_a_waypoint_has_the_ports_that_istio_looks_for() -> None:
    ports = {port["name"]: (port["port"], port["appProtocol"]) for port in service(waypoint())["ports"]}
    assert ports == {"status-port": (15021, "tcp"), "mesh": (15008, "all")}


def test_a_port_keeps_its_name_whatever_it_speaks() -> None:
    (plain,) = service(gateway())["ports"]
    (bare,) = service(gateway().replace("protocol: HTTP", "protocol: TCP"))["ports"]
    assert plain["name"] == bare["name"] == "tcp-80"
    assert (plain["appProtocol"], bare["appProtocol"]) == ("http", "tcp")


@pytest.mark.parametrize(
    ("kind", "field"), [("LoadBalancer", "loadBalancerIP"), ("ClusterIP", "clusterIP"), ("NodePort", None)]
)
def test_an_address_is_asked_for_as_the_type_allows(kind: str, field: str | None) -> None:
    extra = f"{ADDRESS}\n  infrastructure: {{parametersRef: {{group: meshgw.dev, kind: GatewayParameters, name: own}}}}"
    found = service(gateway(extra=extra), parameters(f"{{service: {{type: {kind}}}}}"))
    asked = {name for name, value in found.items() if value == "192.0.2.7"}
    assert asked == ({field} if field else set())


def test_fields_that_do_not_fit_the_type_are_left_out() -> None:
    spec = (
        "{service: {loadBalancerClass: a.b/c, externalTrafficPolicy: Local, nodePorts: [{port: 80, nodePort: 30080}]}}"
    )
    balanced = deploy_with(spec).objects()["Service"]["spec"]
    assert (balanced["loadBalancerClass"], balanced["externalTrafficPolicy"]) == ("a.b/c", "Local")
    assert balanced["ports"][0]["nodePort"] == 30080
    inside = service(waypoint(own=True), parameters(spec))
    assert {"loadBalancerClass", "externalTrafficPolicy"} & inside.keys() == set()
    assert all("nodePort" not in port for port in inside["ports"])
