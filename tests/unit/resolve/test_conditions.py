"""Conditions whose status and reason agree."""

from __future__ import annotations

from meshgw.api.meta import ObjectRef
from meshgw.resolve.conditions import Problem, fails, holds, is_true, ordered, verdict

PROBLEM = Problem("Invalid", "MG1008", "spec.a", "wrong")


def test_a_problem_decides_the_verdict() -> None:
    assert verdict("Accepted", 2, None) == holds("Accepted", 2)
    assert verdict("Accepted", 2, PROBLEM) == fails("Accepted", 2, reason="Invalid", message="wrong")


def test_the_reason_of_a_condition_that_holds_is_its_type_unless_another_is_given() -> None:
    assert holds("Accepted", 1).reason == "Accepted"
    assert holds("Accepted", 1, reason="ListenersNotValid").reason == "ListenersNotValid"


def test_conditions_are_in_order_of_type_and_found_by_it() -> None:
    found = ordered([holds("ResolvedRefs", 1), fails("Accepted", 1, reason="Invalid")])
    assert [condition.type for condition in found] == ["Accepted", "ResolvedRefs"]
    assert [is_true(found, kind) for kind in ("Accepted", "ResolvedRefs", "Programmed")] == [False, True, False]


def test_a_problem_is_a_finding_about_its_object() -> None:
    finding = PROBLEM.finding(ObjectRef("Gateway", "default", "gw"))
    assert (finding.code, finding.field, finding.message, finding.object.name) == ("MG1008", "spec.a", "wrong", "gw")
