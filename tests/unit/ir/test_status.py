"""Statuses as the API server would store them: defaults written out, conditions with words."""

from __future__ import annotations

from meshgw.api.gateway import ParentReference, RouteGroupKind
from meshgw.ir.status import (
    ClassStatus,
    Condition,
    GatewayStatus,
    ListenerStatus,
    ParentStatus,
    PolicyStatus,
    RouteStatus,
    document,
)

GROUP = "gateway.networking.k8s.io"
CONDITION = Condition(type="Accepted", status=False, reason="Invalid", observed_generation=3)
ENTRY = ParentStatus(parent_ref=ParentReference(name="gw", section_name="http"), controller_name="ours")


def test_conditions_are_written_as_the_api_words_them() -> None:
    (written,) = document(GatewayStatus(conditions=(CONDITION,)))["conditions"]
    assert written == {
        "type": "Accepted",
        "status": "False",
        "reason": "Invalid",
        "message": "",
        "observedGeneration": 3,
    }


def test_supported_kinds_have_their_group() -> None:
    listener = ListenerStatus(name="http", supported_kinds=(RouteGroupKind(kind="HTTPRoute"),), conditions=(CONDITION,))
    (written,) = document(GatewayStatus(listeners=(listener,)))["listeners"]
    assert written["supportedKinds"] == [{"group": GROUP, "kind": "HTTPRoute"}]
    assert written["attachedRoutes"] == 0
    assert written["conditions"][0]["status"] == "False"


def test_parent_references_have_their_defaults_and_nothing_that_was_not_given() -> None:
    (written,) = document(RouteStatus(parents=(ENTRY,)))["parents"]
    assert written["parentRef"] == {"group": GROUP, "kind": "Gateway", "name": "gw", "sectionName": "http"}
    assert written["controllerName"] == "ours"


def test_a_policy_has_ancestors_in_the_place_of_parents() -> None:
    (written,) = document(PolicyStatus(ancestors=(ENTRY,)))["ancestors"]
    assert written["ancestorRef"] == {"group": GROUP, "kind": "Gateway", "name": "gw", "sectionName": "http"}
    assert "parentRef" not in written


def test_a_class_names_its_features_in_objects() -> None:
    assert document(ClassStatus(supported_features=("Gateway",)))["supportedFeatures"] == [{"name": "Gateway"}]
