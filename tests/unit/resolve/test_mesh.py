"""Enrolment by labels, and what waypoints serve."""

from __future__ import annotations

import msgspec
import pytest

from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import Graph
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Settings
from meshgw.ir.mesh import AppProtocol, Enrolment, WaypointService
from meshgw.resolve import tables as t
from tests.rig.mesh import CLASS, WAYPOINT, feed, gateway, mesh_graph, pod, remove

SERVICE = Key("default", "echo")
BEHIND = "istio.io/use-waypoint: waypoint"


def service(
    labels: str = BEHIND,
    *,
    ports: str = "[{name: http, port: 80}]",
    spec: str = "clusterIP: 10.0.0.1",
    namespace: str = "default",
    name: str = "echo",
) -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}
spec: {{{spec}, ports: {ports}}}
"""


def namespace(labels: str, name: str = "default") -> str:
    return f"""
---
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{{labels}}}}}
"""


def route(name: str = "echo", *, namespace: str = "default", to: str = "default", port: str = "") -> str:
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: echo, namespace: {to}{port}}}]
  rules: [{{}}]
"""


def world(*texts: str, traffic: str = "service", admits: str = "All", **settings: object) -> Graph:
    chosen = Settings(**{"mesh": True, **settings})  # type: ignore[arg-type]
    return mesh_graph(CLASS + gateway(traffic=traffic, admits=admits) + "".join(texts), settings=chosen)


def bound(graph: Graph, key: Key = SERVICE, waypoint: Key = WAYPOINT) -> WaypointService | None:
    return graph.get(t.WAYPOINT_SERVICES, (waypoint, key))


def enrolment(graph: Graph, kind: str = "Service", key: Key = SERVICE) -> Enrolment | None:
    return graph.get(t.ENROLMENTS, (kind, key))


def findings(graph: Graph, kind: str = "Service", key: Key = SERVICE) -> list[str]:
    row = enrolment(graph, kind, key)
    return [finding.code for finding in row.findings] if row else []


def protocols(graph: Graph, key: Key = SERVICE) -> dict[int, AppProtocol]:
    row = bound(graph, key)
    assert row is not None
    return {port.port: port.protocol for port in row.ports}


# --- Labels --------------------------------------------------------------------------------------------------------


def test_a_service_with_the_label_is_behind_the_waypoint() -> None:
    graph = world(service())
    row = bound(graph)
    assert row is not None
    assert (row.hostname, row.addresses) == ("echo.default.svc.cluster.local", ("10.0.0.1",))
    assert findings(graph) == []


def test_a_service_without_label_is_behind_none() -> None:
    assert enrolment(world(service(""))) is None


def test_a_namespaces_label_holds_for_its_services() -> None:
    assert bound(world(namespace(BEHIND), service(""))) is not None


def test_none_opts_out_of_the_namespaces_waypoint() -> None:
    graph = world(namespace(BEHIND), service("istio.io/use-waypoint: none"))
    assert enrolment(graph) is None


def test_the_objects_own_label_beats_the_namespaces_without_fallback() -> None:
    graph = world(namespace(BEHIND), service("istio.io/use-waypoint: absent"))
    assert bound(graph) is None
    assert findings(graph) == ["MG5001"]


def test_the_waypoint_may_be_in_another_namespace() -> None:
    labels = f"{BEHIND}, istio.io/use-waypoint-namespace: default"
    graph = world(service(labels, namespace="other"))
    assert bound(graph, Key("other", "echo")) is not None


def test_a_namespace_label_may_name_another_namespaces_waypoint() -> None:
    labels = f"{BEHIND}, istio.io/use-waypoint-namespace: default"
    graph = world(namespace(labels, "other"), service("", namespace="other"))
    assert bound(graph, Key("other", "echo")) is not None


def test_a_namespace_that_the_listener_does_not_admit_is_refused() -> None:
    labels = f"{BEHIND}, istio.io/use-waypoint-namespace: default"
    graph = world(service(labels, namespace="other"), admits="Same")
    assert bound(graph, Key("other", "echo")) is None
    assert findings(graph, key=Key("other", "echo")) == ["MG5002"]


def test_admission_follows_the_listener() -> None:
    labels = f"{BEHIND}, istio.io/use-waypoint-namespace: default"
    graph = world(service(labels, namespace="other"), admits="Same")
    feed(graph, gateway(admits="All"))
    assert bound(graph, Key("other", "echo")) is not None


def test_without_an_hbone_listener_only_the_own_namespace_is_admitted() -> None:
    text = gateway().replace("protocol: HBONE", "protocol: TCP")
    labels = f"{BEHIND}, istio.io/use-waypoint-namespace: default"
    graph = mesh_graph(CLASS + text + service() + service(labels, namespace="other"), settings=Settings(mesh=True))
    assert bound(graph) is not None
    assert findings(graph, key=Key("other", "echo")) == ["MG5002"]


def test_a_gateway_that_is_no_waypoint_takes_nothing() -> None:
    graph = mesh_graph(CLASS + gateway(labels="meshgw.dev/role: ingress") + service())
    assert findings(graph) == ["MG5001"]
    assert bound(graph) is None


def test_another_controllers_waypoint_is_none_of_our_business() -> None:
    graph = mesh_graph(CLASS + gateway().replace("meshgw-waypoint", "istio-waypoint") + service())
    assert enrolment(graph) is None


def test_a_waypoint_that_appears_takes_the_services_that_wait_for_it() -> None:
    graph = mesh_graph(CLASS + service())
    assert findings(graph) == ["MG5001"]
    feed(graph, gateway())
    assert findings(graph) == []
    assert bound(graph) is not None
    remove(graph, t.GATEWAYS, WAYPOINT)
    assert bound(graph) is None


def test_the_waypoints_own_service_and_pods_are_not_behind_it() -> None:
    own = f"{BEHIND}, gateway.networking.k8s.io/gateway-name: waypoint"
    graph = world(service(own), pod("wp", "10.1.0.9", labels=f"{{{own}}}"), traffic="all")
    assert enrolment(graph) is None
    assert enrolment(graph, "Pod", Key("default", "wp")) is None


# --- What a waypoint is for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traffic", "takes_service", "takes_pod"),
    [("service", True, False), ("workload", False, True), ("all", True, True), ("none", False, False)],
)
def test_waypoint_for_decides_which_traffic_is_taken(*, traffic: str, takes_service: bool, takes_pod: bool) -> None:
    graph = world(service(), pod("app", "10.1.0.1", labels=f"{{{BEHIND}}}"), traffic=traffic)
    key = Key("default", "app")
    assert (bound(graph) is not None) is takes_service
    assert (graph.get(t.WAYPOINT_WORKLOADS, (WAYPOINT, key)) is not None) is takes_pod
    assert findings(graph) == ([] if takes_service else ["MG5003"])
    assert findings(graph, "Pod", key) == ([] if takes_pod else ["MG5003"])


def test_a_namespaces_label_does_not_complain_about_what_the_waypoint_is_not_for() -> None:
    graph = world(namespace(BEHIND), pod("app", "10.1.0.1"), traffic="service")
    assert enrolment(graph, "Pod", Key("default", "app")) is None


# --- Services ------------------------------------------------------------------------------------------------------


def test_a_headless_service_is_said_to_be_out_of_reach() -> None:
    graph = world(service(spec="clusterIP: None"))
    row = bound(graph)
    assert row is not None
    assert row.addresses == ()
    assert findings(graph) == ["MG5005"]


def test_an_external_name_is_never_served() -> None:
    graph = world(service(spec="type: ExternalName, externalName: example.com"))
    assert bound(graph) is None


def test_both_families_are_served_in_canonical_form() -> None:
    graph = world(service(spec='clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, "FD00:0:0::1"]'))
    row = bound(graph)
    assert row is not None
    assert row.addresses == ("10.0.0.1", "fd00::1")


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        ("{port: 80, name: http}", AppProtocol.HTTP),
        ("{port: 80, name: http-web}", AppProtocol.HTTP),
        ("{port: 80, name: HTTP2-web}", AppProtocol.HTTP),
        ("{port: 80, name: grpc-web}", AppProtocol.HTTP),
        ("{port: 80, name: web}", AppProtocol.TCP),
        ("{port: 80, name: tcp-http}", AppProtocol.TCP),
        ("{port: 80, name: httpish}", AppProtocol.TCP),
        ("{port: 80, name: http, appProtocol: tcp}", AppProtocol.TCP),
        ("{port: 80, name: db, appProtocol: kubernetes.io/h2c}", AppProtocol.HTTP),
        ("{port: 80, name: db, appProtocol: HTTP}", AppProtocol.HTTP),
        ("{port: 80, name: db, appProtocol: https}", AppProtocol.TCP),
    ],
)
def test_the_protocol_of_a_port_is_what_it_declares(port: str, protocol: AppProtocol) -> None:
    assert protocols(world(service(ports=f"[{port}]"))) == {80: protocol}


def test_udp_ports_are_not_served() -> None:
    graph = world(service(ports="[{name: dns, port: 53, protocol: UDP}, {name: http, port: 80}]"))
    assert protocols(graph) == {80: AppProtocol.HTTP}


def test_a_route_makes_an_undeclared_port_http() -> None:
    graph = world(service(ports="[{name: a, port: 80}, {name: b, port: 81}, {name: tcp-c, port: 82}]"))
    feed(graph, route(port=", port: 81"))
    assert protocols(graph) == {80: AppProtocol.TCP, 81: AppProtocol.HTTP, 82: AppProtocol.TCP}
    feed(graph, route())
    assert protocols(graph) == {80: AppProtocol.HTTP, 81: AppProtocol.HTTP, 82: AppProtocol.TCP}
    remove(graph, t.HTTP_ROUTES, SERVICE)
    assert protocols(graph) == {80: AppProtocol.TCP, 81: AppProtocol.TCP, 82: AppProtocol.TCP}


def test_a_route_of_another_namespace_changes_no_protocol() -> None:
    graph = world(service(ports="[{name: a, port: 80}]"), route(namespace="other"))
    assert protocols(graph) == {80: AppProtocol.TCP}


def test_a_services_edit_is_followed() -> None:
    graph = world(service())
    feed(graph, service(ports="[{name: tcp, port: 90}]"))
    assert protocols(graph) == {90: AppProtocol.TCP}


# --- Workloads -----------------------------------------------------------------------------------------------------


def workload(graph: Graph, name: str = "app") -> tuple[tuple[str, ...], str, bool] | None:
    row = graph.get(t.WORKLOADS, Key("default", name))
    return (row.addresses, row.identity, row.hbone) if row else None


def test_a_captured_pod_speaks_hbone_as_its_service_account() -> None:
    graph = world(pod("app", "10.1.0.1", account="backend"), trust_domain="td")
    assert workload(graph) == (("10.1.0.1",), "spiffe://td/ns/default/sa/backend", True)


def test_a_pod_that_is_not_captured_does_not_speak_hbone() -> None:
    assert workload(world(pod("app", "10.1.0.1", hbone=False))) == (
        ("10.1.0.1",),
        "spiffe://cluster.local/ns/default/sa/app",
        False,
    )


def test_a_pod_may_speak_hbone_by_itself() -> None:
    graph = world(pod("app", "10.1.0.1", hbone=False, labels='{networking.istio.io/tunnel: "legacy, http"}'))
    row = workload(graph)
    assert row is not None
    assert row[2]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_has_given_its_address_back(phase: str) -> None:
    assert workload(world(pod("app", "10.1.0.1").replace("Running", phase))) is None


def test_a_pod_on_its_nodes_network_has_no_address_of_its_own() -> None:
    graph = world(pod("app", "10.1.0.1").replace("containers:", "hostNetwork: true, containers:"))
    assert workload(graph) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0"])
def test_an_address_that_leads_to_the_proxy_or_its_machine_is_no_pods(address: str) -> None:
    assert workload(world(pod("app", address))) is None


def test_an_address_that_two_pods_claim_is_served_for_neither() -> None:
    graph = world(pod("one", "10.1.0.1", labels=f"{{{BEHIND}}}"), traffic="all")
    from meshgw.emit.tables import CONNECT_HOSTS

    assert list(graph.rows(CONNECT_HOSTS)) == [(WAYPOINT, "Pod", Key("default", "one"))]
    feed(graph, pod("two", "10.1.0.1", labels=f"{{{BEHIND}}}"))
    assert list(graph.rows(CONNECT_HOSTS)) == []
    remove(graph, t.PODS, Key("default", "two"))
    assert list(graph.rows(CONNECT_HOSTS)) == [(WAYPOINT, "Pod", Key("default", "one"))]


def test_an_address_that_two_services_claim_is_the_first_ones() -> None:
    graph = world(service(), service(name="zebra"))
    from meshgw.emit.tables import CONNECT_HOSTS

    assert list(graph.rows(CONNECT_HOSTS)) == [(WAYPOINT, "Service", SERVICE)]
    remove(graph, t.SERVICES, SERVICE)
    assert list(graph.rows(CONNECT_HOSTS)) == [(WAYPOINT, "Service", Key("default", "zebra"))]


# --- Findings ------------------------------------------------------------------------------------------------------


def test_a_finding_names_the_label_and_the_object() -> None:
    graph = world(service("istio.io/use-waypoint: absent"))
    row = enrolment(graph)
    assert row is not None
    assert row.findings == (
        Finding(
            code="MG5001",
            object=ObjectRef("Service", "default", "echo"),
            field="metadata.labels[istio.io/use-waypoint]",
            message="no Gateway default/absent",
        ),
    )


def test_a_waypoint_without_mesh_identity_says_so() -> None:
    graph = world(service(), mesh=False)
    row = graph.get(t.OUR_GATEWAYS, WAYPOINT)
    assert row is not None
    assert [finding.code for finding in row.findings] == ["MG5004"]
    feed(graph, gateway())
    graph.commit({t.SETTINGS: {t.SINGLE: Settings(mesh=True)}})
    row = graph.get(t.OUR_GATEWAYS, WAYPOINT)
    assert row is not None
    assert row.findings == ()


def test_the_order_of_input_changes_nothing() -> None:
    texts = [gateway(traffic="all"), service(), service(name="b", spec="clusterIP: 10.0.0.2"), namespace(BEHIND)]
    texts += [pod("app", "10.1.0.1", labels=f"{{{BEHIND}}}"), route()]
    one, other = mesh_graph(CLASS), mesh_graph(CLASS)
    for text in texts:
        feed(one, text)
    for text in reversed(texts):
        feed(other, text)
    for table in (t.ENROLMENTS, t.WAYPOINT_SERVICES, t.WAYPOINT_WORKLOADS, t.WORKLOADS, t.AUTHORIZATIONS):
        rows = [msgspec.to_builtins(list(graph.rows(table).items())) for graph in (one, other)]
        assert sorted(map(repr, rows[0])) == sorted(map(repr, rows[1]))
