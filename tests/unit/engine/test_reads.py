"""Views: what they return, what they refuse and what they record."""

from __future__ import annotations

from typing import Any

import pytest

from meshgw.engine.reads import Tracker
from meshgw.engine.table import Store, Table, WiringError

PORTS: Table[str, int] = Table("ports", indexes={"number": lambda _key, row: (row,)})
LATER: Table[str, int] = Table("later")


def tracker() -> tuple[Tracker, Store[str, int]]:
    store = Store(PORTS)
    store.apply({"http": 80, "alt": 80, "https": 443}, 1)
    return Tracker("step", {PORTS: store}), store


def log(view: Tracker) -> list[tuple[str | None, Any]]:
    return [(read.watch.index, read.value) for read in view.log]


def test_reads_return_what_is_there_and_record_hits_and_misses() -> None:
    view, _ = tracker()
    assert view.get(PORTS, "http") == 80
    assert view.get(PORTS, "ftp") is None
    assert view.by(PORTS, "number", 80) == (("alt", 80), ("http", 80))
    assert view.by(PORTS, "number", 21) == ()
    assert view.all(PORTS) == (("alt", 80), ("http", 80), ("https", 443))
    assert log(view) == [(None, "http"), (None, "ftp"), ("number", 80), ("number", 21), ("*", None)]


def test_the_same_read_is_the_same_record() -> None:
    view, _ = tracker()
    for _ in range(2):
        view.get(PORTS, "http")
        view.by(PORTS, "number", 80)
    assert view.log[0] is view.log[2]
    assert view.log[1] is view.log[3]


def test_a_table_that_is_not_declared_before_the_step_cannot_be_read() -> None:
    view, _ = tracker()
    for read in (lambda: view.get(LATER, "x"), lambda: view.by(LATER, "y", "x"), lambda: view.all(LATER)):
        with pytest.raises(WiringError, match="step reads table later"):
            read()
    assert view.log == []


def test_an_index_that_does_not_exist_cannot_be_read() -> None:
    view, _ = tracker()
    with pytest.raises(WiringError, match="no index 'name'"):
        view.by(PORTS, "name", "x")


def test_what_changed_finds_its_readers_and_no_others() -> None:
    view, store = tracker()
    view.get(PORTS, "ftp")
    view.by(PORTS, "number", 21)
    view.by(PORTS, "number", 443)
    view.all(PORTS)
    for read, unit in zip(view.log, ("key", "value", "other", "whole"), strict=True):
        read.join(unit)
    changes = store.apply({"ftp": 21}, 9)
    assert [unit for watch in view.watches.values() for unit in watch.stale(changes, 9)] == ["key", "value", "whole"]
    assert [read.changed for read in view.log] == [9, 9, 0, 9]


def test_readers_join_and_leave_and_the_last_takes_the_record_away() -> None:
    view, store = tracker()
    view.get(PORTS, "http")
    [read], watch = view.log, view.watches[PORTS]
    for unit in ("a", "b", "c"):
        read.join(unit)
    changes = store.apply({"http": 8080}, 2)
    assert list(watch.stale(changes, 2)) == ["a", "b", "c"]
    read.leave("b")
    read.leave("a")
    assert list(watch.stale(changes, 3)) == ["c"]
    read.leave("c")
    assert watch.reads == {}


def test_a_sole_reader_is_kept_without_a_container() -> None:
    view, _ = tracker()
    view.get(PORTS, "http")
    [read] = view.log
    read.join(("a", "unit"))
    assert read.readers == ("a", "unit")
    read.leave(("a", "unit"))
    assert view.watches[PORTS].reads == {}
