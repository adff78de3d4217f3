"""The objects of a Gateway as a whole, and how they come and go; golden cases show them in full."""

from __future__ import annotations

import pytest

from meshgw.api.meta import ObjectRef
from meshgw.emit.proxy import API_VERSIONS
from meshgw.emit.tables import PROXY_OBJECTS
from meshgw.resolve import tables as t
from tests.unit.emit.deployed import deploy, deploy_with, gateway, gateway_class, parameters, waypoint

USUAL = {"ServiceAccount", "ConfigMap", "Deployment", "Service"}


def test_all_objects_have_one_name_and_belong_to_the_gateway() -> None:
    found = deploy(gateway()).objects()
    assert set(found) == USUAL
    for kind, item in found.items():
        assert (item["kind"], item["apiVersion"]) == (kind, API_VERSIONS[kind])
        assert (item["metadata"]["namespace"], item["metadata"]["name"]) == ("default", "gw-meshgw")
        (owner,) = item["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Gateway", "gw", "uid-of-gw")


def test_the_account_is_the_one_whose_certificate_the_proxies_get() -> None:
    world = deploy(waypoint())
    (row,) = world.graph.rows(t.OUR_GATEWAYS).values()
    assert row.service_account == world.objects()["ServiceAccount"]["metadata"]["name"]
    assert row.service_account == world.pod()["spec"]["serviceAccountName"]


def test_nothing_is_made_standalone() -> None:
    world = deploy(gateway(), deploys=False)
    assert dict(world.graph.rows(PROXY_OBJECTS)) == {}
    assert dict(world.graph.rows(t.PROXY_PLANS)) == {}


def test_a_row_says_whose_it_is_and_its_version() -> None:
    rows = deploy(gateway()).graph.rows(PROXY_OBJECTS)
    row = rows[ObjectRef("Deployment", "default", "gw-meshgw")]
    assert (row.gateway, row.api_version) == (("default", "gw"), "apps/v1")


def test_another_listener_changes_the_service_and_nothing_else() -> None:
    world = deploy(gateway())
    before = world.objects()
    world.put(gateway(port=8080))
    after = world.objects()
    assert {kind for kind in before if before[kind] != after[kind]} == {"Service"}


def test_other_roots_change_the_config_map_and_nothing_else() -> None:
    before, after = (deploy(gateway(), xds_roots=roots).objects() for roots in ("a", "b"))
    assert {kind for kind in before if before[kind] != after[kind]} == {"ConfigMap"}
    assert after["ConfigMap"]["data"]["ca.crt"] == "b"


def test_another_discovery_service_replaces_the_pods() -> None:
    before, after = (deploy(gateway(), xds_address=f"{host}:1").objects() for host in ("a", "b"))
    assert {kind for kind in before if before[kind] != after[kind]} == {"ConfigMap", "Deployment"}


@pytest.mark.parametrize("name", ["gw", "other"])
def test_objects_go_with_their_gateway(name: str) -> None:
    world = deploy(gateway(), gateway("other"))
    world.remove(t.GATEWAYS, name)
    assert world.objects(name) == {}
    assert set(world.objects("other" if name == "gw" else "gw")) == USUAL


def test_bad_parameters_cost_only_their_own_gateway_its_changes() -> None:
    world = deploy(gateway(own=True), gateway("other"), parameters("{replicas: 2}"))
    before = world.objects("other")
    world.remove(t.GATEWAY_PARAMETERS, "own")
    assert world.plan().deploying == "held"
    assert world.objects("other") == before
    world.put(parameters("{replicas: 3}"))
    assert world.objects()["Deployment"]["spec"]["replicas"] == 3


def test_overlays_have_the_last_word_in_order() -> None:
    world = deploy(
        gateway_class(),
        parameters("{overlays: {service: {metadata: {labels: {a: class, b: class}}}}}", "all", "infra"),
        gateway(class_name="mine", own=True),
        parameters("{overlays: {service: {metadata: {labels: {b: own}}}}}"),
    )
    labels = world.objects()["Service"]["metadata"]["labels"]
    assert (labels["a"], labels["b"]) == ("class", "own")


def test_an_overlay_can_leave_out_the_disruption_budget() -> None:
    assert "PodDisruptionBudget" in deploy_with("{replicas: 2}").objects()
    left_out = deploy_with("{replicas: 2, overlays: {podDisruptionBudget: {$patch: delete}}}").objects()
    assert set(left_out) == USUAL


def test_an_overlay_of_the_bootstrap_replaces_the_pods() -> None:
    plain = deploy_with("{}").pod()["metadata"]["annotations"]
    other = deploy_with("{overlays: {configMap: {data: {envoy.json: '{}'}}}}").pod()["metadata"]["annotations"]
    assert plain["meshgw.dev/bootstrap"] != other["meshgw.dev/bootstrap"]
