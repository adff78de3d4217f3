from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.api.meta import Key
from meshgw.ir.backend import Endpoint, Endpoints
from meshgw.ir.gateway import Listener, Protocol
from meshgw.ir.keys import BackendTarget, ListenerKey, RouteKey
from meshgw.ir.mesh import Workload
from meshgw.ir.route import Attachment
from meshgw.resolve import tables as t
from meshgw.resolve.endpoints import share_out
from tests.unit.resolve.route_graph import GATEWAY, World, codes, service, web


def slices(
    *endpoints: str, name: str = "s", of: str = "web", family: str = "IPv4", ports: str = "[{port: 8080}]"
) -> str:
    items = ", ".join(item if item.startswith("{") else f"{{addresses: ['{item}']}}" for item in endpoints)
    return (
        f"---\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: default, labels: "
        f"{{kubernetes.io/service-name: {of}}}}}\naddressType: {family}\nendpoints: [{items}]\nports: {ports}\n"
    )


def addresses(text: str, target: BackendTarget | None = None, **settings: bool) -> list[str]:
    row = World(text, **settings).endpoints(target or web())
    return [f"{endpoint.address}:{endpoint.port}" for endpoint in row.endpoints]


def findings(text: str, **settings: bool) -> list[tuple[str, str]]:
    row = World(text, **settings).endpoints(web())
    assert all(str(finding.object) == "Service default/web" for finding in row.findings)
    return [(finding.code, finding.message) for finding in row.findings]


def test_endpoints_are_sorted_and_of_the_slices_port() -> None:
    assert addresses(service() + slices("10.0.0.2", "10.0.0.1")) == ["10.0.0.1:8080", "10.0.0.2:8080"]


@pytest.mark.parametrize("more", [", clusterIP: None", ", selector: {app: web}", ""])
def test_headless_and_selectorless_services_have_endpoints_too(more: str) -> None:
    assert addresses(service(more=more) + slices("10.0.0.1")) == ["10.0.0.1:8080"]


def test_several_slices_are_one_list_without_repetition() -> None:
    text = slices("10.0.0.1", "10.0.0.2", name="a") + slices("10.0.0.2", "10.0.0.3", name="b")
    assert addresses(service() + text) == ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]


def test_slices_of_other_services_do_not_count() -> None:
    assert addresses(service() + slices("10.0.0.1", of="else")) == []


def test_ports_are_matched_by_the_service_ports_name() -> None:
    text = service(
        ports="[{port: 80, name: http, targetPort: named}, {port: 81, name: admin, targetPort: 9}]"
    ) + slices("10.0.0.1", ports="[{name: admin, port: 9090}, {name: http, port: 8081}]")
    assert addresses(text) == ["10.0.0.1:8081"]
    assert addresses(text, web(81)) == ["10.0.0.1:9090"]


def test_a_slice_may_give_a_named_port_another_number_than_its_neighbour() -> None:
    ports = "[{port: 80, name: http, targetPort: named}]"
    text = "".join(
        slices(f"10.0.0.{number}", name=f"s{number}", ports=f"[{{name: http, port: 808{number}}}]") for number in (1, 2)
    )
    assert addresses(service(ports=ports) + text) == ["10.0.0.1:8081", "10.0.0.2:8082"]


def test_a_slice_without_the_port_gives_nothing() -> None:
    assert addresses(service(ports="[{port: 80, name: http}]") + slices("10.0.0.1")) == []
    assert addresses(service() + slices("10.0.0.1", ports="[{port: 8080, protocol: UDP}]")) == []


def test_a_slice_of_all_ports_means_the_target_port() -> None:
    assert addresses(service(ports="[{port: 80, targetPort: 8888}]") + slices("10.0.0.1", ports="[{}]")) == [
        "10.0.0.1:8888"
    ]
    named = service(ports="[{port: 80, targetPort: named}]")
    assert addresses(named + slices("10.0.0.1", ports="[{}]")) == ["10.0.0.1:80"]


def test_only_the_first_address_counts() -> None:
    assert addresses(service() + slices("{addresses: [10.0.0.1, 10.0.0.2]}")) == ["10.0.0.1:8080"]


READY = "{addresses: [10.0.0.1]}"
UNREADY = "{addresses: [10.0.0.2], conditions: {ready: false}}"
ENDING = "{addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}"
ENDED = "{addresses: [10.0.0.4], conditions: {ready: false, serving: false, terminating: true}}"


@pytest.mark.parametrize(
    ("endpoints", "used"),
    [
        ((READY, UNREADY, ENDING, ENDED), ["10.0.0.1:8080"]),
        ((UNREADY, ENDING, ENDED), ["10.0.0.3:8080"]),
        ((UNREADY, ENDED), []),
    ],
)
def test_ready_endpoints_else_those_that_still_serve(endpoints: tuple[str, ...], used: list[str]) -> None:
    assert addresses(service() + slices(*endpoints)) == used


def test_an_endpoint_ready_in_any_slice_is_ready() -> None:
    stale = "{addresses: [10.0.0.1], conditions: {ready: false}}"
    assert addresses(service() + slices(stale, name="a") + slices(READY, name="b")) == ["10.0.0.1:8080"]


def test_a_service_without_ready_endpoints_is_remarked() -> None:
    assert findings(service()) == [("MG2005", "port 80 has no ready endpoint")]
    assert findings(service() + slices("10.0.0.1")) == []


DUAL = slices("10.0.0.1", name="a") + slices("fd00::1", name="b", family="IPv6")


@pytest.mark.parametrize(
    ("families", "used"),
    [
        ("", ["10.0.0.1:8080", "fd00::1:8080"]),
        (", ipFamilies: [IPv4, IPv6]", ["10.0.0.1:8080"]),
        (", ipFamilies: [IPv6, IPv4]", ["fd00::1:8080"]),
    ],
)
def test_a_dual_stack_service_is_reached_by_its_preferred_family(families: str, used: list[str]) -> None:
    assert addresses(service(more=families) + DUAL) == used


def test_the_other_family_serves_when_the_preferred_has_nothing() -> None:
    text = service(more=", ipFamilies: [IPv6, IPv4]") + slices("10.0.0.1")
    assert addresses(text) == ["10.0.0.1:8080"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.9.1", "::1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"],
)
def test_addresses_of_the_proxys_machine_are_refused_in_clusters(address: str) -> None:
    family = "IPv6" if ":" in address else "IPv4"
    text = service() + slices(address, family=family)
    assert addresses(text) == []
    assert findings(text)[0] == ("MG2007", f"endpoints refused: {address}")
    assert len(addresses(text, loopback_endpoints=True)) == 1
    assert findings(text, loopback_endpoints=True) == []


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1%eth0", "localhost", "10.0.0.256"]
)
def test_what_is_no_host_address_is_refused_everywhere(address: str) -> None:
    text = service() + slices(address, family="IPv6" if ":" in address else "IPv4")
    assert addresses(text, loopback_endpoints=True) == []


def test_host_names_are_refused() -> None:
    text = service() + slices("a.example", "b.example", "c.example", "d.example", family="FQDN")
    assert findings(text) == [
        ("MG2007", "endpoints refused: a.example, b.example, c.example and 1 more"),
        ("MG2005", "port 80 has no ready endpoint"),
    ]


def test_one_refused_address_leaves_the_others() -> None:
    text = service() + slices("127.0.0.1", "10.0.0.1")
    assert addresses(text) == ["10.0.0.1:8080"]
    assert [code for code, _ in findings(text)] == ["MG2007"]


def test_addresses_are_canonical() -> None:
    text = service() + slices("FD00:0:0::0001", "::ffff:10.0.0.1", family="IPv6")
    assert addresses(text) == ["10.0.0.1:8080", "fd00::1:8080"]


def test_zones_come_from_slices_and_regions_from_nodes() -> None:
    labels = "{topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}"
    node = f"---\nkind: Node\nmetadata: {{name: n, labels: {labels}}}\n"
    endpoints = ("{addresses: [10.0.0.1], zone: own, nodeName: n}", "{addresses: [10.0.0.2], nodeName: n}")
    row = World(service() + node + slices(*endpoints, "{addresses: [10.0.0.3], nodeName: gone}")).endpoints(web())
    assert [(endpoint.region, endpoint.zone) for endpoint in row.endpoints] == [("r", "own"), ("r", "z"), ("", "")]


def workload(name: str, *, hbone: bool = True, identity: str = "spiffe://t/ns/n/sa/s") -> Workload:
    return Workload(pod=Key("default", name), addresses=("10.0.0.1",), identity=identity, hbone=hbone)


def reached(*workloads: Workload, mesh: bool = True) -> Endpoints:
    world = World(service() + slices("10.0.0.1"), mesh=mesh)
    world.commit({t.WORKLOADS: {row.pod: row for row in workloads}})
    return world.endpoints(web())


def tunnelled(*workloads: Workload, mesh: bool = True) -> Endpoint:
    (endpoint,) = reached(*workloads, mesh=mesh).endpoints
    return endpoint


def test_a_workload_of_the_mesh_is_reached_by_hbone() -> None:
    endpoint = tunnelled(workload("a"))
    assert (endpoint.hbone, endpoint.identity) == (True, "spiffe://t/ns/n/sa/s")


@pytest.mark.parametrize("workloads", [(), (workload("a", hbone=False),)])
def test_an_endpoint_outside_of_the_mesh_is_reached_as_it_is(workloads: tuple[Workload, ...]) -> None:
    assert tunnelled(*workloads) == Endpoint(address="10.0.0.1", port=8080)


@pytest.mark.parametrize(
    "workloads",
    [
        (workload("a", identity=""),),
        (workload("a"), workload("b", identity="spiffe://t/ns/n/sa/other")),
        (workload("a"), workload("b", identity="spiffe://t/ns/n/sa/other", hbone=False)),
    ],
)
def test_where_nobody_knows_who_is_there_no_identity_can_be_proved(workloads: tuple[Workload, ...]) -> None:
    row = reached(*workloads)
    assert [(endpoint.hbone, endpoint.identity) for endpoint in row.endpoints] == [(True, "")]
    assert codes(row.findings) == ["MG5006"]


def test_workloads_that_agree_about_the_identity_share_it() -> None:
    endpoint = tunnelled(workload("a"), workload("b"))
    assert (endpoint.hbone, endpoint.identity) == (True, "spiffe://t/ns/n/sa/s")


def test_gateways_outside_the_mesh_open_no_tunnels() -> None:
    assert not tunnelled(workload("a"), mesh=False).hbone


def test_a_refused_cluster_has_no_endpoints() -> None:
    policy = (
        "---\nkind: BackendTLSPolicy\nmetadata: {name: p, namespace: default}\nspec: {targetRefs: [{group: '', kind: "
        "Service, name: web}], validation: {hostname: x}}\n"
    )
    row = World(service() + slices("10.0.0.1") + policy).endpoints(web())
    assert (row.endpoints, row.findings) == ((), ())


def test_a_udp_route_shares_datagrams_by_weight() -> None:
    ports = "[{port: 53, protocol: UDP}]"
    udp = "[{port: 5353, protocol: UDP}]"
    world = World(
        service("a", ports=ports)
        + service("b", ports=ports)
        + slices("10.0.0.1", "10.0.0.2", name="a", of="a", ports=udp)
        + slices("10.0.0.3", name="b", of="b", ports=udp)
        + "---\nkind: UDPRoute\nmetadata: {name: r, namespace: default}\n"
        + "spec: {rules: [{backendRefs: [{name: a, port: 53, weight: 3}, {name: b, port: 53, weight: 1}]}]}\n"
    )
    listener = ListenerKey(GATEWAY, "Gateway", GATEWAY, "l")
    route = RouteKey("UDPRoute", "default", "r")
    world.commit(
        {
            t.LISTENERS: {listener: Listener(key=listener, port=53, protocol=Protocol.UDP, serving=True)},
            t.ATTACHMENTS: {(route, listener): Attachment(route=route, listener=listener)},
        }
    )
    ((_key, row),) = world.graph.rows(t.ENDPOINTS).items()
    weights = {endpoint.address: endpoint.weight for endpoint in row.endpoints}
    assert weights["10.0.0.1"] == weights["10.0.0.2"]
    assert (weights["10.0.0.1"] + weights["10.0.0.2"]) / weights["10.0.0.3"] == pytest.approx(3)
    delta = world.put(slices(name="a", of="a", ports=udp))
    assert codes(delta.changed(t.ENDPOINTS)[row.key][1].findings) == ["MG2005"]


def test_an_endpoint_in_two_groups_gets_both_shares() -> None:
    shared, alone = Endpoint(address="10.0.0.1", port=1), Endpoint(address="10.0.0.2", port=1)
    weights = {item.address: item.weight for item in share_out([([shared], 1), ([shared, alone], 1)])}
    assert weights["10.0.0.1"] / weights["10.0.0.2"] == pytest.approx(3)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 1_000_000)), max_size=16))
def test_shares_are_exact_enough_and_fit_envoy(groups: list[tuple[int, int]]) -> None:
    number = itertools.count()
    filled = [
        ([Endpoint(address=f"10.0.{next(number)}.1", port=1) for _ in range(size)], weight) for size, weight in groups
    ]
    weights = {item.address: item.weight for item in share_out(filled)}
    assert sum(weights.values()) < 2**32
    assert all(weight > 0 for weight in weights.values())
    total = sum(weight for endpoints, weight in filled if endpoints)
    for endpoints, weight in filled:
        share = sum(weights.get(endpoint.address, 0) for endpoint in endpoints)
        if endpoints and weight:
            assert share / sum(weights.values()) == pytest.approx(weight / total, rel=0.01, abs=1e-6)
        else:
            assert share == 0
