"""Statuses from the resolved rows of a whole graph."""

from __future__ import annotations

from typing import Any

import pytest

from meshgw.api.gateway import ParentReference
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import Graph
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.gateway import Binding, IdentityProblem, Settings
from meshgw.ir.status import document
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from meshgw.resolve.conditions import holds
from meshgw.resolve.status import FEATURES, policy_status
from meshgw.standalone.facts import read_text
from tests.unit.emit.deployed import deploy

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, generation: 3, labels: {%s}}
spec:
  gatewayClassName: meshgw
  listeners: [%s]
---
"""
HTTP = "{name: http, port: 80, protocol: HTTP}"
ODD = "{name: odd, port: 81, protocol: SCTP}"
WAYPOINT = "meshgw.dev/role: waypoint"
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route}
spec:
  parentRefs: [{name: gw, sectionName: http}, {name: gw, sectionName: none}]
  rules: [{backendRefs: [{name: absent, port: 80}]}]
"""
BOUND = Binding(addresses=("127.0.0.1",))


def gateway(*listeners: str, labels: str = "") -> str:
    return GATEWAY % (labels, ", ".join(listeners))


def build(text: str, *, binding: Binding = BOUND, mesh: bool = True) -> Graph:
    batch, problems = read_text(text)
    assert problems == ()
    graph = build_graph()
    settings = {t.SINGLE: Settings(mesh=mesh)}
    graph.commit({**batch, t.SETTINGS: settings, t.BINDINGS: {Key("default", "gw"): binding}})
    return graph


def status(graph: Graph, kind: str = "Gateway", name: str = "gw", namespace: str = "default") -> dict[str, Any]:
    found = graph.get(t.STATUSES, ObjectRef(kind, namespace, name))
    assert found is not None
    return document(found)


def shown(conditions: list[dict[str, Any]]) -> dict[str, str]:
    return {item["type"]: f"{item['status']}/{item['reason']}" for item in conditions}


@pytest.mark.parametrize(
    ("listeners", "accepted", "programmed"),
    [
        ((HTTP,), "True/Accepted", "True/Programmed"),
        ((HTTP, ODD), "True/ListenersNotValid", "True/Programmed"),
        ((ODD,), "False/ListenersNotValid", "False/Invalid"),
    ],
)
def test_listeners_have_their_say_in_the_gateways_conditions(
    listeners: tuple[str, ...], accepted: str, programmed: str
) -> None:
    conditions = shown(status(build(gateway(*listeners)))["conditions"])
    assert (conditions["Accepted"], conditions["Programmed"]) == (accepted, programmed)


def test_a_waypoints_implied_listener_is_a_good_one() -> None:
    graph = build(gateway(HTTP, labels=WAYPOINT))
    assert shown(status(graph)["conditions"])["Accepted"] == "True/ListenersNotValid"
    assert "MG1010" not in {finding.code for finding in graph.rows(t.FINDINGS).values()}


def test_a_waypoint_without_an_identity_is_not_programmed() -> None:
    declared = "{name: mesh, port: 15008, protocol: HBONE}"
    assert shown(status(build(gateway(declared, labels=WAYPOINT)))["conditions"])["Programmed"] == "True/Programmed"
    bare = build(gateway(declared, labels=WAYPOINT), mesh=False)
    assert shown(status(bare)["conditions"])["Programmed"] == "False/Pending"


@pytest.mark.parametrize(
    ("binding", "reason", "addresses"),
    [
        (Binding(), "AddressNotAssigned", []),
        (Binding(unusable=("198.51.100.1",)), "AddressNotUsable", []),
        (BOUND, "Programmed", [{"type": "IPAddress", "value": "127.0.0.1"}]),
        (Binding(addresses=("::1", "gw.example")), "Programmed", ["IPAddress", "Hostname"]),
        (Binding(addresses=("::1",), pending="no pod"), "Pending", ["IPAddress"]),
        (Binding(pending="no pod"), "AddressNotAssigned", []),
        (Binding(pending="quota", pending_reason="NoResources"), "NoResources", []),
    ],
)
def test_addresses_are_those_that_are_bound(binding: Binding, reason: str, addresses: list[Any]) -> None:
    found = status(build(gateway(HTTP), binding=binding))
    assert shown(found["conditions"])["Programmed"].endswith(reason)
    assert [item if item in addresses else item["type"] for item in found.get("addresses", [])] == addresses


ACCOUNT = Key("default", "gw")


@pytest.mark.parametrize(
    ("labels", "problem", "identity", "programmed"),
    [
        ("", None, None, "True/Programmed"),
        ("", IdentityProblem(code="UNAVAILABLE", message="no istiod"), "False/Unavailable", "True/Programmed"),
        (WAYPOINT, IdentityProblem(code="CSR_ERROR", message="no istiod"), "False/CsrError", "False/Pending"),
        (WAYPOINT, IdentityProblem(code="UNKNOWN", message="", ends="2026-01-01"), "False/Unknown", "True/Programmed"),
    ],
)
def test_a_gateway_that_gets_no_certificate_says_so(
    labels: str, problem: IdentityProblem | None, identity: str | None, programmed: str
) -> None:
    graph = build(gateway(HTTP, labels=labels))
    graph.commit({t.IDENTITY_PROBLEMS: {ACCOUNT: problem}})
    found = shown(status(graph)["conditions"])
    assert (found.get("meshgw.dev/MeshIdentity"), found["Programmed"]) == (identity, programmed)
    if problem is not None:
        (message,) = (c["message"] for c in status(graph)["conditions"] if c["type"] == "meshgw.dev/MeshIdentity")
        assert ("ends at 2026-01-01" in message) is bool(problem.ends)


def test_in_a_cluster_a_certificate_is_a_condition_too() -> None:
    graph = build(gateway(HTTP))
    graph.commit({t.SETTINGS: {t.SINGLE: Settings(mesh=True, deploys=True)}})
    account = graph.rows(t.OUR_GATEWAYS)[ACCOUNT].service_account
    assert "meshgw.dev/MeshIdentity" not in shown(status(graph)["conditions"])
    row = WorkloadCertificate(chain=b"", key=b"", roots=b"")
    graph.commit({t.WORKLOAD_CERTIFICATES: {Key("default", account): row}})
    assert shown(status(graph)["conditions"])["meshgw.dev/MeshIdentity"] == "True/Issued"


def test_every_condition_has_the_generation_of_its_object() -> None:
    graph = build(gateway(HTTP) + ROUTE)
    found = status(graph)
    conditions = [*found["conditions"], *found["listeners"][0]["conditions"]]
    assert {item["observedGeneration"] for item in conditions} == {3}
    parents = status(graph, "HTTPRoute", "route")["parents"]
    assert {item["observedGeneration"] for parent in parents for item in parent["conditions"]} == {1}


def test_a_route_has_an_entry_for_each_parent_with_its_references_judged_alike() -> None:
    good, bad = status(build(gateway(HTTP) + ROUTE), "HTTPRoute", "route")["parents"]
    assert shown(good["conditions"]) == {"Accepted": "True/Accepted", "ResolvedRefs": "False/BackendNotFound"}
    assert shown(bad["conditions"]) == {"Accepted": "False/NoMatchingParent", "ResolvedRefs": "False/BackendNotFound"}
    assert bad["parentRef"]["sectionName"] == "none"


def test_a_class_lists_its_features_in_order() -> None:
    found = status(build(gateway(HTTP)), "GatewayClass", "meshgw", "")
    assert [feature["name"] for feature in found["supportedFeatures"]] == sorted(FEATURES)
    assert len(found["supportedFeatures"]) <= 64


def test_infrastructure_is_propagated_where_there_is_some() -> None:
    found = [
        {*deploy(deploys=deploys).graph.rows(t.STATUSES)[ObjectRef("GatewayClass", "", "meshgw")].supported_features}
        for deploys in (True, False)
    ]
    assert found[0] - found[1] == {"GatewayInfrastructurePropagation"}
    assert found[1] - found[0] == set()


def test_a_policy_names_us_for_each_of_its_first_sixteen_ancestors() -> None:
    ancestors = [(ParentReference(name=f"gw{number}"), (holds("Accepted", 1),)) for number in range(20)]
    graph = build_graph()
    built = document(policy_status(graph, ancestors))["ancestors"]
    assert [entry["ancestorRef"]["name"] for entry in built] == [f"gw{number}" for number in range(16)]
    assert {entry["controllerName"] for entry in built} == {Settings().controller_name}
    graph.commit({t.SETTINGS: {t.SINGLE: Settings(controller_name="example.dev/own")}})
    assert document(policy_status(graph, ancestors[:1]))["ancestors"][0]["controllerName"] == "example.dev/own"
