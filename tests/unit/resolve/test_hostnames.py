from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshgw.api.meta import Key
from meshgw.engine import Graph
from meshgw.ir.gateway import Binding
from meshgw.ir.keys import RouteConfigKey, RouteKey
from meshgw.ir.route import HostKind
from meshgw.resolve import tables as t
from meshgw.resolve.hostnames import covering, covers, domain, intersect, intersection, most_specific
from tests.unit.resolve.graph import change, gw, lset, resolve, secret, waypoint_service

LABELS = "ab"
HOSTS = [".".join(parts) for depth in range(1, 5) for parts in itertools.product(LABELS, repeat=depth)]
names = st.sampled_from(["", *HOSTS[:14], *(f"*.{host}" for host in HOSTS[:14])])
CERT = "tls: {certificateRefs: [{name: cert}]}"


def matches(pattern: str, host: str) -> bool:
    """The definition: label by label, from the right."""
    if not pattern:
        return True
    wanted, got = pattern.split(".")[::-1], host.split(".")[::-1]
    if wanted[-1] != "*":
        return wanted == got
    return len(got) >= len(wanted) and got[: len(wanted) - 1] == wanted[:-1]


def specificity(pattern: str) -> tuple[bool, int]:
    return not pattern.startswith("*") and bool(pattern), len(pattern)


# Functions


@given(one=names, other=names)
def test_an_intersection_matches_exactly_what_both_match(one: str, other: str) -> None:
    common = intersect(one, other)
    for host in HOSTS:
        both = matches(one, host) and matches(other, host)
        assert both is (common is not None and matches(common, host))
    assert common == intersect(other, one)


@given(pattern=names, host=names)
def test_covering_is_inclusion(pattern: str, host: str) -> None:
    included = all(matches(pattern, item) for item in HOSTS if matches(host, item))
    assert covers(pattern, host) is (included and (pattern == "" or host != ""))
    assert (pattern in covering(host)) is covers(pattern, host)


@given(patterns=st.sets(names), host=st.sampled_from(HOSTS))
def test_the_most_specific_name_wins(patterns: set[str], host: str) -> None:
    fitting = [pattern for pattern in patterns if matches(pattern, host)]
    assert most_specific(patterns, host) == max(fitting, key=specificity, default=None)


@given(listener=names, hostnames=st.lists(names.filter(bool), min_size=1))
def test_a_routes_hosts_on_a_listener(listener: str, hostnames: list[str]) -> None:
    left = intersection(listener, hostnames)
    assert list(left) == sorted(set(left))
    for host in HOSTS:
        wanted = matches(listener, host) and any(matches(name, host) for name in hostnames)
        assert wanted is any(matches(name, host) for name in left)


def test_a_route_without_hosts_inherits_the_listeners() -> None:
    assert intersection("", ()) == ("",)
    assert intersection("*.io", ()) == ("*.io",)
    assert intersection("a.io", ("A.IO",)) == ("a.io",)


@pytest.mark.parametrize(("host", "expected"), [("", "*"), ("a.io", "a.io"), ("*.io", "*.io")])
def test_domains(host: str, expected: str) -> None:
    assert domain(host) == expected


def test_a_wildcard_needs_a_label_in_front() -> None:
    assert covers("*.a.io", "x.y.a.io")
    assert not covers("*.a.io", "a.io")
    assert not covers("*.a.io", "xa.io")
    assert not covers("*.a.io", "*.io")
    assert list(covering("x.a.io")) == ["x.a.io", "*.a.io", "*.io", ""]
    assert list(covering("*.a.io")) == ["*.a.io", "*.io", ""]
    assert list(covering("")) == [""]


# Claims


def route(name: str, section: str, *hostnames: str, kind: str = "HTTPRoute") -> str:
    hosts = ", ".join(f"'{host}'" for host in hostnames)
    return f"""
---
kind: {kind}
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: gw, sectionName: {section}}}]
  hostnames: [{hosts}]
  rules: [{{backendRefs: [{{name: svc, port: 80}}]}}]
"""


def entries(protocol: str, hostnames: Iterable[str], port: int = 80) -> list[str]:
    return [
        f"name: l{position}, port: {port}, protocol: {protocol}" + (f", hostname: '{host}'" if host else "")
        for position, host in enumerate(hostnames)
    ]


def claims(graph: Graph, config: str) -> dict[tuple[str, str], HostKind]:
    """Return the claims of one RouteConfiguration by domain and claimant's name."""
    return {
        (host, claimant.name): row.kind
        for (key, host, claimant), row in graph.rows(t.HOSTS).items()
        if key == RouteConfigKey(Key("default", "gw"), config)
    }


def test_http_listeners_of_a_port_share_their_domains() -> None:
    text = gw(*entries("HTTP", ["", "a.io"]), "name: other, port: 81, protocol: HTTP")
    graph = resolve(text + route("r", "l1") + route("s", "l0", "b.io") + route("g", "l0", kind="GRPCRoute"))
    assert claims(graph, "http/80") == {
        ("*", "l0"): HostKind.EMPTY,
        ("a.io", "l1"): HostKind.EMPTY,
        ("a.io", "r"): HostKind.ROUTE,
        ("b.io", "s"): HostKind.ROUTE,
        ("*", "g"): HostKind.ROUTE,
    }
    assert claims(graph, "http/81") == {("*", "other"): HostKind.EMPTY}


def test_a_host_that_a_more_specific_listener_owns_is_not_claimed() -> None:
    text = gw(*entries("HTTP", ["", "*.a.io", "x.a.io"]))
    hosts = ("x.a.io", "y.a.io", "*.a.io", "*.b.a.io", "*.io", "z.io")
    found = claims(resolve(text + route("r", "l0", *hosts)), "http/80")
    assert {host for (host, name), _kind in found.items() if name == "r"} == {"*.io", "z.io"}
    found = claims(resolve(text + route("r", "l1", *hosts)), "http/80")
    assert {host for (host, name), _kind in found.items() if name == "r"} == {"y.a.io", "*.a.io", "*.b.a.io"}


def test_isolation_is_between_listeners_that_serve_the_same_protocol_and_port() -> None:
    others = ["name: c, port: 81, protocol: HTTP, hostname: x.io", "name: d, port: 443, protocol: HTTPS"]
    found = claims(resolve(gw(*entries("HTTP", [""]), *others) + route("r", "l0", "x.io")), "http/80")
    assert ("x.io", "r") in found


def test_a_listener_that_appears_takes_its_hosts() -> None:
    graph = resolve(gw(*entries("HTTP", [""])) + route("r", "l0", "x.io", "y.io"))
    assert ("x.io", "r") in claims(graph, "http/80")
    delta = change(graph, gw(*entries("HTTP", ["", "x.io"])))
    assert ("x.io", "r") not in claims(graph, "http/80")
    assert len(delta.changed(t.HOSTS)) == 2
    change(graph, gw(*entries("HTTP", [""])))
    assert ("x.io", "r") in claims(graph, "http/80")


def test_https_listeners_claim_apart_and_answer_421_for_each_other() -> None:
    listeners = [f"{entry}, {CERT}" for entry in entries("HTTPS", ["", "a.io", "*.w.io"], port=443)]
    tls = "name: tls, port: 443, protocol: TLS, hostname: t.io, tls: {mode: Passthrough}"
    other = f"name: o, port: 8443, protocol: HTTPS, hostname: o.io, {CERT}"
    graph = resolve(gw(*listeners, tls, other) + secret("cert") + route("r", "l0", "b.io", "a.io") + route("s", "l1"))
    base = "https/443/default/gw"
    assert claims(graph, f"{base}/l0") == {
        ("*", "l0"): HostKind.EMPTY,
        ("b.io", "r"): HostKind.ROUTE,
        ("a.io", "l0"): HostKind.MISDIRECTED,
        ("*.w.io", "l0"): HostKind.MISDIRECTED,
    }
    assert claims(graph, f"{base}/l1") == {
        ("a.io", "l1"): HostKind.EMPTY,
        ("a.io", "s"): HostKind.ROUTE,
        ("*", "l1"): HostKind.MISDIRECTED,
        ("*.w.io", "l1"): HostKind.MISDIRECTED,
    }
    assert claims(graph, "https/8443/default/gw/o") == {("o.io", "o"): HostKind.EMPTY}


def test_listeners_of_one_name_in_gateway_and_set_have_their_own_configurations() -> None:
    entry = f"name: l, port: 443, protocol: HTTPS, {CERT}"
    extra = "  allowedListeners: {namespaces: {from: All}}"
    text = gw(entry, extra=extra) + lset("gw", f"name: l, port: 443, protocol: HTTPS, hostname: a.io, {CERT}")
    graph = resolve(text + secret("cert"))
    assert claims(graph, "https/443/default/gw/l")
    assert claims(graph, "https/443/listenerset/default/gw/l")


def test_listeners_that_do_not_serve_claim_nothing() -> None:
    graph = resolve(gw(*entries("HTTPS", ["", "a.io"], port=443)) + route("r", "l0"))
    assert graph.rows(t.ATTACHMENTS)
    assert not graph.rows(t.HOSTS)


def test_l4_listeners_and_routes_claim_nothing() -> None:
    text = gw("name: l0, port: 80, protocol: TLS, tls: {mode: Passthrough}")
    graph = resolve(text + route("r", "l0", "a.io", kind="TLSRoute"))
    assert graph.rows(t.ATTACHMENTS)
    assert not graph.rows(t.HOSTS)


def test_redirects_learn_the_port_that_clients_see() -> None:
    text = gw(
        *entries("HTTP", [""]), f"name: s, port: 443, protocol: HTTPS, {CERT}", "name: h, port: 8080, protocol: HTTP"
    )
    key = Key("default", "gw")
    graph = resolve(text + secret("cert"), facts={t.BINDINGS: {key: Binding(port_offset=10000)}})
    found = {config.name: (row.port, row.https) for (config, _host, _claimant), row in graph.rows(t.HOSTS).items()}
    assert found == {"http/80": (10080, False), "https/443/default/gw/s": (10443, True), "http/8080": (8080, False)}
    change(graph, facts={t.BINDINGS: {key: None}})
    assert {row.port for row in graph.rows(t.HOSTS).values()} == {80, 443, 8080}


# Services behind a waypoint


def test_a_service_port_goes_straight_to_the_service_until_a_route_attaches() -> None:
    waypoint = gw("name: mesh, port: 15008, protocol: HBONE", class_name="meshgw-waypoint", name="waypoint")
    graph = resolve(waypoint, facts=waypoint_service("shop", http=[80, 81], tcp=[5432]))

    def found() -> dict[str, list[tuple[str, str, HostKind, int]]]:
        rows = sorted(graph.rows(t.HOSTS).items())
        configs = sorted({key[0].name for key, _row in rows})
        return {
            config: [(key[1], key[2].name, row.kind, row.port) for key, row in rows if key[0].name == config]
            for config in configs
        }

    assert found() == {
        "service/default/shop/80": [("*", "80", HostKind.DEFAULT, 80)],
        "service/default/shop/81": [("*", "81", HostKind.DEFAULT, 81)],
    }
    (target,) = {row.target for key, row in graph.rows(t.HOSTS).items() if key[0].name.endswith("/80")}
    assert target is not None
    assert (target.kind, target.namespace, target.name, target.port) == ("Service", "default", "shop", 80)
    attached = """
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: '', kind: Service, name: shop, port: 80}]
  rules: [{backendRefs: [{name: shop, port: 80}]}]
"""
    change(graph, attached)
    assert found()["service/default/shop/80"] == [("*", "r", HostKind.ROUTE, 80)]
    assert found()["service/default/shop/81"] == [("*", "81", HostKind.DEFAULT, 81)]
    change(graph, facts={t.HTTP_ROUTES: {Key("default", "r"): None}})
    assert found()["service/default/shop/80"] == [("*", "80", HostKind.DEFAULT, 80)]


# Isolation as a client sees it


def pick(rows: dict[tuple[str, str], HostKind], host: str) -> set[str]:
    """Choose a virtual host as Envoy does and return its claimants; routes by name, "421", or nothing."""
    best = most_specific({"" if name == "*" else name for name, _claimant in rows}, host)
    if best is None:
        return set()
    found = {(claimant, kind) for (name, claimant), kind in rows.items() if name == domain(best)}
    if any(kind is HostKind.MISDIRECTED for _claimant, kind in found):
        assert len(found) == 1
        return {"421"}
    return {claimant for claimant, kind in found if kind is HostKind.ROUTE}


def expected(listeners: list[str], routes: list[tuple[int, list[str]]], owner: str, host: str) -> set[str]:
    """Return the routes whose best host name is the best of all on the listener that owns the host."""
    best = {f"r{position}": -1 for position in range(len(routes))}
    order = {name: place for place, name in enumerate(sorted({owner, *covering(host)}, key=specificity))}
    for position, (target, hostnames) in enumerate(routes):
        if listeners[target] == owner:
            left = [intersect(owner, name) for name in hostnames] or [owner]
            scores = [order[name] for name in left if name is not None and matches(name, host)]
            best[f"r{position}"] = max(scores, default=-1)
    top = max([order[owner], *best.values()])
    return {name for name, score in best.items() if score == top}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, list[str]]]]:
    listeners = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    routes = draw(
        st.lists(
            st.tuples(st.integers(0, len(listeners) - 1), st.lists(names.filter(bool), max_size=3, unique=True)),
            max_size=4,
        )
    )
    return listeners, routes


@settings(max_examples=40, deadline=None)
@given(world=worlds(), host=st.sampled_from(HOSTS))
def test_a_request_sees_only_the_routes_of_the_most_specific_listener(
    world: tuple[list[str], list[tuple[int, list[str]]]], host: str
) -> None:
    listeners, routes = world
    text = gw(*entries("HTTP", listeners))
    text += "".join(route(f"r{position}", f"l{target}", *hosts) for position, (target, hosts) in enumerate(routes))
    fitting = [name for name in listeners if matches(name, host)]
    owner = max(fitting, key=specificity, default=None)
    wanted = set() if owner is None else expected(listeners, routes, owner, host)
    assert pick(claims(resolve(text), "http/80"), host) == wanted


@settings(max_examples=30, deadline=None)
@given(world=worlds(), host=st.sampled_from(HOSTS), sni=st.sampled_from(HOSTS))
def test_a_connection_for_one_https_listener_reaches_no_other(
    world: tuple[list[str], list[tuple[int, list[str]]]], host: str, sni: str
) -> None:
    listeners, routes = world
    text = gw(*(f"{entry}, {CERT}" for entry in entries("HTTPS", listeners, port=443))) + SECRET
    text += "".join(route(f"r{position}", f"l{target}", *hosts) for position, (target, hosts) in enumerate(routes))
    chosen = max((name for name in listeners if matches(name, sni)), key=specificity, default=None)
    if chosen is None:
        return
    owner = max((name for name in listeners if matches(name, host)), key=specificity, default=None)
    if owner is None:
        wanted: set[str] = set()
    else:
        wanted = expected(listeners, routes, owner, host) if owner == chosen else {"421"}
    config = f"https/443/default/gw/l{listeners.index(chosen)}"
    assert pick(claims(resolve(text), config), host) == wanted


SECRET = secret("cert")


@pytest.mark.parametrize(
    ("sni", "host", "expected_claimants"),
    [
        ("example.org", "example.org", {"one"}),
        ("example.org", "second-example.org", {"421"}),
        ("example.org", "unknown-example.org", set()),
        ("second-example.org", "second-example.org", {"two"}),
        ("second-example.org", "example.org", {"421"}),
        ("second-example.org", "unknown-example.org", {"421"}),
        ("third-example.wildcard.org", "third-example.wildcard.org", {"three"}),
        ("third-example.wildcard.org", "fith-example.wildcard.org", {"three"}),
        ("third-example.wildcard.org", "fourth-example.wildcard.org", {"421"}),
        ("third-example.wildcard.org", "second-example.org", {"421"}),
        ("third-example.wildcard.org", "unknown-example.org", {"421"}),
        ("fourth-example.wildcard.org", "fourth-example.wildcard.org", {"four"}),
        ("fourth-example.wildcard.org", "fith-example.wildcard.org", {"421"}),
        ("unknown-example.org", "example.org", {"one"}),
        ("unknown-example.org", "unknown-example.org", set()),
    ],
)
def test_misdirected_requests_of_the_conformance_suite(sni: str, host: str, expected_claimants: set[str]) -> None:
    hosts = ["", "second-example.org", "*.wildcard.org", "fourth-example.wildcard.org"]
    text = gw(*(f"{entry}, {CERT}" for entry in entries("HTTPS", hosts, port=443))) + SECRET
    text += route("one", "l0", "example.org") + route("two", "l1") + route("three", "l2") + route("four", "l3")
    chosen = most_specific(hosts, sni)
    assert chosen is not None
    config = f"https/443/default/gw/l{hosts.index(chosen)}"
    assert pick(claims(resolve(text), config), host) == expected_claimants


def test_claims_of_listeners_carry_no_route() -> None:
    graph = resolve(gw(*entries("HTTP", [""])))
    assert list(graph.rows(t.HOSTS)) == [(RouteConfigKey(Key("default", "gw"), "http/80"), "*", RouteKey("", "", "l0"))]
