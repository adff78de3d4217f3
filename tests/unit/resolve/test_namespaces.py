from __future__ import annotations

import pytest

from meshgw.api.meta import LabelSelector, LabelSelectorRequirement
from meshgw.ir.gateway import AllowedNamespaces
from meshgw.resolve import tables as t
from meshgw.resolve.namespaces import admits, allowed, labels, selects
from tests.unit.resolve.graph import change, resolve

LABELS = {"team": "a", "tier": ""}


@pytest.mark.parametrize(
    ("key", "operator", "values", "expected"),
    [
        ("team", "In", ("a", "b"), True),
        ("team", "In", ("b",), False),
        ("other", "In", ("a",), False),
        ("team", "NotIn", ("b",), True),
        ("team", "NotIn", ("a",), False),
        ("other", "NotIn", ("a",), True),
        ("tier", "Exists", (), True),
        ("other", "Exists", (), False),
        ("tier", "DoesNotExist", (), False),
        ("other", "DoesNotExist", (), True),
        ("team", "Gt", ("a",), False),
    ],
)
def test_expressions(key: str, operator: str, values: tuple[str, ...], expected: bool) -> None:  # noqa: FBT001
    expression = LabelSelectorRequirement(key=key, operator=operator, values=values)
    assert selects(LabelSelector(match_expressions=(expression,)), LABELS) is expected


def test_all_labels_and_expressions_must_match() -> None:
    exists = LabelSelectorRequirement(key="tier", operator="Exists")
    assert selects(LabelSelector(), {})
    assert selects(LabelSelector(match_labels={"team": "a"}, match_expressions=(exists,)), LABELS)
    assert not selects(LabelSelector(match_labels={"team": "b"}, match_expressions=(exists,)), LABELS)
    assert not selects(LabelSelector(match_labels={"team": "a", "none": ""}), LABELS)


def test_a_selector_is_read_from_what_the_listener_keeps() -> None:
    graph = resolve("{kind: Namespace, metadata: {name: here, labels: {team: a}}}")
    rule = allowed("Selector", LabelSelector(match_labels={"team": "a"}))
    assert admits(graph, rule, owner="x", namespace="here")
    assert not admits(graph, rule, owner="here", namespace="there")
    change(graph, "{kind: Namespace, metadata: {name: there, labels: {team: a}}}")
    assert admits(graph, rule, owner="here", namespace="there")


def test_a_namespace_that_is_not_declared_can_be_selected_by_name() -> None:
    graph = resolve("")
    assert labels(graph, "ghost") == {"kubernetes.io/metadata.name": "ghost"}
    rule = allowed("Selector", LabelSelector(match_labels={"kubernetes.io/metadata.name": "ghost"}))
    assert admits(graph, rule, owner="x", namespace="ghost")


@pytest.mark.parametrize(
    ("rule", "same", "other"),
    [
        (AllowedNamespaces(source="Same"), True, False),
        (AllowedNamespaces(source="All"), True, True),
        (AllowedNamespaces(source="None"), False, False),
        (allowed("Selector", None), False, False),
        (allowed("Selector", LabelSelector()), True, True),
        (AllowedNamespaces(source="Whatever"), False, False),
    ],
)
def test_sources(rule: AllowedNamespaces, same: bool, other: bool) -> None:  # noqa: FBT001
    graph = resolve("")
    assert admits(graph, rule, owner="a", namespace="a") is same
    assert admits(graph, rule, owner="a", namespace="b") is other
    assert not graph.rows(t.NAMESPACES)


def test_a_selector_beside_another_source_is_ignored() -> None:
    assert allowed("All", LabelSelector(match_labels={"a": "b"})) == AllowedNamespaces(source="All")
