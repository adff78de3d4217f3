"""Outputs: who emits what, and who wins a key that two emit."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from meshgw.engine.output import Output
from meshgw.engine.table import Store, Table


def output(*units: tuple[str, dict[str, str]]) -> tuple[Output, Store[Any, Any]]:
    store: Store[Any, Any] = Store(Table("rows"))
    made = Output(store)
    for unit, rows in units:
        made.settle(unit, rows)
    made.publish(1)
    return made, store


def test_rows_are_published_and_belong_to_their_unit() -> None:
    made, store = output(("a", {"a": "own"}), ("b", {"x": "one", "y": "two"}), ("c", {}))
    assert store.rows == {"a": "own", "x": "one", "y": "two"}
    assert [made.owner(key) for key in ("a", "x", "y", "absent")] == ["a", "b", "b", "absent"]
    assert [made.rows(unit) for unit in "abc"] == [{"a": "own"}, {"x": "one", "y": "two"}, {}]


def test_nothing_is_stored_for_a_unit_that_emits_its_own_key() -> None:
    made, _ = output(("a", {"a": "own"}))
    assert (made._keys, made._owners, made._claims) == ({}, {}, {})


def test_a_unit_that_moves_takes_its_old_rows_away() -> None:
    made, store = output(("a", {"a": "1", "x": "2"}))
    made.settle("a", {"y": "3", "x": "2"})
    assert made.publish(2).rows == {"a": ("1", None), "y": (None, "3")}
    made.settle("a", {"a": "4"})
    made.publish(3)
    assert store.rows == {"a": "4"}
    made.settle("a", {})
    made.publish(4)
    assert store.rows == {}
    assert (made._keys, made._owners) == ({}, {})


def test_equal_rows_are_not_published_again() -> None:
    made, _ = output(("a", {"a": "1"}))
    made.settle("a", {"a": "".join("1")})
    assert made.publish(2).rows == {}


CLAIMS = [("a", "from a"), ("k", "from k"), ("z", "from z")]


@pytest.mark.parametrize("order", list(itertools.permutations(CLAIMS)))
def test_the_smallest_unit_wins_whatever_the_order(order: list[tuple[str, str]]) -> None:
    made, store = output(*((unit, {"k": row}) for unit, row in order))
    assert store.rows == {"k": "from a"}
    assert made.owner("k") == "a"
    assert list(made.disputes(fresh=False)) == [("k", "a", ["k", "z"])]
    assert [made.rows(unit) for unit, _ in CLAIMS] == [{"k": row} for _, row in CLAIMS]


@pytest.mark.parametrize("order", list(itertools.permutations(CLAIMS)))
def test_the_next_one_succeeds_a_winner_that_leaves(order: list[tuple[str, str]]) -> None:
    made, store = output(*((unit, {"k": row}) for unit, row in order))
    left = [row for _, row in CLAIMS]
    for unit, row in CLAIMS:
        assert store.rows == {"k": row}
        left.remove(row)
        made.settle(unit, {})
        assert [losers for _, _, losers in made.disputes(fresh=True)] == ([["z"]] if len(left) > 1 else [])
        made.publish(2)
    assert store.rows == {}
    assert (made._keys, made._owners, made._claims) == ({}, {}, {})


def test_a_namesake_that_succeeded_can_leave_too() -> None:
    made, store = output(("a", {"k": "1"}), ("k", {"k": "2"}))
    for unit, left in (("a", {"k": "2"}), ("k", {})):
        made.settle(unit, {})
        made.publish(2)
        assert store.rows == left
    assert (made._keys, made._owners, made._claims) == ({}, {}, {})


def test_a_loser_that_leaves_changes_nothing() -> None:
    made, store = output(("a", {"k": "1"}), ("b", {"k": "2"}))
    made.settle("b", {"other": "2"})
    assert made.publish(2).rows == {"other": (None, "2")}
    assert made.owner("k") == "a"
    assert store.rows == {"k": "1", "other": "2"}


def test_a_key_handed_over_in_one_commit_is_not_disputed_either_way_round() -> None:
    for first, second in (("a", "b"), ("b", "a")):
        made, _ = output(("a", {"k": "1"}))
        rows: dict[str, dict[str, str]] = {"a": {}, "b": {"k": "2"}}
        made.settle(first, rows[first])
        made.settle(second, rows[second])
        assert list(made.disputes(fresh=True)) == []
        assert made.publish(2).rows == {"k": ("1", "2")}
        assert made.owner("k") == "b"
        assert made.rows("a") == {}


def test_a_key_withdrawn_by_a_stranger_is_not_taken_for_its_namesakes() -> None:
    made, _ = output(("b", {"a": "from b"}))
    made.settle("b", {})
    assert made.rows("a") == {}
    made.settle("a", {"a": "from a"})
    assert made.publish(2).rows == {"a": ("from b", "from a")}
    assert made.owner("a") == "a"


def test_a_claimant_can_change_its_row() -> None:
    made, store = output(("a", {"k": "1"}), ("b", {"k": "2"}))
    made.settle("b", {"k": "3"})
    assert made.publish(2).rows == {}
    made.settle("a", {"k": "4"})
    made.publish(3)
    assert store.rows == {"k": "4"}
    made.settle("a", {})
    made.publish(4)
    assert store.rows == {"k": "3"}


def test_disputes_are_fresh_until_they_are_published() -> None:
    made, _ = output(("a", {"k": "1"}), ("b", {"k": "2"}))
    assert list(made.disputes(fresh=True)) == []
    assert len(list(made.disputes(fresh=False))) == 1


def test_what_was_forgotten_is_not_published() -> None:
    made, store = output(("a", {"a": "1"}))
    made.settle("a", {"x": "2"})
    made.forget()
    assert made.rows("a") == {}
    assert made.publish(2).rows == {}
    assert store.rows == {"a": "1"}
