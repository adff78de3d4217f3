"""Steps: what they are run for, what they emit and what becomes of their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from meshgw.engine import Derived, DuplicateKeyError, Fault, Graph, Group, Table, Union, View
from meshgw.engine.derived import Members

ROUTES: Table[str, tuple[str, ...]] = Table("routes", indexes={"service": lambda _key, row: row})
SERVICES: Table[str, int] = Table("services", indexes={"port": lambda _key, row: (row,)})
OUT: Table[str, Any] = Table("out")

Pairs = Iterable[tuple[str, Any]]


def ports(view: View, key: str, row: tuple[str, ...]) -> Pairs:
    yield key, tuple(view.get(SERVICES, name) for name in row)


def graph(*steps: Any, incremental: bool = True) -> Graph:
    return Graph(sources=[ROUTES, SERVICES], steps=steps, incremental=incremental)


def routes_to_ports() -> Graph:
    made = graph(Derived(OUT, source=ROUTES, fn=ports))
    made.commit({ROUTES: {"r1": ("a",), "r2": ("a", "b"), "r3": ("c",)}, SERVICES: {"a": 1, "b": 2}})
    return made


def faults(found: Iterable[Fault]) -> list[tuple[str, Any, str]]:
    return [(fault.table, fault.key, f"{type(fault.error).__name__}: {fault.error}") for fault in found]


class TestDerived:
    def test_each_source_row_gives_its_rows(self) -> None:
        assert routes_to_ports().rows(OUT) == {"r1": (1,), "r2": (1, 2), "r3": (None,)}

    def test_only_readers_of_what_changed_run_again(self) -> None:
        made = routes_to_ports()
        delta = made.commit({SERVICES: {"b": 3}})
        assert delta.recomputed == {"out": 1}
        assert delta.changed(OUT) == {"r2": ((1, 2), (1, 3))}

    def test_a_miss_is_a_read(self) -> None:
        made = routes_to_ports()
        assert made.commit({SERVICES: {"c": 9}}).changed(OUT) == {"r3": ((None,), (9,))}

    def test_a_deleted_row_takes_its_output_and_its_reads_away(self) -> None:
        made = routes_to_ports()
        assert made.commit({ROUTES: {"r2": None}}).changed(OUT) == {"r2": ((1, 2), None)}
        assert made.commit({SERVICES: {"b": 3}}).recomputed == {}

    def test_reads_no_longer_made_run_nothing(self) -> None:
        made = routes_to_ports()
        made.commit({ROUTES: {"r2": ("b", "c", "c"), "r3": ()}})
        assert made.commit({SERVICES: {"a": 5}}).recomputed == {"out": 1}
        assert made.commit({SERVICES: {"c": 5}}).changed(OUT) == {"r2": ((2, None, None), (2, 5, 5))}
        assert made.commit({SERVICES: {"b": None}}).changed(OUT) == {"r2": ((2, 5, 5), (None, 5, 5))}

    def test_an_index_value_is_tracked_before_and_after(self) -> None:
        def names(view: View, key: str, row: int) -> Pairs:
            return [(key, [name for name, _ in view.by(ROUTES, "service", key)])]

        made = graph(Derived(OUT, source=SERVICES, fn=names))
        made.commit({SERVICES: {"a": 1, "b": 2, "c": 3}, ROUTES: {"r": ("a",), "s": ("a", "c")}})
        assert made.rows(OUT) == {"a": ["r", "s"], "b": [], "c": ["s"]}
        delta = made.commit({ROUTES: {"r": ("b",)}})
        assert delta.changed(OUT) == {"a": (["r", "s"], ["s"]), "b": ([], ["r"])}
        assert delta.recomputed == {"out": 2}

    def test_a_whole_table_is_tracked(self) -> None:
        made = graph(Derived(OUT, source=ROUTES, fn=lambda view, key, _row: [(key, len(view.all(SERVICES)))]))
        made.commit({ROUTES: {"r": ()}})
        assert made.commit({SERVICES: {"a": 1}}).changed(OUT) == {"r": (0, 1)}
        assert made.commit({SERVICES: {"a": None}}).changed(OUT) == {"r": (1, 0)}

    def test_an_equal_output_stops_there(self) -> None:
        parity: Table[str, int] = Table("parity")
        made = graph(
            Derived(parity, source=SERVICES, fn=lambda _view, key, row: [(key, row % 2)]),
            Derived(OUT, source=parity, fn=lambda _view, key, row: [(key, row)]),
        )
        made.commit({SERVICES: {"a": 1}})
        delta = made.commit({SERVICES: {"a": 3}})
        assert delta.recomputed == {"parity": 1}
        assert delta.tables == (SERVICES,)

    def test_none_is_no_row(self) -> None:
        made = graph(Derived(OUT, source=SERVICES, fn=lambda _view, key, row: [(key, None), (key + "2", row)]))
        made.commit({SERVICES: {"a": 1}})
        assert made.rows(OUT) == {"a2": 1}


class TestGroup:
    @staticmethod
    def group(seen: list[tuple[str, list[str]]] | None = None) -> Graph:
        def build(_view: View, name: str, members: Mapping[str, tuple[str, ...]]) -> Pairs:
            if seen is not None:
                seen.append((name, list(members)))
            return [(name, "+".join(members))]

        made = graph(Group(OUT, source=ROUTES, by=lambda _key, row: row, fn=build))
        made.commit({ROUTES: {"s": ("a", "b"), "r": ("a",), "t": ("c",), "u": ()}})
        return made

    def test_members_gather_under_every_key_they_name_in_order(self) -> None:
        assert self.group().rows(OUT) == {"a": "r+s", "b": "s", "c": "t"}

    def test_only_groups_that_a_row_was_or_is_in_run_again(self) -> None:
        seen: list[tuple[str, list[str]]] = []
        made = self.group(seen)
        seen.clear()
        delta = made.commit({ROUTES: {"s": ("a", "d")}})
        assert sorted(seen) == [("a", ["r", "s"]), ("d", ["s"])]
        assert delta.changed(OUT) == {"b": ("s", None), "d": (None, "s")}

    def test_a_group_is_gone_with_its_last_member(self) -> None:
        made = self.group()
        assert made.commit({ROUTES: {"t": None}}).changed(OUT) == {"c": ("t", None)}

    def test_a_group_can_read_other_tables(self) -> None:
        made = graph(
            Group(
                OUT,
                source=ROUTES,
                by=lambda _key, row: row,
                fn=lambda view, name, _m: [(name, view.get(SERVICES, name))],
            )
        )
        made.commit({ROUTES: {"r": ("a", "b")}})
        assert made.commit({SERVICES: {"b": 2}}).changed(OUT) == {"b": (None, 2)}
        assert made.commit({SERVICES: {"b": 3}}).recomputed == {"out": 1}

    def test_a_row_for_which_by_fails_is_in_no_group_and_the_others_are(self) -> None:
        made = graph(
            Group(
                OUT,
                source=ROUTES,
                by=lambda _key, row: (row[0],),
                fn=lambda _view, name, members: [(name, len(members))],
            )
        )
        delta = made.commit({ROUTES: {"r": (), "s": ("a",)}})
        assert faults(delta.faults) == [("out", "r", "IndexError: tuple index out of range")]
        assert made.faults == delta.faults
        assert made.rows(OUT) == {"a": 1}
        assert made.commit({ROUTES: {"r": ("a",)}}).changed(OUT) == {"a": (1, 2)}
        assert made.faults == ()


class TestUnion:
    @staticmethod
    def union() -> Graph:
        made = graph(Union(OUT, sources=[SERVICES, ROUTES], fn=lambda _view, name, key, row: [(key, (name, row))]))
        made.commit({ROUTES: {"r": ("a",)}, SERVICES: {"a": 1}})
        return made

    def test_rows_of_all_sources_come_with_the_name_of_theirs(self) -> None:
        assert self.union().rows(OUT) == {"r": ("routes", ("a",)), "a": ("services", 1)}

    def test_a_row_that_goes_takes_its_output_away(self) -> None:
        assert self.union().commit({ROUTES: {"r": None}}).changed(OUT) == {"r": (("routes", ("a",)), None)}

    def test_the_earlier_source_wins_a_key_that_both_emit(self) -> None:
        made = self.union()
        delta = made.commit({ROUTES: {"a": ("x",)}})
        assert made.get(OUT, "a") == ("services", 1)
        assert faults(delta.faults) == [
            ("out", ("routes", "a"), "DuplicateKeyError: 'a' is emitted by ('services', 'a') too, which comes first")
        ]
        assert made.commit({SERVICES: {"a": None}}).changed(OUT) == {"a": (("services", 1), ("routes", ("x",)))}
        assert made.faults == ()


def by_port(_view: View, key: str, row: int) -> Pairs:
    yield str(row), key


class TestDuplicates:
    @pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
    def test_the_smallest_source_key_wins_whatever_the_order(self, order: tuple[str, ...]) -> None:
        made = graph(Derived(OUT, source=SERVICES, fn=by_port))
        delta = made.commit({SERVICES: dict.fromkeys(order, 80)})
        assert made.rows(OUT) == {"80": "a"}
        assert faults(delta.faults) == [
            ("out", loser, "DuplicateKeyError: '80' is emitted by 'a' too, which comes first") for loser in ("b", "c")
        ]

    def test_the_next_succeeds_without_running_again(self) -> None:
        made = graph(Derived(OUT, source=SERVICES, fn=by_port))
        made.commit({SERVICES: {"a": 80, "b": 80}})
        delta = made.commit({SERVICES: {"a": None}})
        assert delta.changed(OUT) == {"80": ("a", "b")}
        assert (delta.recomputed, made.faults) == ({}, ())

    def test_a_fault_stands_until_the_duplicate_is_gone(self) -> None:
        made = graph(Derived(OUT, source=SERVICES, fn=by_port))
        made.commit({SERVICES: {"a": 80, "b": 80}})
        assert made.commit({SERVICES: {"c": 81}}).faults == ()
        assert [fault.key for fault in made.faults] == ["b"]
        made.commit({SERVICES: {"b": 82}})
        assert made.faults == ()

    def test_of_two_rows_one_unit_emits_under_one_key_the_first_counts(self) -> None:
        made = graph(Derived(OUT, source=SERVICES, fn=lambda _view, key, row: [(key, row), (key, "second")]))
        delta = made.commit({SERVICES: {"a": 1}})
        assert made.rows(OUT) == {"a": 1}
        assert [type(fault.error) for fault in delta.faults] == [DuplicateKeyError]


def fragile(view: View, key: str, row: int) -> Pairs:
    if row < (view.get(SERVICES, "limit") or 0):
        raise ValueError(f"{row} is too small")
    yield key, row


def fragile_graph(**options: Any) -> Graph:
    fn: Callable[..., Pairs] = fragile
    made = graph(Derived(OUT, source=SERVICES, fn=fn, **options))
    made.commit({SERVICES: {"a": 1, "b": 2}})
    return made


class TestFaults:
    def test_a_row_that_fails_keeps_its_output_and_costs_no_other(self) -> None:
        made = fragile_graph()
        delta = made.commit({SERVICES: {"a": -1, "b": 5, "c": -2}})
        assert made.rows(OUT) == {"a": 1, "b": 5}
        assert faults(delta.faults) == [
            ("out", "a", "ValueError: -1 is too small"),
            ("out", "c", "ValueError: -2 is too small"),
        ]
        assert [fault.where.split(":")[0] for fault in delta.faults] == [__file__, __file__]

    def test_faults_stand_until_the_row_succeeds_or_goes(self) -> None:
        made = fragile_graph()
        made.commit({SERVICES: {"a": -1, "b": -1}})
        assert made.commit({SERVICES: {"c": 1}}).faults == ()
        assert [fault.key for fault in made.faults] == ["a", "b"]
        made.commit({SERVICES: {"a": 3, "b": None}})
        assert made.faults == ()
        assert made.rows(OUT) == {"a": 3, "c": 1}

    def test_what_a_failing_row_read_runs_it_again(self) -> None:
        made = fragile_graph()
        made.commit({SERVICES: {"limit": 2}})
        assert [fault.key for fault in made.faults] == ["a"]
        delta = made.commit({SERVICES: {"limit": None}})
        assert (delta.faults, made.faults) == ((), ())

    def test_an_error_while_a_generator_runs_publishes_none_of_it(self) -> None:
        def half(_view: View, key: str, row: int) -> Pairs:
            yield key, row
            raise ValueError(key)

        made = graph(Derived(OUT, source=SERVICES, fn=half))
        assert [fault.key for fault in made.commit({SERVICES: {"a": 1}}).faults] == ["a"]
        assert made.rows(OUT) == {}

    def test_on_fault_gives_the_output_instead(self) -> None:
        made = fragile_graph(on_fault=lambda key, row, error: [(key, f"{row}: {error}")])
        delta = made.commit({SERVICES: {"a": -1}})
        assert made.get(OUT, "a") == "-1: -1 is too small"
        assert [fault.key for fault in delta.faults] == ["a"]

    def test_on_fault_that_fails_leaves_the_previous_output_and_its_own_error(self) -> None:
        made = fragile_graph(on_fault=lambda key, _row, _error: [(key, 1 / 0)])
        [fault] = made.commit({SERVICES: {"a": -1}}).faults
        assert isinstance(fault.error, ZeroDivisionError)
        assert isinstance(fault.error.__context__, ValueError)
        assert made.get(OUT, "a") == 1

    @pytest.mark.parametrize("rebuild", [False, True])
    def test_a_rebuild_keeps_the_output_of_rows_that_fail(self, *, rebuild: bool) -> None:
        made = graph(Derived(OUT, source=SERVICES, fn=fragile), incremental=not rebuild)
        made.commit({SERVICES: {"a": 1, "b": 2}})
        made.commit({SERVICES: {"a": -1}})
        delta = made.rebuild()
        assert delta.tables == ()
        assert [fault.key for fault in delta.faults] == ["a"]
        assert made.rows(OUT) == {"a": 1, "b": 2}

    def test_groups_and_unions_fail_by_group_and_by_source_row(self) -> None:
        grouped: Table[str, Any] = Table("grouped")
        made = graph(
            Group(
                grouped,
                source=SERVICES,
                by=lambda _key, row: (str(row),),
                fn=lambda _view, name, _members: [(name, 1 // int(name))],
                on_fault=lambda name, members, _error: [(name, list(members))],
            ),
            Union(
                OUT,
                sources=[SERVICES],
                fn=lambda _view, _name, key, row: [(key, 1 // row)],
                on_fault=lambda name, key, row, _error: [(key, (name, row))],
            ),
        )
        delta = made.commit({SERVICES: {"a": 0, "b": 0, "c": 1}})
        assert [(fault.table, fault.key) for fault in delta.faults] == [
            ("grouped", "0"),
            ("out", ("services", "a")),
            ("out", ("services", "b")),
        ]
        assert made.rows(grouped) == {"0": ["a", "b"], "1": 1}
        assert made.rows(OUT) == {"a": ("services", 0), "b": ("services", 0), "c": 1}


def test_members_are_a_mapping_in_order_of_their_keys() -> None:
    members = Members(["a", "b"], {"b": 2, "a": 1, "c": 3})
    assert len(members) == 2
    assert list(members) == list(members.keys()) == ["a", "b"]
    assert list(members.values()) == [1, 2]
    assert list(members.items()) == [("a", 1), ("b", 2)]
    assert members == {"a": 1, "b": 2}
    assert "c" not in members
