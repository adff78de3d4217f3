"""Random graphs under random edits: rows depend on the source rows alone, and the cost on what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshgw.engine import Derived, Graph, Group, Table, Union, View
from meshgw.engine.derived import Step

KEYS = [(letter, number) for letter in "abc" for number in range(3)]
VALUES = range(5)

Key: TypeAlias = tuple[str, int]
Row: TypeAlias = tuple[int, ...]
Rows: TypeAlias = Table[Key, Row]
Calls: TypeAlias = Counter[tuple[str, Any]]
Edits: TypeAlias = Mapping[int, Mapping[Key, Row | None]]


def _indexes() -> dict[str, Any]:
    return {"letter": lambda key, _row: (key[0],), "values": lambda _key, row: row}


@dataclass(frozen=True)
class Plan:
    """A step to be: its kind, its sources, what its function reads and how it makes its output keys."""

    kind: str
    sources: tuple[int, ...]
    reads: tuple[tuple[str, int], ...]
    keys: str
    modulus: int


def read(view: View, reads: Sequence[tuple[str, Rows]], key: Key, row: Row) -> Row:
    """A value that depends on everything read; what is read depends on the row, and on what was read before."""
    found = sum(row)
    for how, table in reads:
        if how == "get":
            other_row = view.get(table, ("abc"[found % 3], found % 4))
            found += 7 if other_row is None else sum(other_row)
        elif how == "by letter":
            found += sum(number * sum(other) for (_, number), other in view.by(table, "letter", key[0]))
        elif how == "by value":
            found += 3 * len(view.by(table, "values", found % 6))
        else:
            found += sum(sum(other) for _, other in view.all(table))
    return (found,)


def emit(plan: Plan, key: Key, row: Row) -> Iterable[tuple[Key, Row]]:
    """Rows under the key itself, under one that others may emit too, under several, or none at all."""
    small = (row[0] % plan.modulus,)
    if plan.keys == "same":
        yield key, small
    elif plan.keys == "shared":
        yield (key[0], row[0] % 3), small
    elif plan.keys == "several":
        yield from (((key[0], number), small) for number in range(row[0] % 4))
    elif row[0] % 2:
        yield key, small


def build(plan: Plan, number: int, tables: Sequence[Rows], calls: Calls) -> Step:
    """The step of a plan, over tables made so far. It counts its calls."""
    name = f"step {number}"
    table: Rows = Table(name, indexes=_indexes())
    sources = [tables[source % len(tables)] for source in plan.sources]
    reads = [(how, tables[index % len(tables)]) for how, index in plan.reads]

    def one(view: View, key: Key, row: Row) -> Iterable[tuple[Key, Row]]:
        calls[name, key] += 1
        return emit(plan, key, read(view, reads, key, row))

    def any_of(view: View, source: str, key: Key, row: Row) -> Iterable[tuple[Key, Row]]:
        calls[name, (source, key)] += 1
        return emit(plan, key, read(view, reads, key, row))

    def together(view: View, letter: str, members: Mapping[Key, Row]) -> Iterable[tuple[Key, Row]]:
        calls[name, letter] += 1
        order = sum(place * sum(row) for place, row in enumerate(members.values(), start=1))
        return emit(plan, (letter, 0), read(view, reads, (letter, 0), (order,)))

    if plan.kind == "derived":
        return Derived(table, source=sources[0], fn=one)
    if plan.kind == "group":
        return Group(table, source=sources[0], by=lambda key, row: {key[0], "abc"[sum(row) % 3]}, fn=together)
    return Union(table, sources=list(dict.fromkeys(sources)), fn=any_of)


@dataclass(frozen=True)
class Wiring:
    """Two source tables and a chain of steps, of which any number of graphs can be made."""

    plans: Sequence[Plan]

    def graph(self, *, incremental: bool = True) -> tuple[Graph, list[Rows], Calls]:
        calls: Calls = Counter()
        tables: list[Rows] = [Table(f"source {number}", indexes=_indexes()) for number in range(2)]
        steps: list[Step] = []
        for number, plan in enumerate(self.plans):
            steps.append(build(plan, number, tables, calls))
            tables.append(steps[-1].table)
        return Graph(sources=tables[:2], steps=steps, incremental=incremental), tables, calls


plans = st.builds(
    Plan,
    kind=st.sampled_from(["derived", "group", "union"]),
    sources=st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
    reads=st.lists(
        st.tuples(st.sampled_from(["get", "by letter", "by value", "all"]), st.integers(0, 9)), max_size=3
    ).map(tuple),
    keys=st.sampled_from(["same", "shared", "several", "some"]),
    modulus=st.sampled_from([2, 5, 1000]),
)
wirings = st.builds(Wiring, st.lists(plans, min_size=1, max_size=6))
rows = st.none() | st.lists(st.sampled_from(VALUES), max_size=2).map(tuple)
batches = st.dictionaries(st.integers(0, 1), st.dictionaries(st.sampled_from(KEYS), rows, max_size=6), max_size=2)


# No deadline: how long an example takes says more about the machine than about the engine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def commit(graph: Graph, tables: Sequence[Rows], edits: Edits) -> Any:
    return graph.commit({tables[source]: batch for source, batch in edits.items()})


def contents(graph: Graph, tables: Sequence[Rows]) -> dict[str, dict[Key, Row]]:
    return {table.name: dict(graph.rows(table)) for table in tables}


def indexed(graph: Graph, tables: Sequence[Rows]) -> list[Any]:
    found: list[Any] = [graph.by(table, "letter", letter) for table in tables for letter in "abc"]
    found += [graph.by(table, "values", value) for table in tables for value in range(6)]
    return [*found, *(graph.all(table) for table in tables)]


def complaints(graph: Graph) -> list[tuple[str, Any, str]]:
    return [(fault.table, fault.key, str(fault.error)) for fault in graph.faults]


def merged(edits: Sequence[Edits]) -> dict[int, dict[Key, Row | None]]:
    final: dict[int, dict[Key, Row | None]] = {0: {}, 1: {}}
    for batch in edits:
        for source, part in batch.items():
            final[source].update(part)
    return final


@unhurried
@given(wirings, st.lists(batches, max_size=8))
def test_incremental_equals_from_scratch(wiring: Wiring, edits: list[Edits]) -> None:
    graph, tables, _ = wiring.graph()
    full, full_tables, _ = wiring.graph(incremental=False)
    for batch in edits:
        delta, full_delta = commit(graph, tables, batch), commit(full, full_tables, batch)
        assert [delta.changed(table) for table in tables] == [full_delta.changed(table) for table in full_tables]
        assert contents(graph, tables) == contents(full, full_tables)
        assert indexed(graph, tables) == indexed(full, full_tables)
    scratch, scratch_tables, _ = wiring.graph()
    commit(scratch, scratch_tables, merged(edits))
    assert contents(graph, tables) == contents(scratch, scratch_tables)
    assert indexed(graph, tables) == indexed(scratch, scratch_tables)
    assert complaints(graph) == complaints(full) == complaints(scratch)
    assert graph.rebuild().tables == ()


@unhurried
@given(wirings, st.lists(batches, max_size=6))
def test_deltas_add_up_to_the_rows(wiring: Wiring, edits: list[Edits]) -> None:
    graph, tables, _ = wiring.graph()
    known: dict[str, dict[Key, Row]] = {table.name: {} for table in tables}
    for batch in edits:
        delta = commit(graph, tables, batch)
        for table in tables:
            for key, (old, new) in delta.changed(table).items():
                assert known[table.name].pop(key, None) == old != new
                if new is not None:
                    known[table.name][key] = new
    assert known == contents(graph, tables)


@unhurried
@given(wirings, st.lists(batches, max_size=4), st.randoms(use_true_random=False))
def test_the_order_within_a_batch_changes_nothing(wiring: Wiring, edits: list[Edits], random: Any) -> None:
    graph, tables, calls = wiring.graph()
    other, other_tables, other_calls = wiring.graph()
    for batch in edits:
        shuffled = {
            source: dict(random.sample(list(part.items()), len(part)))
            for source, part in random.sample(list(batch.items()), len(batch))
        }
        delta, other_delta = commit(graph, tables, batch), commit(other, other_tables, shuffled)
        assert [delta.changed(table) for table in tables] == [other_delta.changed(table) for table in other_tables]
        assert [(f.table, f.key, str(f.error)) for f in delta.faults] == [
            (f.table, f.key, str(f.error)) for f in other_delta.faults
        ]
        assert delta.recomputed == other_delta.recomputed
    assert calls == other_calls
    assert indexed(graph, tables) == indexed(other, other_tables)


@unhurried
@given(wirings, st.lists(batches, min_size=1, max_size=5))
def test_each_unit_runs_at_most_once_a_commit_and_is_counted(wiring: Wiring, edits: list[Edits]) -> None:
    graph, tables, calls = wiring.graph()
    for batch in edits:
        calls.clear()
        delta = commit(graph, tables, batch)
        assert set(calls.values()) <= {1}
        assert delta.recomputed == dict(Counter(step for step, _ in calls))
        calls.clear()
        assert commit(graph, tables, batch).recomputed == {}
        assert not calls


class Spy:
    """A View of a graph that notes all it is asked for, as what could make the answer another."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.noted: set[tuple[str, str, Any]] = set()

    def get(self, table: Table[Any, Any], key: Any) -> Any:
        self.noted.add((table.name, "key", key))
        return self._graph.get(table, key)

    def by(self, table: Table[Any, Any], index: str, value: Any) -> Any:
        self.noted.add((table.name, index, value))
        return self._graph.by(table, index, value)

    def all(self, table: Table[Any, Any]) -> Any:
        self.noted.add((table.name, "all", None))
        return self._graph.all(table)


def events(delta: Any, tables: Sequence[Rows]) -> set[tuple[str, str, Any]]:
    """Keys, index values and tables that a commit changed, in the words of a Spy."""
    found: set[tuple[str, str, Any]] = set()
    for table in tables:
        for key, versions in delta.changed(table).items():
            found |= {(table.name, "key", key), (table.name, "all", None)}
            for row in versions:
                for index, fn in table.indexes.items() if row is not None else ():
                    found |= {(table.name, index, value) for value in fn(key, row)}
    return found


@unhurried
@given(st.lists(plans, min_size=1, max_size=4), st.lists(batches, min_size=1, max_size=5))
def test_a_row_runs_again_exactly_when_it_or_a_read_of_it_changed(chain: list[Plan], edits: list[Edits]) -> None:
    wiring = Wiring([Plan("derived", plan.sources[:1], plan.reads, plan.keys, plan.modulus) for plan in chain])
    graph, tables, calls = wiring.graph()
    for batch in edits:
        before: dict[tuple[str, Key], set[tuple[str, str, Any]]] = {}
        for number, plan in enumerate(wiring.plans):
            declared = tables[: number + 2]
            for key, row in graph.all(declared[plan.sources[0] % len(declared)]):
                spy = Spy(graph)
                read(spy, [(how, declared[index % len(declared)]) for how, index in plan.reads], key, row)
                before[f"step {number}", key] = spy.noted
        calls.clear()
        delta = commit(graph, tables, batch)
        changed = events(delta, tables)
        for number, plan in enumerate(wiring.plans):
            source = tables[plan.sources[0] % (number + 2)]
            name = f"step {number}"
            expected = {
                key
                for key in graph.rows(source)
                if key in delta.changed(source) or before.get((name, key), set()) & changed
            }
            assert {key for step, key in calls if step == name} == expected
