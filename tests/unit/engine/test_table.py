"""Tables: rows, indexes, order and what counts as a change."""

from __future__ import annotations

import random
from typing import Any

import pytest

from meshgw.engine.table import WHOLE, Changes, Index, Store, Table, WiringError, fault_of, ordered

WORDS: Table[str, str] = Table("words", indexes={"letters": lambda _key, row: row})


def words(**rows: str) -> Store[str, str]:
    store = Store(WORDS)
    store.apply(rows, 1)
    return store


def found(store: Store[Any, Any], index: str, value: object) -> list[Any]:
    return [key for key, _ in store.select(index, value)]


def test_a_table_is_named_in_its_repr_and_equal_to_itself_alone() -> None:
    assert repr(WORDS) == "Table('words')"
    assert Table("words") != Table("words")


def test_rows_are_found_under_every_value_of_an_index_in_key_order() -> None:
    store = words(b="xy", a="x", c="")
    assert store.select("letters", "x") == (("a", "x"), ("b", "xy"))
    assert found(store, "letters", "y") == ["b"]
    assert found(store, "letters", "z") == []


def test_a_value_given_twice_files_a_row_once() -> None:
    assert found(words(a="xx"), "letters", "x") == ["a"]


def test_an_unknown_index_is_a_wiring_error() -> None:
    with pytest.raises(WiringError, match="no index 'lettres'"):
        words().select("lettres", "x")


def test_apply_returns_only_what_differs() -> None:
    store = words(a="x", b="y")
    changes = store.apply({"a": "x", "b": "z", "c": "n", "d": None}, 2)
    assert changes.rows == {"b": ("y", "z"), "c": (None, "n")}
    assert store.rows == {"a": "x", "b": "z", "c": "n"}


def test_nothing_changed_is_no_change() -> None:
    assert words(a="x").apply({"a": "x"}, 2) == Changes({}, {}, [])


def test_an_equal_row_keeps_the_first_object() -> None:
    store = Store(WORDS)
    old, new = str(b"word", "ascii"), str(b"word", "ascii")
    assert old is not new
    store.apply({"a": old}, 1)
    store.apply({"a": new}, 2)
    assert store.rows["a"] is old


def test_index_values_before_and_after_are_touched() -> None:
    store = words(a="xy")
    assert set(store.apply({"a": "yz"}, 2).touched["letters"]) == {"x", "y", "z"}
    assert found(store, "letters", "x") == []
    assert found(store, "letters", "z") == ["a"]
    assert set(store.apply({"a": None}, 3).touched["letters"]) == {"y", "z"}
    assert found(store, "letters", "y") == []


def test_a_change_that_leaves_the_index_values_touches_them() -> None:
    pairs: Table[str, tuple[str, int]] = Table("pairs", indexes={"first": lambda _key, row: (row[0],)})
    store = Store(pairs)
    store.apply({"a": ("x", 1)}, 1)
    assert store.apply({"a": ("x", 2)}, 2).touched == {"first": {"x": None}}


def test_the_whole_table_is_an_index_that_follows_from_when_it_is_first_asked_for() -> None:
    store = words(b="", a="")
    assert found(store, WHOLE, None) == ["a", "b"]
    store.apply({"c": "", "a": None}, 2)
    assert found(store, WHOLE, None) == ["b", "c"]


@pytest.mark.parametrize("edits", [1, 3, 60])
def test_keys_stay_sorted_however_many_come_and_go(edits: int) -> None:
    numbers: Table[int, str] = Table("numbers", indexes={"one": lambda _key, _row: ("x",)})
    store, rng = Store(numbers), random.Random(edits)
    for step in range(40):
        store.apply({rng.randrange(200): rng.choice(["row", None]) for _ in range(edits)}, step)
        assert found(store, "one", "x") == sorted(store.rows)


@pytest.mark.parametrize("many", [0, 20])
def test_keys_without_a_natural_order_are_in_the_order_of_their_text(many: int) -> None:
    keys: Table[tuple[str, str | None], str] = Table("keys", indexes={"one": lambda _key, _row: ("x",)})
    store = Store(keys)
    extra: list[tuple[str, str | None]] = [("b", str(n)) for n in range(10, 10 + many)]
    for key in [("a", "x"), *extra, ("a", None), ("a", "b")]:
        store.apply({key: "row"}, 1)
    assert found(store, "one", "x") == sorted(store.rows, key=repr)
    store.apply({("a", None): None}, 2)
    assert found(store, "one", "x") == sorted(k for k in store.rows)


def test_ordered_prefers_the_natural_order() -> None:
    assert ordered({10, 9}) == [9, 10]
    assert ordered([10, "9"]) == ["9", 10]


def failing(_key: str, row: str) -> tuple[str, ...]:
    return (row[0],)


FRAGILE: Table[str, str] = Table("fragile", indexes={"first": failing})


def test_an_index_that_raises_files_the_row_nowhere_and_is_a_fault() -> None:
    store = Store(FRAGILE)
    changes = store.apply({"b": "", "a": "", "c": "x"}, 1)
    assert [(fault.table, fault.key, type(fault.error)) for fault in changes.faults] == [
        ("fragile", "a", IndexError),
        ("fragile", "b", IndexError),
    ]
    assert store.faults() == changes.faults
    assert found(store, "first", "x") == ["c"]
    assert found(store, WHOLE, None) == ["a", "b", "c"]


def test_an_index_fault_ends_with_the_row_that_caused_it() -> None:
    store = Store(FRAGILE)
    store.apply({"a": "", "b": "", "c": ""}, 1)
    assert store.apply({"a": "x", "b": None}, 2).faults == []
    assert [fault.key for fault in store.faults()] == ["c"]
    assert found(store, "first", "x") == ["a"]


def test_an_unhashable_index_value_is_a_fault_too() -> None:
    unhashable: Any = [[]]
    index = Index(lambda _key, _row: unhashable, "odd")
    _, faults = index.update({"a": (None, "row")})
    assert [type(fault.error) for fault in faults] == [TypeError]


def test_a_fault_says_where_and_holds_no_traceback() -> None:
    try:
        failing("a", "")
    except IndexError as error:
        fault = fault_of("fragile", "a", error)
    assert fault.error.__traceback__ is None
    assert fault.where.startswith(__file__)
    assert fault_of("fragile", "a", ValueError("never raised")).where == ""


def test_stamps_say_which_commit_changed_a_row_last() -> None:
    store = words(a="x", b="x", c="x")
    store.apply({"a": "y", "b": None, "c": "x"}, 7)
    assert [store.stamp(key) for key in "abcd"] == [7, 0, 1, 0]
    store.apply({"b": "x"}, 8)
    assert store.stamp("b") == 8


def test_a_successor_keeps_equal_rows_and_their_stamps_and_returns_the_difference() -> None:
    former = words(a=str(b"word", "ascii"), b="x", c="x")
    former.apply({"b": "y", "d": "gone"}, 2)
    store = words(a=str(b"word", "ascii"), b="y", c="z", e="new")
    assert store.succeed(former, 5) == {"c": ("x", "z"), "d": ("gone", None), "e": (None, "new")}
    assert store.rows["a"] is former.rows["a"]
    assert [store.stamp(key) for key in "abcde"] == [1, 2, 5, 0, 5]


def test_a_successor_in_the_first_commit_has_no_stamps() -> None:
    store = words(a="x")
    store.succeed(Store(WORDS), 1)
    assert store.stamps == {}
