"""The decision for each Gateway: managed, held as it is, or left to the user."""

from __future__ import annotations

import pytest

from meshgw.api.meta import Key, ObjectRef
from meshgw.emit.tables import RESOURCES
from meshgw.ir.gateway import Binding
from meshgw.ir.proxy import Deploying, ProxyPort
from meshgw.ir.status import GatewayStatus
from meshgw.resolve import tables as t
from tests.unit.emit.deployed import Deployed, deploy, deploy_with, gateway, gateway_class, parameters, waypoint

KEY = Key("default", "gw")
BOUND = Binding(addresses=("192.0.2.1",))


def status(world: Deployed, name: str = "gw") -> GatewayStatus:
    found = world.graph.rows(t.STATUSES)[ObjectRef("Gateway", "default", name)]
    assert isinstance(found, GatewayStatus)
    return found


def reasons(found: GatewayStatus) -> dict[str, str]:
    return {condition.type: condition.reason for condition in found.conditions}


def test_an_accepted_gateway_is_managed() -> None:
    plan = deploy(gateway()).plan()
    assert (plan.deploying, plan.name, plan.uid, plan.held_by) == (Deploying.MANAGED, "gw-meshgw", "uid-of-gw", "")


def test_one_may_be_left_to_the_user() -> None:
    world = deploy_with("{selfManaged: {}}")
    assert world.plan().deploying is Deploying.SELF_MANAGED
    assert world.objects() == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (gateway(labels="{meshgw.dev/role: odd}"), "the Gateway is not accepted"),
        (gateway(own=True), "the parameters cannot be used: what is deployed stays as it is"),
        (gateway().replace("protocol: HTTP", "protocol: x.io/odd"), "no listener is accepted"),
    ],
)
def test_what_cannot_be_deployed_is_held_and_says_why(text: str, why: str) -> None:
    world = deploy(text)
    assert (world.plan().deploying, world.plan().held_by) == (Deploying.HELD, why)
    assert world.objects() == {}


@pytest.mark.parametrize("text", [gateway(own=True), gateway(labels="{meshgw.dev/role: odd}")])
def test_a_held_gateway_keeps_its_addresses(text: str) -> None:
    world = deploy(text)
    world._commit({t.BINDINGS: {KEY: BOUND}})
    assert [address.value for address in status(world).addresses] == ["192.0.2.1"]
    assert reasons(status(world))["Programmed"] == "Invalid"


def test_a_held_gateway_serves_on() -> None:
    world = deploy(gateway(own=True), parameters("{}"))
    before = dict(world.graph.rows(t.LISTENERS))
    world.remove(t.GATEWAY_PARAMETERS, "own")
    assert dict(world.graph.rows(t.LISTENERS)) == before
    assert all(row.serving for row in before.values())


def test_gateways_serve_on_as_before_while_their_class_does_not_exist() -> None:
    declared = gateway_class(labels="{meshgw.dev/role: egress}").split(", parametersRef")[0] + "}\n---\n"
    world = deploy(declared, gateway(class_name="mine"))
    before = dict(world.graph.rows(RESOURCES))
    world.remember("mine")
    world.remove(t.GATEWAY_CLASSES, "mine", "")
    assert before
    assert dict(world.graph.rows(RESOURCES)) == before
    assert world.plan().deploying is Deploying.HELD, "its objects stay as they are"
    assert reasons(status(world))["Accepted"] == "Invalid"

    world.put(gateway("new", class_name="mine"))
    assert world.plan("new").deploying is Deploying.HELD
    assert world.objects("new") == {}, "nothing is made for a class that does not exist"

    world.put(declared.replace("meshgw.dev/gateway-controller", "example.com/other"))
    assert not world.graph.rows(t.OUR_GATEWAYS), "it is another's now"


def test_a_class_that_was_refused_is_not_accepted_by_its_deletion() -> None:
    declared = gateway_class(labels="{meshgw.dev/role: nonsense}").split(", parametersRef")[0] + "}\n---\n"
    world = deploy(declared, gateway(class_name="mine"))
    world.remember("mine")
    world.remove(t.GATEWAY_CLASSES, "mine", "")
    assert not world.graph.rows(t.OUR_GATEWAYS)[Key("default", "gw")].accepted


def test_of_two_gateways_with_one_name_for_their_objects_the_older_one_has_them() -> None:
    classes = [gateway_class(name).split(", parametersRef")[0] + "}\n---\n" for name in ("b-c", "c")]
    old = gateway("a-b", class_name="c").replace("uid:", 'creationTimestamp: "2026-01-01T00:00:00Z", uid:')
    new = gateway("a", class_name="b-c").replace("uid:", 'creationTimestamp: "2026-01-02T00:00:00Z", uid:')
    world = deploy(*classes, new)
    assert world.plan("a").deploying is Deploying.MANAGED
    world.put(old)
    assert world.plan("a-b").deploying is Deploying.MANAGED
    assert world.plan("a").deploying is Deploying.HELD
    assert [finding.code for finding in world.plan("a").findings] == ["MG7002"]
    assert reasons(status(world, "a"))["Programmed"] == "Invalid"
    world.remove(t.GATEWAYS, "a-b")
    assert world.plan("a").deploying is Deploying.MANAGED


def test_ports_are_those_of_accepted_listeners_sorted_and_once() -> None:
    listeners = (
        "[{name: a, port: 443, protocol: HTTPS, hostname: a.x, tls: {certificateRefs: [{name: missing}]}},"
        " {name: b, port: 443, protocol: TLS, hostname: b.x, tls: {mode: Passthrough}},"
        " {name: c, port: 80, protocol: HTTP, hostname: a.x}, {name: d, port: 80, protocol: HTTP, hostname: b.x},"
        " {name: e, port: 53, protocol: UDP}, {name: f, port: 53, protocol: TCP}]"
    )
    text = gateway().replace("[{name: http, port: 80, protocol: HTTP}]", listeners)
    assert deploy(text).plan().ports == (
        ProxyPort(53, "TCP", "tcp"),
        ProxyPort(53, "UDP"),
        ProxyPort(80, "TCP", "http"),
        ProxyPort(443, "TCP", "tls"),
    )


def test_a_waypoint_has_hbone_and_status_whatever_it_declares() -> None:
    assert [port.port for port in deploy(waypoint()).plan().ports] == [15021, 15008]


@pytest.mark.parametrize(
    ("addresses", "taken", "refused"),
    [
        ("[]", "", []),
        ("[{value: 192.0.2.7}]", "192.0.2.7", []),
        ("[{value: 'fd00::0:7'}]", "fd00::7", []),
        ("[{type: IPAddress}]", "", []),
        ("[{value: 192.0.2.7}, {value: 192.0.2.8}]", "192.0.2.7", ["spec.addresses[1]"]),
        ("[{type: Hostname, value: a.x}, {value: 192.0.2.8}]", "192.0.2.8", ["spec.addresses[0]"]),
        ("[{value: 127.0.0.1}]", "", ["spec.addresses[0]"]),
    ],
)
def test_one_address_is_asked_for(addresses: str, taken: str, refused: list[str]) -> None:
    plan = deploy(gateway(extra=f"  addresses: {addresses}")).plan()
    assert plan.address == taken
    assert [(finding.code, finding.field) for finding in plan.findings] == [("MG7003", field) for field in refused]


def test_nobody_chooses_the_account_of_proxies_in_a_cluster() -> None:
    text = gateway(labels="{meshgw.dev/service-account: admin}")
    accounts = [
        next(iter(deploy(text, deploys=deploys).graph.rows(t.OUR_GATEWAYS).values())).service_account
        for deploys in (True, False)
    ]
    assert accounts == ["gw-meshgw", "admin"]


@pytest.mark.parametrize(
    ("port", "protocol", "deploys", "accepted"),
    [
        (15021, "HTTP", True, False),
        (15020, "HTTP", True, False),
        (19000, "TCP", True, False),
        (15021, "UDP", True, True),
        (15021, "HTTP", False, True),
    ],
)
def test_ports_of_the_proxy_itself_are_no_listeners(port: int, protocol: str, *, deploys: bool, accepted: bool) -> None:
    text = gateway(port=port).replace("protocol: HTTP", f"protocol: {protocol}")
    (row,) = deploy(text, deploys=deploys).graph.rows(t.LISTENERS).values()
    assert row.accepted is accepted
    if not accepted:
        assert (row.conditions[0].reason, row.findings[0].code) == ("PortUnavailable", "MG1004")


def test_without_its_class_a_gateway_is_held_until_another_controller_has_it() -> None:
    plain = gateway_class("edge").split(", parametersRef")[0] + "}\n---\n"
    world = deploy(plain, gateway(class_name="edge"))
    made = world.plan()
    assert made.deploying is Deploying.MANAGED
    world.remove(t.GATEWAY_CLASSES, "edge", "")
    held = world.plan()
    assert (held.deploying, held.held_by) == (Deploying.HELD, "there is no GatewayClass edge")
    assert (held.name, held.uid) == (made.name, made.uid)
    assert world.objects() == {}
    world.put(plain)
    assert world.plan() == made
    world.put(plain.replace("meshgw.dev/gateway-controller", "example.com/other"))
    assert world.plan().deploying is Deploying.RELEASED


def test_a_standard_class_that_is_missing_may_have_had_parameters() -> None:
    world = deploy(gateway())
    before = dict(world.graph.rows(t.LISTENERS))
    world.remove(t.GATEWAY_CLASSES, "meshgw", "")
    assert world.plan().deploying is Deploying.HELD
    assert world.objects() == {}
    assert dict(world.graph.rows(t.LISTENERS)) == before, "it serves on"
    world._commit({t.BINDINGS: {KEY: BOUND}})
    assert reasons(status(world))["Accepted"] == "Invalid"
    assert reasons(status(world))["Programmed"] == "Invalid"
    assert [address.value for address in status(world).addresses] == ["192.0.2.1"]


def test_where_nothing_is_deployed_there_is_no_decision() -> None:
    world = deploy(gateway(class_name="unheard-of"), gateway("other"), deploys=False)
    assert not world.graph.rows(t.PROXY_PLANS)
