from __future__ import annotations

import pytest

from meshgw.api.meta import Key
from meshgw.ir.gateway import Binding, Protocol
from meshgw.ir.keys import ListenerKey
from meshgw.resolve import tables as t
from meshgw.resolve.conflicts import Place, find_conflicts, find_overlaps
from tests.unit.resolve.graph import GOOD, HTTP, certificate, codes, gw, listener, resolve, secret, shown

CONFLICTS = {
    "HTTP beside TCP": (["HTTP", "TCP"], "ProtocolConflict"),
    "HTTP beside HTTPS": (["HTTP", "HTTPS, " + certificate()], "ProtocolConflict"),
    "TLS beside TCP": (["TLS, tls: {mode: Passthrough}", "TCP"], "ProtocolConflict"),
    "HTTPS and TLS of one host": (
        ["HTTPS, hostname: a.io, " + certificate(), "TLS, hostname: a.io, tls: {mode: Passthrough}"],
        "HostnameConflict",
    ),
    "HTTPS and TLS of any host": (["HTTPS, " + certificate(), "TLS, tls: {mode: Passthrough}"], "HostnameConflict"),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_of_a_gateways_own_listeners_that_clash_none_wins(case: str) -> None:
    protocols, reason = CONFLICTS[case]
    entries = [f"name: l{position}, port: 7000, protocol: {item}" for position, item in enumerate(protocols)]
    graph = resolve(gw(*entries, HTTP) + secret("cert"))
    for name in ("l0", "l1"):
        row = listener(graph, name)
        assert (row.accepted, row.serving) == (False, False)
        assert shown(row.conditions) == GOOD | {
            "Accepted": f"False/{reason}",
            "Conflicted": f"True/{reason}",
            "Programmed": f"False/{reason}",
        }
        assert codes(row.findings) == ["MG1004"]
    assert listener(graph, "http").serving


@pytest.mark.parametrize(
    "protocols",
    [
        ["HTTP, hostname: a.io", "HTTP, hostname: b.io", "HTTP, hostname: '*.io'", "HTTP"],
        ["HTTPS, hostname: a.io, " + certificate(), "TLS, hostname: b.io, tls: {mode: Passthrough}"],
        ["TLS, hostname: a.io, " + certificate(), "TLS, hostname: b.io, tls: {mode: Passthrough}"],
        ["TCP", "UDP"],
    ],
)
def test_listeners_that_can_be_told_apart_share_a_port(protocols: list[str]) -> None:
    entries = [f"name: l{position}, port: 7000, protocol: {item}" for position, item in enumerate(protocols)]
    graph = resolve(gw(*entries) + secret("cert"))
    assert all(row.serving for row in graph.rows(t.LISTENERS).values())


def test_a_listener_of_an_unknown_protocol_clashes_with_nothing() -> None:
    assert listener(resolve(gw(HTTP, "name: odd, port: 80, protocol: SCTP")), "http").serving


def place(name: str, protocol: Protocol, hostname: str = "", owner: str = "") -> Place:
    parent = Key("default", "gw")
    kind, key = ("ListenerSet", Key("default", owner)) if owner else ("Gateway", parent)
    return Place(ListenerKey(parent, kind, key, name), 80, protocol, hostname)


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP, Protocol.HBONE])
def test_protocols_without_host_names_want_their_port_alone(protocol: Protocol) -> None:
    places = [place("a", protocol), place("b", protocol)]
    assert set(find_conflicts(places).values()) == {"ProtocolConflict"}
    later = [place("a", protocol), place("b", protocol, owner="s")]
    assert find_conflicts(later) == {later[1].key: "ProtocolConflict"}


def test_a_listener_set_cannot_take_what_the_gateways_clash_left_unserved() -> None:
    places = [
        place("a", Protocol.HTTPS, "a.io"),
        place("b", Protocol.TLS, "a.io"),
        place("c", Protocol.HTTPS, "a.io", owner="s"),
        place("d", Protocol.HTTPS, "d.io", owner="s"),
    ]
    assert set(find_conflicts(places)) == {row.key for row in places[:3]}


def test_overlapping_tls_listeners_are_announced_on_both_sides() -> None:
    hosts = {"a": "foo.example.com", "b": "foo.example.org", "c": "'*.example.com'"}
    entries = [
        f"name: {name}, port: 443, protocol: HTTPS, hostname: {host}, {certificate()}" for name, host in hosts.items()
    ]
    other = f"name: d, port: 8443, protocol: HTTPS, {certificate()}"
    graph = resolve(gw(*entries, other) + secret("cert"))
    found = {name: shown(listener(graph, name).conditions).get("OverlappingTLSConfig") for name in "abcd"}
    assert found == {"a": "True/OverlappingHostnames", "b": None, "c": "True/OverlappingHostnames", "d": None}


def test_overlaps_are_a_matter_of_tls_only() -> None:
    assert not find_overlaps([place("a", Protocol.HTTP), place("b", Protocol.HTTP, "a.io")])


def test_two_ports_that_would_be_bound_as_one_are_not_both_served() -> None:
    binding = {t.BINDINGS: {Key("default", "gw"): Binding(port_offset=8000)}}
    entries = (HTTP, "name: high, port: 8080, protocol: HTTP", "name: udp, port: 8080, protocol: UDP")
    graph = resolve(gw(*entries), facts=binding)
    assert listener(graph, "http").serving
    assert listener(graph, "udp").serving
    row = listener(graph, "high")
    assert not row.serving
    assert shown(row.conditions)["Accepted"] == "False/PortUnavailable"
