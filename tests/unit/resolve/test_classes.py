from __future__ import annotations

import pytest

from meshgw.api.meta import Key
from meshgw.ir.gateway import Role, Settings, WaypointFor
from meshgw.resolve import tables as t
from tests.unit.resolve.graph import change, codes, gateway, resolve, shown

CLASS = """
kind: GatewayClass
metadata: {{name: {name}, generation: 4, labels: {labels}}}
spec: {{controllerName: {controller}}}
"""
GATEWAY = """
---
kind: Gateway
metadata: {{name: gw, generation: 3}}
spec:
  gatewayClassName: {name}
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""
OURS = "meshgw.dev/gateway-controller"


def declared(name: str, labels: str = "{}", controller: str = OURS) -> str:
    return CLASS.format(name=name, labels=labels, controller=controller)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("meshgw", Role.INGRESS),
        ("meshgw-egress", Role.EGRESS),
        ("meshgw-waypoint", Role.WAYPOINT),
        ("another", Role.INGRESS),
    ],
)
def test_a_class_gives_the_role_of_its_name(name: str, role: Role) -> None:
    row = resolve(declared(name)).get(t.CLASSES, name)
    assert row is not None
    assert row.role is role
    assert shown(row.conditions) == {"Accepted": "True/Accepted"}
    assert row.conditions[0].observed_generation == 4


def test_the_role_label_beats_the_name() -> None:
    row = resolve(declared("meshgw", "{meshgw.dev/role: waypoint, istio.io/waypoint-for: all}")).get(
        t.CLASSES, "meshgw"
    )
    assert row is not None
    assert (row.role, row.waypoint_for) == (Role.WAYPOINT, WaypointFor.ALL)


def test_an_unknown_role_is_reported() -> None:
    row = resolve(declared("odd", "{meshgw.dev/role: sidecar}")).get(t.CLASSES, "odd")
    assert row is not None
    assert row.role is None
    assert shown(row.conditions) == {"Accepted": "False/Unsupported"}
    assert codes(row.findings) == ["MG1009"]


def test_an_unknown_traffic_type_is_reported() -> None:
    row = resolve(declared("odd", "{istio.io/waypoint-for: everything}")).get(t.CLASSES, "odd")
    assert row is not None
    assert shown(row.conditions) == {"Accepted": "False/Unsupported"}


def test_parameters_are_refused() -> None:
    text = declared("odd").rstrip().removesuffix("}") + ", parametersRef: {group: x.io, kind: Thing, name: a}}"
    graph = resolve(text + GATEWAY.format(name="odd"))
    row = graph.get(t.CLASSES, "odd")
    assert row is not None
    assert shown(row.conditions) == {"Accepted": "False/InvalidParameters"}
    assert shown(gateway(graph).conditions)["Accepted"] == "False/Invalid"


def test_a_class_of_another_controller_is_not_ours_even_under_a_well_known_name() -> None:
    graph = resolve(declared("meshgw", controller="example.com/other") + GATEWAY.format(name="meshgw"))
    assert not graph.rows(t.CLASSES)
    assert not graph.rows(t.OUR_GATEWAYS)


def test_the_controller_name_is_a_setting() -> None:
    settings = {t.SETTINGS: {t.SINGLE: Settings(controller_name="example.com/mine")}}
    graph = resolve(declared("meshgw") + "---" + declared("b", controller="example.com/mine"), facts=settings)
    assert set(graph.rows(t.CLASSES)) == {"b"}


def test_well_known_classes_need_no_declaration_and_others_do() -> None:
    graph = resolve(GATEWAY.format(name="meshgw-egress"))
    assert gateway(graph).role is Role.EGRESS
    assert not resolve(GATEWAY.format(name="unheard-of")).rows(t.OUR_GATEWAYS)


def test_a_gateway_becomes_ours_when_its_class_is_declared() -> None:
    graph = resolve(GATEWAY.format(name="late"))
    assert graph.get(t.OUR_GATEWAYS, Key("default", "gw")) is None
    change(graph, declared("late"))
    assert gateway(graph).class_name == "late"
