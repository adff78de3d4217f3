"""A policy is one module and one line of the list, shown with the policy that docs/add-a-policy.md builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshgw import features
from meshgw.api.meta import Key, ObjectRef
from meshgw.diagnose.render import render_resolved
from meshgw.emit.resource import LISTENER, ROUTE_CONFIGURATION
from meshgw.emit.tables import CONFIG_FILTERS, FRAGMENTS, RESOURCES
from meshgw.engine import Delta, Graph
from meshgw.ir.keys import ResourceKey
from meshgw.pipeline import build_graph
from meshgw.protos import HttpRbacPerRoute, RouteConfiguration
from meshgw.resolve import tables as t
from meshgw.standalone.facts import read_text
from tests.unit.features.maintenance import MAINTENANCE, POLICIES

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: meshgw
  listeners: [{name: http, port: 80, protocol: HTTP}]
"""
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME}
spec:
  parentRefs: [{name: web}]
  hostnames: [NAME.example]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: else.example}}]}]
"""
POLICY = """
---
apiVersion: example.dev/v1
kind: MaintenancePolicy
metadata: {name: night}
spec: {targetRefs: [{kind: HTTPRoute, name: shop}, {kind: HTTPRoute, name: nowhere}]}
"""
WAYPOINT = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: meshgw-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: echo, labels: {istio.io/use-waypoint: web}}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
"""
ROUTES = ROUTE.replace("NAME", "shop") + ROUTE.replace("NAME", "blog")
WEB = Key("default", "web")


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line: the feature is on the list."""
    monkeypatch.setattr(features, "FEATURES", (*features.FEATURES, MAINTENANCE))


def start(text: str) -> Graph:
    batch, problems = read_text(text)
    assert problems == ()
    graph = build_graph()
    assert graph.commit(batch).faults == ()
    return graph


def closed(graph: Graph) -> set[str]:
    """The hosts whose routes the policy configures."""
    resource = graph.get(RESOURCES, ResourceKey(WEB, ROUTE_CONFIGURATION, "http/80"))
    assert resource is not None
    hosts = RouteConfiguration.FromString(resource.body).virtual_hosts
    return {
        host.name
        for host in hosts
        for route in host.routes
        if "example.maintenance" in route.typed_per_filter_config
        and route.typed_per_filter_config["example.maintenance"].Is(HttpRbacPerRoute.DESCRIPTOR)
    }


def changed(delta: Delta) -> set[str]:
    return {key.type_url for key in delta.changed(RESOURCES)}


@pytest.mark.usefixtures("listed")
def test_a_listed_feature_reads_its_kind_and_configures_the_routes_it_targets() -> None:
    graph = start(GATEWAY + ROUTES + POLICY)
    assert closed(graph) == {"shop.example"}


@pytest.mark.usefixtures("listed")
def test_a_policy_that_comes_and_goes_changes_routes_and_no_listener() -> None:
    graph = start(GATEWAY + ROUTES)
    assert closed(graph) == set()
    batch, _problems = read_text(POLICY)
    (policy,) = batch[POLICIES].items()
    assert changed(graph.commit({POLICIES: dict([policy])})) == {ROUTE_CONFIGURATION}
    assert closed(graph) == {"shop.example"}
    assert changed(graph.commit({POLICIES: {policy[0]: None}})) == {ROUTE_CONFIGURATION}
    assert closed(graph) == set()


def shut(graph: Graph, config: str = "http/80") -> bool:
    """Whether the policy configures the RouteConfiguration as a whole."""
    resource = graph.get(RESOURCES, ResourceKey(WEB, ROUTE_CONFIGURATION, config))
    assert resource is not None
    return "example.maintenance" in RouteConfiguration.FromString(resource.body).typed_per_filter_config


@pytest.mark.usefixtures("listed")
def test_a_policy_for_a_gateway_holds_for_its_whole_route_configuration_and_compiles_no_route_again() -> None:
    graph = start(GATEWAY + ROUTES)
    assert not shut(graph)
    batch, _problems = read_text(POLICY.replace("kind: HTTPRoute, name: nowhere", "kind: Gateway, name: web"))
    (policy,) = batch[POLICIES].items()
    delta = graph.commit({POLICIES: dict([policy])})
    assert changed(delta) == {ROUTE_CONFIGURATION}
    assert delta.recomputed[CONFIG_FILTERS.name] == 1
    assert delta.recomputed[FRAGMENTS.name] == 1  # of the route that the policy targets too
    assert shut(graph)
    assert closed(graph) == {"shop.example"}
    graph.commit({POLICIES: {policy[0]: None}})
    assert not shut(graph)


@pytest.mark.usefixtures("listed")
def test_a_policy_for_a_waypoint_holds_where_no_route_is_too() -> None:
    graph = start(WAYPOINT + POLICY.replace("kind: HTTPRoute, name: nowhere", "kind: Gateway, name: web"))
    assert shut(graph, "service/default/echo/80")


@pytest.mark.usefixtures("listed")
def test_another_route_does_not_ask_again_what_holds_for_all() -> None:
    graph = start(GATEWAY + ROUTES + POLICY)
    batch, _problems = read_text(ROUTE.replace("NAME", "news"))
    delta = graph.commit({t.HTTP_ROUTES: batch[t.HTTP_ROUTES]})
    assert changed(delta) == {ROUTE_CONFIGURATION}
    assert CONFIG_FILTERS.name not in delta.recomputed


@pytest.mark.usefixtures("listed")
def test_resolved_tables_are_rendered() -> None:
    graph = start(GATEWAY + ROUTES + POLICY)
    assert render_resolved(graph)["closed"] == {"default/night": {"targets": ["HTTPRoute/default/shop"]}}


@pytest.mark.usefixtures("listed")
def test_a_target_that_is_none_of_ours_is_a_finding() -> None:
    graph = start(GATEWAY + ROUTES + POLICY)
    found = [finding for finding in graph.rows(t.FINDINGS).values() if finding.object.kind == "MaintenancePolicy"]
    assert [(finding.object, finding.code, finding.field) for finding in found] == [
        (ObjectRef("MaintenancePolicy", "default", "night"), "MG4005", "spec.targetRefs[1]")
    ]


@pytest.mark.usefixtures("listed")
def test_its_filter_stands_in_every_chain() -> None:
    graph = start(GATEWAY)
    resource = graph.get(RESOURCES, ResourceKey(WEB, LISTENER, "tcp/80"))
    assert resource is not None
    assert b"example.maintenance" in resource.body


def test_without_the_line_the_kind_is_unknown() -> None:
    _batch, problems = read_text(POLICY)
    assert [problem.code for problem in problems] == ["MG9104"]


def test_the_documentation_shows_this_module() -> None:
    root = Path(__file__).parents[3]
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs/add-a-policy.md").read_text(), re.DOTALL)
    source = Path(__file__).with_name("maintenance.py").read_text()
    assert blocks
    for block in blocks:
        assert block.strip() in source
