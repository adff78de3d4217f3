from __future__ import annotations

import pytest

from meshgw.api.meta import Key
from meshgw.kube.rows import Rows, is_older
from meshgw.kube.seen import Observed

A = Key("ns", "a")


def at(version: str, uid: str = "u1") -> Observed:
    return Observed(uid=uid, resource_version=version, generation=1)


@pytest.mark.parametrize(
    ("one", "other", "older"),
    [
        ("9", "10", True),
        ("10", "9", False),
        ("10", "10", False),
        ("9", "x", False),
        ("", "1", False),
        ("x", "y", False),
    ],
)
def test_versions_have_an_order_only_as_numbers(one: str, other: str, *, older: bool) -> None:
    assert is_older(one, other) is older


def test_repeated_and_overtaken_events_are_no_news() -> None:
    rows = Rows()
    assert rows.is_news(A, at("9"))
    rows.put(A, at("9"), good=True)
    assert not rows.is_news(A, at("9"))
    assert not rows.is_news(A, at("8"))
    assert rows.is_news(A, at("10"))
    assert not rows.is_news(A, at("8"), gone=True)
    assert rows.is_news(A, at("9"), gone=True)  # old servers give the last version of what is deleted


def test_what_is_gone_does_not_come_back_by_a_late_event() -> None:
    rows = Rows()
    rows.put(A, at("9"), good=True)
    assert rows.remove(A, "12")
    assert not rows.is_news(A, at("11"))
    assert not rows.is_news(A, at("12"), gone=True)
    assert rows.is_news(A, at("13", "u2"))
    rows.settle()
    assert rows.is_news(A, at("11"))


def test_late_events_of_another_incarnation_are_no_news() -> None:
    rows = Rows()
    rows.put(A, at("20", "u2"), good=True)
    assert not rows.is_news(A, at("15", "u1"), gone=True)
    assert not rows.is_news(A, at("14", "u1"))
    assert rows.is_news(A, at("25", "u3"))


def test_goodness_is_of_one_incarnation() -> None:
    rows = Rows()
    rows.put(A, at("1"), good=False)
    assert not rows.has_good(A, "u1")
    rows.put(A, at("2"), good=True)
    rows.put(A, at("3"), good=False)
    assert rows.has_good(A, "u1")
    assert not rows.has_good(A, "u2")
    rows.put(A, at("4", "u2"), good=False)
    assert not rows.has_good(A, "u2")


def test_lists_tell_what_is_missing_and_what_is_as_it_was() -> None:
    rows = Rows()
    rows.put(A, at("1"), good=True)
    rows.put(Key("ns", "b"), at("2"), good=True)
    assert rows.missing({A: None}) == [Key("ns", "b")]
    assert rows.is_listed(A, at("1"))
    assert not rows.is_listed(A, at("1", "u2"))
    assert not rows.is_listed(Key("ns", "c"), at("1"))


def test_memory_of_what_went_is_bounded() -> None:
    rows = Rows()
    for number in range(5000):
        rows.put(Key("ns", str(number)), at("1"), good=True)
        rows.remove(Key("ns", str(number)), "2")
    assert len(rows) == 0
    assert len(rows._removed) == 1000
