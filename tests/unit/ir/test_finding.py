"""Findings sort in one order, however they were found."""

from __future__ import annotations

from itertools import permutations

from meshgw.api.meta import ObjectRef
from meshgw.ir.finding import Finding, Level


def finding(name: str, code: str, field: str = "") -> Finding:
    return Finding(code=code, object=ObjectRef("Gateway", "default", name), field=field, message="m")


def test_they_sort_by_object_then_code_then_field() -> None:
    ordered = [finding("a", "MG1002"), finding("b", "MG1001"), finding("b", "MG1001", "spec"), finding("b", "MG1002")]
    for order in permutations(ordered):
        assert sorted(order, key=lambda item: item.sort_key) == ordered


def test_levels_read_as_words() -> None:
    assert [level.value for level in Level] == ["error", "warning", "info"]
