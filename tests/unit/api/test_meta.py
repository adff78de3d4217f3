from __future__ import annotations

import pytest

from meshgw.api.http import HTTPRoute, HTTPRouteSpec
from meshgw.api.meta import Key, ObjectMeta, ObjectRef, wire_name


def test_a_reference_reads_as_kind_namespace_and_name() -> None:
    assert str(ObjectRef("HTTPRoute", "default", "reviews")) == "HTTPRoute default/reviews"
    assert str(ObjectRef("GatewayClass", "", "meshgw")) == "GatewayClass meshgw"
    assert ObjectRef("HTTPRoute", "default", "reviews").key == Key("default", "reviews")


def test_keys_sort_by_namespace_then_name() -> None:
    assert sorted([Key("b", "a"), Key("a", "b"), Key("a", "a")]) == [Key("a", "a"), Key("a", "b"), Key("b", "a")]


@pytest.mark.parametrize(
    ("attribute", "name"),
    [("from_", "from"), ("parent_refs", "parentRefs"), ("cluster_ips", "clusterIPs"), ("ip_blocks", "ipBlocks")],
)
def test_wire_names_follow_kubernetes(attribute: str, name: str) -> None:
    assert wire_name(attribute) == name


def test_objects_are_values() -> None:
    first = HTTPRoute(metadata=ObjectMeta(name="a", namespace="b", labels={"x": "y"}), spec=HTTPRouteSpec())
    second = HTTPRoute(metadata=ObjectMeta(name="a", namespace="b", labels={"x": "y"}), spec=HTTPRouteSpec())
    assert first == second
    assert first.key == Key("b", "a")
    assert first.metadata.generation == 1
    with pytest.raises(AttributeError):
        first.spec = HTTPRouteSpec()  # type: ignore[misc]  # what is tested
