from __future__ import annotations

import pytest
from msgspec.structs import replace

from meshgw.api.meta import Key
from meshgw.ir.gateway import Protocol
from meshgw.ir.keys import ListenerKey
from meshgw.resolve import tables as t
from meshgw.resolve.listeners import IMPLIED
from tests.unit.resolve.graph import (
    ADMIT_ALL,
    GOOD,
    HTTP,
    HTTPS,
    certificate,
    change,
    codes,
    gateway,
    gw,
    listener,
    lset,
    new_graph,
    parse,
    resolve,
    secret,
    shown,
)

# Kinds and protocols


@pytest.mark.parametrize(
    ("protocol", "kinds"),
    [
        ("HTTP", ["HTTPRoute", "GRPCRoute"]),
        ("HTTPS, " + certificate(), ["HTTPRoute", "GRPCRoute"]),
        ("TLS, " + certificate(), ["TLSRoute"]),
        ("TLS, " + certificate(mode="Passthrough"), ["TLSRoute"]),
        ("TCP", ["TCPRoute"]),
        ("UDP", ["UDPRoute"]),
    ],
)
def test_each_protocol_carries_its_kinds(protocol: str, kinds: list[str]) -> None:
    row = listener(resolve(gw(f"name: a, port: 7000, protocol: {protocol}") + secret("cert")), "a")
    assert [kind.kind for kind in row.kinds] == kinds
    assert {kind.group for kind in row.kinds} == {"gateway.networking.k8s.io"}
    assert shown(row.conditions) == GOOD
    assert {condition.observed_generation for condition in row.conditions} == {5}
    assert (row.accepted, row.serving, row.findings) == (True, True, ())


@pytest.mark.parametrize("protocol", ["SCTP", "example.com/other", "HBONE"])
def test_an_unknown_protocol_has_no_kinds(protocol: str) -> None:
    row = listener(resolve(gw(f"name: a, port: 7000, protocol: {protocol}")), "a")
    assert (row.protocol, row.kinds, row.accepted, row.serving) == (None, (), False, False)
    assert shown(row.conditions) == GOOD | {
        "Accepted": "False/UnsupportedProtocol",
        "Programmed": "False/Invalid",
    }
    assert codes(row.findings) == ["MG1005", "MG1010"]


def test_a_bad_listener_costs_only_itself() -> None:
    graph = resolve(gw(HTTP, "name: odd, port: 81, protocol: SCTP"))
    assert listener(graph, "http").serving
    assert codes(listener(graph, "odd").findings) == ["MG1005"]
    assert gateway(graph).accepted


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        ("[{kind: InvalidRoute}]", []),
        ("[{kind: InvalidRoute}, {kind: HTTPRoute}]", ["HTTPRoute"]),
        ("[{kind: TCPRoute}, {kind: GRPCRoute}]", ["GRPCRoute"]),
        ("[{kind: HTTPRoute, group: example.com}]", []),
    ],
)
def test_kinds_that_do_not_fit_are_refused(kinds: str, left: list[str]) -> None:
    row = listener(resolve(gw(f"{HTTP}, allowedRoutes: {{kinds: {kinds}}}")), "http")
    assert [kind.kind for kind in row.kinds] == left
    assert shown(row.conditions) == GOOD | {
        "ResolvedRefs": "False/InvalidRouteKinds",
        "Programmed": "False/Invalid",
    }
    assert (row.accepted, row.serving) == (True, False)
    assert "MG1006" in codes(row.findings)


def test_kinds_that_fit_narrow_the_list() -> None:
    row = listener(resolve(gw(HTTP + ", allowedRoutes: {kinds: [{kind: GRPCRoute}]}")), "http")
    assert [kind.kind for kind in row.kinds] == ["GRPCRoute"]
    assert row.serving


def test_hostnames_are_lower_case_and_only_where_they_mean_something() -> None:
    rows = parse(gw(HTTP, "name: tcp, port: 81, protocol: TCP"))
    ((key, row),) = rows[t.GATEWAYS].items()
    changed = tuple(replace(entry, hostname="A.Example.COM") for entry in row.spec.listeners)
    graph = resolve("", facts={t.GATEWAYS: {key: replace(row, spec=replace(row.spec, listeners=changed))}})
    assert listener(graph, "http").hostname == "a.example.com"
    assert listener(graph, "tcp").hostname == ""


def test_a_refused_gateway_serves_nothing() -> None:
    extra = "  infrastructure: {parametersRef: {group: x.io, kind: Thing, name: a}}"
    row = listener(resolve(gw(HTTP, extra=extra)), "http")
    assert not row.serving
    assert shown(row.conditions) == GOOD | {"Programmed": "False/Invalid"}
    assert row.findings == ()


# Waypoints

WAYPOINT = {"class_name": "meshgw-waypoint"}
HBONE = "name: mesh, port: 15008, protocol: HBONE"


def implied(graph: object) -> bool:
    return any(key.owner_kind == IMPLIED for key in graph.rows(t.LISTENERS))  # type: ignore[attr-defined]


def test_a_waypoint_serves_hbone() -> None:
    graph = resolve(gw(HBONE + ", allowedRoutes: {namespaces: {from: All}}", **WAYPOINT))
    row = listener(graph, "mesh")
    assert (row.protocol, row.serving, row.namespaces.source) == (Protocol.HBONE, True, "All")
    assert [kind.kind for kind in row.kinds] == ["HTTPRoute", "GRPCRoute"]
    assert shown(row.conditions) == GOOD
    assert not implied(graph)


def test_tls_settings_of_hbone_have_no_effect() -> None:
    row = listener(resolve(gw(f"{HBONE}, {certificate()}", **WAYPOINT)), "mesh")
    assert (row.serving, row.tls, codes(row.findings)) == (True, None, ["MG3007"])


def test_plain_listeners_of_a_waypoint_are_refused_and_hbone_is_implied() -> None:
    graph = resolve(gw(HTTP, **WAYPOINT))
    assert shown(listener(graph, "http").conditions)["Accepted"] == "False/UnsupportedProtocol"
    parent = Key("default", "gw")
    row = graph.get(t.LISTENERS, ListenerKey(parent, IMPLIED, parent, "hbone"))
    assert row is not None
    assert (row.port, row.protocol, row.serving, row.namespaces.source) == (15008, Protocol.HBONE, True, "Same")


def test_hbone_has_its_port() -> None:
    graph = resolve(gw("name: mesh, port: 15009, protocol: HBONE", **WAYPOINT))
    assert shown(listener(graph, "mesh").conditions)["Accepted"] == "False/PortUnavailable"
    assert implied(graph)


def test_listener_sets_add_nothing_to_a_waypoint() -> None:
    graph = resolve(gw(HBONE, extra=ADMIT_ALL, **WAYPOINT) + lset("more", HBONE, HTTP))
    assert not any(listener(graph, name, owner="default/more").serving for name in ("mesh", "http"))
    assert listener(graph, "mesh").serving


# Incremental


def test_only_the_listeners_that_change_change() -> None:
    graph = resolve(gw(HTTP, f"{HTTPS}, {certificate()}") + secret("cert"))
    delta = change(graph, secret("cert"))
    assert not delta.changed(t.LISTENERS)
    delta = change(graph, facts={t.SECRETS: {Key("default", "cert"): None}})
    assert [key.name for key in delta.changed(t.LISTENERS)] == ["https"]


def test_a_gateway_that_vanishes_takes_its_listeners_along() -> None:
    graph = new_graph()
    change(graph, gw(HTTP))
    change(graph, facts={t.GATEWAYS: {Key("default", "gw"): None}})
    assert not graph.rows(t.LISTENERS)
