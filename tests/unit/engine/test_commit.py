"""Graphs: what they accept, what a commit returns, and that it happens whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from meshgw.engine import Derived, Graph, Group, Table, Union, View, WiringError

NAMES: Table[str, int] = Table("names", indexes={"size": lambda _key, row: (row,)})
OTHER: Table[str, int] = Table("other")
DOUBLE: Table[str, int] = Table("double", indexes={"size": lambda _key, row: (row,)})
TOTAL: Table[str, int] = Table("total")


def double(_view: View, key: str, row: int) -> Iterable[tuple[str, int]]:
    yield key, 2 * row


def total(view: View, key: str, _row: int) -> Iterable[tuple[str, int]]:
    yield key, sum(row for _, row in view.all(DOUBLE))


STEPS = [Derived(DOUBLE, source=NAMES, fn=double), Derived(TOTAL, source=OTHER, fn=total)]


def graph(**options: Any) -> Graph:
    made = Graph(sources=[NAMES, OTHER], steps=STEPS, **options)
    made.commit({NAMES: {"b": 2, "a": 1}, OTHER: {"all": 0}})
    return made


class TestWiring:
    def test_tables_are_listed_by_name_in_order(self) -> None:
        assert dict(graph().tables) == {"names": NAMES, "other": OTHER, "double": DOUBLE, "total": TOTAL}
        assert list(graph().tables) == ["names", "other", "double", "total"]

    def test_a_step_over_a_table_not_declared_before_it_is_refused(self) -> None:
        with pytest.raises(WiringError, match="step total is over table other"):
            Graph(sources=[NAMES], steps=STEPS)
        with pytest.raises(WiringError, match="step total is over table other"):
            Graph(sources=[NAMES], steps=[Union(TOTAL, sources=[NAMES, OTHER], fn=lambda *_: [])])

    def test_a_step_over_its_own_table_is_refused(self) -> None:
        with pytest.raises(WiringError, match="step total is over table total"):
            Graph(sources=[], steps=[Group(TOTAL, source=TOTAL, by=lambda *_: "", fn=lambda *_: [])])

    def test_two_tables_of_one_name_are_refused(self) -> None:
        with pytest.raises(WiringError, match="called names"):
            Graph(sources=[NAMES, Table("names")], steps=[])

    def test_two_steps_for_one_table_are_refused(self) -> None:
        with pytest.raises(WiringError, match="called double"):
            Graph(sources=[NAMES], steps=[STEPS[0], STEPS[0]])

    @pytest.mark.parametrize("table", [DOUBLE, Table("stranger")])
    def test_only_sources_can_be_committed(self, table: Table[str, int]) -> None:
        with pytest.raises(WiringError, match=f"table {table.name} is not a source"):
            graph().commit({table: {"a": 1}})

    def test_a_table_of_another_graph_cannot_be_read(self) -> None:
        with pytest.raises(WiringError, match="table stranger is not in this graph"):
            graph().get(Table("stranger"), "a")


class TestReading:
    def test_committed_rows_are_read_by_key_index_and_whole(self) -> None:
        made = graph()
        assert (made.get(DOUBLE, "a"), made.get(DOUBLE, "z")) == (2, None)
        assert made.by(DOUBLE, "size", 4) == (("b", 4),)
        assert made.all(DOUBLE) == (("a", 2), ("b", 4))
        assert made.rows(DOUBLE) == {"a": 2, "b": 4}

    def test_rows_cannot_be_written_through_the_graph(self) -> None:
        with pytest.raises(TypeError):
            graph().rows(DOUBLE)["a"] = 5  # type: ignore[index]  # the mistake under test

    def test_a_graph_is_a_view_so_steps_can_be_called_on_it(self) -> None:
        view: View = graph()
        assert list(total(view, "all", 0)) == [("all", 6)]


class TestDelta:
    def test_it_has_rows_before_and_after_counts_and_sequence(self) -> None:
        delta = graph().commit({NAMES: {"a": None, "b": 5, "c": 1}})
        assert delta.changed(NAMES) == {"a": (1, None), "b": (2, 5), "c": (None, 1)}
        assert delta.changed(DOUBLE) == {"a": (2, None), "b": (4, 10), "c": (None, 2)}
        assert delta.changed(TOTAL) == {"all": (6, 12)}
        assert delta.changed(OTHER) == {}
        assert delta.tables == (NAMES, DOUBLE, TOTAL)
        assert delta.recomputed == {"double": 2, "total": 1}
        assert (delta.sequence, delta.faults) == (2, ())
        assert repr(delta) == "Delta(sequence=2, changed={'names': 3, 'double': 3, 'total': 1}, faults=0)"

    def test_a_commit_without_effect_is_numbered_and_empty(self) -> None:
        made = graph()
        delta = made.commit({NAMES: {"a": 1, "z": None}})
        assert (delta.tables, delta.recomputed, delta.sequence, made.sequence) == ((), {}, 2, 2)

    def test_faults_of_source_indexes_are_in_it_and_stand(self) -> None:
        table: Table[str, int] = Table("inverse", indexes={"of": lambda _key, row: (1 // row,)})
        made = Graph(sources=[table], steps=[])
        delta = made.commit({table: {"a": 0, "b": 1}})
        assert [(fault.table, fault.key) for fault in delta.faults] == [("inverse", "a")]
        assert made.faults == delta.faults
        assert made.rows(table) == {"a": 0, "b": 1}

    def test_faults_of_output_indexes_are_in_it_and_stand(self) -> None:
        table: Table[str, int] = Table("inverse", indexes={"of": lambda _key, row: (1 // row,)})
        made = Graph(sources=[NAMES], steps=[Derived(table, source=NAMES, fn=double)])
        delta = made.commit({NAMES: {"a": 0}})
        assert [(fault.table, fault.key) for fault in delta.faults] == [("inverse", "a")]
        assert made.faults == delta.faults


class TestRebuild:
    def test_it_recomputes_everything_and_changes_nothing(self) -> None:
        made = graph()
        before = dict(made.rows(DOUBLE))
        delta = made.rebuild()
        assert (delta.tables, delta.recomputed, delta.sequence) == ((), {"double": 2, "total": 1}, 2)
        assert made.rows(DOUBLE) == before

    def test_commits_after_it_are_incremental(self) -> None:
        made = graph()
        made.rebuild()
        delta = made.commit({NAMES: {"a": 3}})
        assert delta.recomputed == {"double": 1, "total": 1}
        assert made.get(TOTAL, "all") == 10

    def test_it_repairs_rows_that_are_not_what_their_step_says(self) -> None:
        made = graph()
        made.store(DOUBLE).apply({"a": 99, "ghost": 1, "b": None}, 1)
        delta = made.rebuild()
        assert delta.changed(DOUBLE) == {"a": (99, 2), "ghost": (1, None), "b": (None, 4)}
        assert made.all(DOUBLE) == (("a", 2), ("b", 4))

    def test_without_incremental_each_commit_does_so_with_the_same_results(self) -> None:
        made, full = graph(), graph(incremental=False)
        batch = {NAMES: {"a": 3, "b": None}}
        delta, same = made.commit(batch), full.commit(batch)
        assert same.recomputed == {"double": 1, "total": 1}
        for table in made.tables.values():
            assert full.rows(table) == made.rows(table)
            assert same.changed(table) == delta.changed(table)
        assert full.commit({}).recomputed == {"double": 1, "total": 1}


def looking_ahead(view: View, key: str, row: int) -> Iterable[tuple[str, int]]:
    yield key, row if row < 10 else (view.get(TOTAL, "all") or 0)


class TestAtomicity:
    LATE: Table[str, int] = Table("late")

    def graph(self, **options: Any) -> Graph:
        ahead: Table[str, int] = Table("ahead")
        made = Graph(
            sources=[NAMES, OTHER],
            steps=[
                Derived(DOUBLE, source=NAMES, fn=double),
                Derived(ahead, source=DOUBLE, fn=looking_ahead),
                Derived(TOTAL, source=OTHER, fn=total),
            ],
            **options,
        )
        made.commit({NAMES: {"a": 1, "b": 2}, OTHER: {"all": 0}})
        return made

    @pytest.mark.parametrize("incremental", [True, False])
    def test_a_read_of_a_later_table_undoes_the_commit(self, *, incremental: bool) -> None:
        made = self.graph(incremental=incremental)
        before = {table: dict(made.rows(table)) for table in made.tables.values()}
        with pytest.raises(WiringError, match="step ahead reads table total"):
            made.commit({NAMES: {"a": 7, "b": None, "c": 1}, OTHER: {"more": 0}})
        assert {table: dict(made.rows(table)) for table in made.tables.values()} == before
        assert made.by(DOUBLE, "size", 2) == (("a", 2),)
        assert made.by(DOUBLE, "size", 14) == ()
        assert made.sequence == 1

    @pytest.mark.parametrize("incremental", [True, False])
    def test_the_next_commit_is_right_and_the_one_after_it_incremental_again(self, *, incremental: bool) -> None:
        made = self.graph(incremental=incremental)
        with pytest.raises(WiringError):
            made.commit({NAMES: {"a": 7, "b": None}})
        delta = made.commit({NAMES: {"c": 1}})
        assert delta.changed(DOUBLE) == {"c": (None, 2)}
        assert delta.changed(TOTAL) == {"all": (6, 8)}
        assert delta.sequence == 2
        assert (made.commit({NAMES: {"c": 2}}).recomputed["double"] == 1) is incremental
        assert made.get(TOTAL, "all") == 10

    def test_an_interrupt_undoes_the_commit_too(self) -> None:
        def interrupted(_view: View, key: str, row: int) -> Iterable[tuple[str, int]]:
            if row == 13:
                raise KeyboardInterrupt
            yield key, row

        made = Graph(sources=[NAMES], steps=[Derived(self.LATE, source=NAMES, fn=interrupted)])
        made.commit({NAMES: {"a": 1}})
        with pytest.raises(KeyboardInterrupt):
            made.commit({NAMES: {"a": 2, "b": 13}})
        assert made.rows(NAMES) == made.rows(self.LATE) == {"a": 1}
