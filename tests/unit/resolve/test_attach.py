from __future__ import annotations

import itertools

import pytest

from meshgw.api.meta import Key
from meshgw.ir.keys import ListenerKey, RouteKey
from meshgw.resolve import tables as t
from tests.unit.resolve.graph import (
    change,
    codes,
    gw,
    listeners_of,
    lset,
    parents,
    reasons,
    resolve,
    secret,
    waypoint_service,
)

ADMIT_ALL = "  allowedListeners: {namespaces: {from: All}}"
TLS = "tls: {certificateRefs: [{name: cert}]}"
LISTENERS = (
    "name: http, port: 80, protocol: HTTP",
    "name: alt, port: 8080, protocol: HTTP",
    "name: host, port: 8080, protocol: HTTP, hostname: '*.example.com'",
    f"name: https, port: 443, protocol: HTTPS, {TLS}",
    f"name: tls, port: 8443, protocol: TLS, {TLS}",
    "name: tcp, port: 9000, protocol: TCP",
    "name: udp, port: 9000, protocol: UDP",
)
GATEWAY = gw(*LISTENERS) + secret("cert")


def route(
    *refs: str, kind: str = "HTTPRoute", hostnames: str = "", namespace: str = "default", name: str = "route"
) -> str:
    rules = "rules: [{backendRefs: [{name: svc, port: 80}]}]"
    hosts = f"hostnames: [{hostnames}], " if hostnames else ""
    parent_refs = ", ".join("{" + ref + "}" for ref in refs)
    return f"""
---
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}, generation: 6}}
spec: {{parentRefs: [{parent_refs}], {hosts}{rules}}}
"""


# Selection


@pytest.mark.parametrize(
    ("ref", "reason", "listeners"),
    [
        ("name: gw", "Accepted", ["alt", "host", "http", "https"]),
        ("name: gw, sectionName: alt", "Accepted", ["alt"]),
        ("name: gw, port: 8080", "Accepted", ["alt", "host"]),
        ("name: gw, port: 8080, sectionName: host", "Accepted", ["host"]),
        ("name: gw, port: 81", "NoMatchingParent", []),
        ("name: gw, sectionName: none", "NoMatchingParent", []),
        ("name: gw, port: 80, sectionName: alt", "NoMatchingParent", []),
        ("name: gw, sectionName: tls", "NotAllowedByListeners", []),
        ("name: gw, port: 9000", "NotAllowedByListeners", []),
    ],
)
def test_section_name_and_port_select_listeners(ref: str, reason: str, listeners: list[str]) -> None:
    graph = resolve(GATEWAY + route(ref))
    assert reasons(graph) == [reason]
    assert listeners_of(graph) == listeners


@pytest.mark.parametrize(
    ("kind", "listeners"),
    [
        ("HTTPRoute", ["alt", "host", "http", "https"]),
        ("GRPCRoute", ["alt", "host", "http", "https"]),
        ("TLSRoute", ["tls"]),
        ("TCPRoute", ["tcp"]),
        ("UDPRoute", ["udp"]),
    ],
)
def test_each_kind_attaches_to_the_listeners_that_carry_it(kind: str, listeners: list[str]) -> None:
    hosts = "a.example.com" if kind == "TLSRoute" else ""
    graph = resolve(GATEWAY + route("name: gw", kind=kind, hostnames=hosts))
    assert listeners_of(graph) == listeners
    (parent,) = parents(graph)
    assert (parent.route.kind, parent.reason, parent.message, parent.findings) == (kind, "Accepted", "", ())


@pytest.mark.parametrize(
    ("kind", "listener"),
    [
        ("TLSRoute", "http"),
        ("TLSRoute", "https"),
        ("TCPRoute", "http"),
        ("TCPRoute", "udp"),
        ("UDPRoute", "tls"),
        ("HTTPRoute", "tls"),
    ],
)
def test_a_kind_on_the_wrong_protocol_is_not_allowed(kind: str, listener: str) -> None:
    hosts = "a.example.com" if kind == "TLSRoute" else ""
    graph = resolve(GATEWAY + route(f"name: gw, sectionName: {listener}", kind=kind, hostnames=hosts))
    assert reasons(graph) == ["NotAllowedByListeners"]
    assert codes(parents(graph)[0].findings) == ["MG1002"]


def test_reasons_are_judged_in_order() -> None:
    """A ref that is wrong in several ways is told the first: name, then kind and namespace, then host."""
    text = gw("name: a, port: 80, protocol: HTTP, hostname: a.io, allowedRoutes: {kinds: [{kind: GRPCRoute}]}")
    hosts = "hostnames: [b.io]"
    cases = {"name: gw, sectionName: b": "NoMatchingParent", "name: gw": "NotAllowedByListeners"}
    for ref, reason in cases.items():
        assert reasons(resolve(text + route(ref, hostnames="b.io"))) == [reason], hosts
    assert reasons(resolve(text + route("name: gw", kind="GRPCRoute", hostnames="b.io"))) == [
        "NoMatchingListenerHostname"
    ]


# Namespaces


@pytest.mark.parametrize(
    ("rule", "namespace", "reason"),
    [
        ("from: Same", "default", "Accepted"),
        ("from: Same", "team", "NotAllowedByListeners"),
        ("from: All", "team", "Accepted"),
        ("from: Selector, selector: {matchLabels: {team: a}}", "team", "Accepted"),
        ("from: Selector, selector: {matchLabels: {team: b}}", "team", "NotAllowedByListeners"),
        ("from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: bare}}", "bare", "Accepted"),
    ],
)
def test_allowed_namespaces(rule: str, namespace: str, reason: str) -> None:
    text = gw(f"name: a, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{{rule}}}}}")
    team = "---\n{kind: Namespace, metadata: {name: team, labels: {team: a}}}\n"
    graph = resolve(text + team + route("name: gw, namespace: default", namespace=namespace))
    assert reasons(graph) == [reason]


def test_a_namespaces_labels_open_and_close_the_listener() -> None:
    rule = "allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}"
    graph = resolve(gw(f"name: a, port: 80, protocol: HTTP, {rule}") + route("name: gw"))
    assert reasons(graph) == ["NotAllowedByListeners"]
    change(graph, "{kind: Namespace, metadata: {name: default, labels: {team: a}}}")
    assert reasons(graph) == ["Accepted"]


# Host names


@pytest.mark.parametrize(
    ("listener", "hosts", "left"),
    [
        ("", "", ("",)),
        ("hostname: a.io", "", ("a.io",)),
        ("", "a.io, '*.b.io'", ("*.b.io", "a.io")),
        ("hostname: '*.io'", "a.io, b.c.io, io, '*.d.io', x.com", ("*.d.io", "a.io", "b.c.io")),
        ("hostname: a.b.io", "'*.io', '*.b.io', a.b.io, b.b.io", ("a.b.io",)),
        ("hostname: a.io", "b.io", None),
        ("hostname: '*.a.io'", "a.io", None),
    ],
)
@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_what_remains_of_the_host_names(kind: str, listener: str, hosts: str, left: tuple[str, ...] | None) -> None:
    separator = ", " if listener else ""
    text = gw(f"name: a, port: 80, protocol: HTTP{separator}{listener}")
    graph = resolve(text + route("name: gw", kind=kind, hostnames=hosts))
    rows = [row.hostnames for row in graph.rows(t.ATTACHMENTS).values()]
    assert rows == ([] if left is None else [left])
    assert reasons(graph) == ["NoMatchingListenerHostname" if left is None else "Accepted"]


def test_one_matching_listener_is_enough() -> None:
    graph = resolve(GATEWAY + route("name: gw, port: 8080, sectionName: host", hostnames="x.example.com, y.io"))
    assert parents(graph)[0].listeners[0][1] == ("x.example.com",)


# Several parents, and whose they are


def test_every_parent_ref_of_ours_has_its_row_verbatim() -> None:
    refs = (
        "name: gw, sectionName: http",
        "name: stranger",
        "name: gw, namespace: default, port: 8080",
        "name: gw, sectionName: none",
        "name: gw, kind: Mesh, group: example.com",
    )
    graph = resolve(GATEWAY + route(*refs))
    rows = graph.rows(t.PARENTS)
    assert [(key[1], row.reason) for key, row in sorted(rows.items())] == [
        (0, "Accepted"),
        (2, "Accepted"),
        (3, "NoMatchingParent"),
    ]
    found = parents(graph)
    assert {row.generation for row in found} == {6}
    assert (found[0].ref.namespace, found[1].ref.namespace) == (None, "default")
    assert (found[0].ref.group, found[0].ref.kind) == ("gateway.networking.k8s.io", "Gateway")
    (finding,) = found[2].findings
    assert (finding.code, str(finding.object), finding.field) == (
        "MG1001",
        "HTTPRoute default/route",
        "spec.parentRefs[3]",
    )


def test_two_refs_to_one_listener_are_one_attachment() -> None:
    refs = ("name: gw, sectionName: http, port: 80", "name: gw, namespace: default, sectionName: http")
    graph = resolve(GATEWAY + route(*refs, hostnames="a.io"))
    assert len(graph.rows(t.PARENTS)) == 2
    ((_key, row),) = graph.rows(t.ATTACHMENTS).items()
    assert row.hostnames == ("a.io",)
    assert set(graph.rows(t.ATTACHED_COUNTS).values()) == {1}


def test_attached_routes_are_counted_per_listener_and_leave_the_count() -> None:
    text = GATEWAY + route("name: gw, sectionName: http", name="a") + route("name: gw", name="b", kind="GRPCRoute")
    graph = resolve(text + route("name: gw, sectionName: none", name="c"))
    counts = {key.name: count for key, count in graph.rows(t.ATTACHED_COUNTS).items()}
    assert counts == {"http": 2, "alt": 1, "host": 1, "https": 1}
    change(graph, facts={t.HTTP_ROUTES: {Key("default", "a"): None}})
    assert {key.name: count for key, count in graph.rows(t.ATTACHED_COUNTS).items()} == {
        "http": 1,
        "alt": 1,
        "host": 1,
        "https": 1,
    }


def test_routes_count_on_a_listener_that_does_not_serve() -> None:
    graph = resolve(gw(*LISTENERS) + route("name: gw, sectionName: https"))
    assert reasons(graph) == ["Accepted"]
    assert list(graph.rows(t.ATTACHED_COUNTS).values()) == [1]


def test_a_route_of_a_foreign_gateway_has_no_rows() -> None:
    graph = resolve(gw(*LISTENERS, class_name="foreign") + route("name: gw"))
    assert not graph.rows(t.PARENTS)


# ListenerSets


SETS = gw("name: http, port: 80, protocol: HTTP", extra=ADMIT_ALL) + lset(
    "more", "name: extra, port: 81, protocol: HTTP", "name: http, port: 82, protocol: HTTP", namespace="team"
)
IN_SET = "name: more, namespace: team, kind: ListenerSet"


def test_a_gateway_ref_never_reaches_the_listeners_of_a_set() -> None:
    graph = resolve(SETS + route("name: gw"))
    assert [key.owner_kind for _route, key in graph.rows(t.ATTACHMENTS)] == ["Gateway"]
    for ref in ("name: gw, sectionName: extra", "name: gw, port: 81"):
        assert reasons(resolve(SETS + route(ref))) == ["NoMatchingParent"]


def test_a_set_ref_reaches_only_the_set_and_its_namespace_counts() -> None:
    graph = resolve(SETS + route(IN_SET, namespace="team"))
    assert reasons(graph) == ["Accepted"]
    owner = Key("team", "more")
    assert {key for _route, key in graph.rows(t.ATTACHMENTS)} == {
        ListenerKey(Key("default", "gw"), "ListenerSet", owner, name) for name in ("extra", "http")
    }
    assert reasons(resolve(SETS + route(IN_SET))) == ["NotAllowedByListeners"]
    assert listeners_of(resolve(SETS + route(f"{IN_SET}, sectionName: extra", namespace="team"))) == ["extra"]
    assert reasons(resolve(SETS + route(f"{IN_SET}, port: 80", namespace="team"))) == ["NoMatchingParent"]


def test_gateway_and_set_parents_are_judged_apart() -> None:
    graph = resolve(SETS + route("name: gw, namespace: default", IN_SET, namespace="team"))
    assert reasons(graph) == ["NotAllowedByListeners", "Accepted"]


def test_sets_that_are_absent_refused_or_foreign() -> None:
    assert not resolve(gw("name: http, port: 80, protocol: HTTP") + route(IN_SET)).rows(t.PARENTS)
    refused = SETS.replace("{from: All}", "{from: Same}")
    assert reasons(resolve(refused + route(IN_SET, namespace="team"))) == ["NoMatchingParent"]
    foreign = SETS.replace("gatewayClassName: meshgw", "gatewayClassName: foreign")
    assert not resolve(foreign + route(IN_SET, namespace="team")).rows(t.PARENTS)
    odd = lset("odd", "name: a, port: 81, protocol: HTTP", parent=", kind: Other, group: x.io")
    text = gw("name: http, port: 80, protocol: HTTP", extra=ADMIT_ALL) + odd
    assert not resolve(text + route("name: odd, kind: ListenerSet")).rows(t.PARENTS)


# Services behind a waypoint

WAYPOINT = gw("name: mesh, port: 15008, protocol: HBONE", class_name="meshgw-waypoint", name="waypoint")
SERVICE = """
---
kind: Service
metadata: {name: shop}
spec: {ports: [{name: web, port: 80}, {name: api, port: 8080}, {name: db, port: 5432}]}
"""
SHOP = "name: shop, kind: Service, group: ''"


@pytest.mark.parametrize(
    ("ref", "reason", "ports"),
    [
        (SHOP, "Accepted", ["80", "8080"]),
        (f"{SHOP}, port: 8080", "Accepted", ["8080"]),
        (f"{SHOP}, sectionName: web", "Accepted", ["80"]),
        (f"{SHOP}, sectionName: web, port: 80", "Accepted", ["80"]),
        (f"{SHOP}, sectionName: web, port: 8080", "NoMatchingParent", []),
        (f"{SHOP}, sectionName: none", "NoMatchingParent", []),
        (f"{SHOP}, port: 81", "NoMatchingParent", []),
        (f"{SHOP}, port: 5432", "NotAllowedByListeners", []),
    ],
)
@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_routes_reach_the_http_ports_of_a_service_behind_a_waypoint(
    kind: str, ref: str, reason: str, ports: list[str]
) -> None:
    facts = waypoint_service("shop", http=[80, 8080], tcp=[5432])
    graph = resolve(WAYPOINT + SERVICE + route(ref, kind=kind, hostnames="a.io"), facts=facts)
    assert reasons(graph) == [reason]
    rows = {key[1].name: row.hostnames for key, row in graph.rows(t.ATTACHMENTS).items()}
    assert rows == dict.fromkeys(ports, ("",))
    assert parents(graph)[0].gateway == Key("default", "waypoint")


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (f"{SHOP}, port: 81", "Service has no port 81"),
        (f"{SHOP}, sectionName: none", "Service has no port named none"),
        (f"{SHOP}, port: 5432", "no port 5432 of the Service speaks HTTP"),
        (SHOP, "no port of the Service speaks HTTP"),
    ],
)
def test_a_port_that_cannot_be_reached_is_named(ref: str, message: str) -> None:
    graph = resolve(WAYPOINT + SERVICE + route(ref), facts=waypoint_service("shop", http=[], tcp=[5432]))
    assert parents(graph)[0].message == message


def test_only_routes_of_the_services_own_namespace_attach() -> None:
    facts = waypoint_service("shop", http=[80])
    graph = resolve(WAYPOINT + route(f"{SHOP}, namespace: default", namespace="client"), facts=facts)
    assert reasons(graph) == ["NotAllowedByListeners"]
    assert "own namespace default" in parents(graph)[0].message


def test_a_waypoint_serves_no_l4_routes() -> None:
    graph = resolve(WAYPOINT + route(SHOP, kind="TCPRoute"), facts=waypoint_service("shop", http=[80], tcp=[5432]))
    assert reasons(graph) == ["NotAllowedByListeners"]


def test_a_service_without_a_waypoint_is_no_parent_of_ours_until_it_has_one() -> None:
    graph = resolve(WAYPOINT + route(SHOP))
    assert not graph.rows(t.PARENTS)
    change(graph, facts=waypoint_service("shop", http=[80]))
    assert reasons(graph) == ["Accepted"]


def test_a_port_name_of_an_unknown_service_matches_nothing() -> None:
    graph = resolve(WAYPOINT + route(f"{SHOP}, sectionName: web"), facts=waypoint_service("shop", http=[80]))
    assert reasons(graph) == ["NoMatchingParent"]


def test_a_waypoint_itself_is_no_parent_for_routes() -> None:
    graph = resolve(WAYPOINT + route("name: waypoint"))
    assert reasons(graph) == ["NotAllowedByListeners"]
    assert "Services" in parents(graph)[0].message


# Incremental


def test_a_route_edit_touches_its_own_rows_only() -> None:
    names = [f"r{number}" for number in range(20)]
    graph = resolve(GATEWAY + "".join(route("name: gw", name=name) for name in names))
    delta = change(graph, route("name: gw", name="r7", hostnames="a.example.com"))
    assert {key[0].name for key in delta.changed(t.ATTACHMENTS)} == {"r7"}
    assert delta.recomputed["parents"] == 1
    assert not delta.changed(t.ATTACHED_COUNTS)


def test_the_order_of_documents_changes_nothing() -> None:
    documents = [GATEWAY, route("name: gw", name="a"), route("name: gw, port: 8080", name="b", hostnames="x.io")]
    rows = [
        (dict(graph.rows(t.PARENTS)), dict(graph.rows(t.ATTACHMENTS)), dict(graph.rows(t.HOSTS)))
        for order in itertools.permutations(documents)
        for graph in [resolve("\n---\n".join(order).replace("---\n\n---", "---"))]
    ]
    assert all(row == rows[0] for row in rows)
    assert RouteKey("HTTPRoute", "default", "a") in {key[0] for key in rows[0][1]}
