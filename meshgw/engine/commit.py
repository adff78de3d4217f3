"""Graphs: the committed rows of all tables, moved from one consistent state to the next."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

from meshgw.engine.derived import Stage, Step, stage_of
from meshgw.engine.table import WHOLE, Changes, Fault, Store, Table, WiringError

K = TypeVar("K")
R = TypeVar("R")

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Delta:
    """What one commit changed.

    `faults` are those of the rows touched or recomputed by this commit (`Graph.faults` has all that stand);
    `recomputed` counts by table name how often its step's function ran.
    """

    __slots__ = ("_changes", "faults", "recomputed", "sequence")

    def __init__(
        self,
        sequence: int,
        changes: Mapping[Table[Any, Any], Mapping[Any, Any]],
        faults: tuple[Fault, ...],
        recomputed: Mapping[str, int],
    ) -> None:
        self.sequence = sequence
        self.faults = faults
        self.recomputed = recomputed
        self._changes = changes

    def __repr__(self) -> str:
        counts = {table.name: len(rows) for table, rows in self._changes.items()}
        return f"Delta(sequence={self.sequence}, changed={counts}, faults={len(self.faults)})"

    @property
    def tables(self) -> tuple[Table[Any, Any], ...]:
        """Tables with changed rows."""
        return tuple(self._changes)

    def changed(self, table: Table[K, R]) -> Mapping[K, tuple[R | None, R | None]]:
        """Rows of a table before and after (None is absent), in no particular order."""
        return cast("Mapping[K, tuple[R | None, R | None]]", self._changes.get(table, _NOTHING))


class Graph:
    """Source tables, the steps over them in order, and the rows of the last commit.

    Every table of a step must come before it: as a source, or from an earlier step. With `incremental=False` each
    commit recomputes everything, with the same results. Not thread-safe, and steps must not commit.
    """

    def __init__(self, *, sources: Iterable[Table[Any, Any]], steps: Iterable[Step], incremental: bool = True) -> None:
        self.sequence = 0
        self._steps = tuple(steps)
        self._incremental = incremental
        self._stores: dict[Table[Any, Any], Store[Any, Any]] = {}
        for table in sources:
            self._declare(table)
        self._sources = tuple(self._stores)
        for step in self._steps:
            for table in step.sources:
                if table not in self._stores:
                    raise WiringError(
                        f"step {step.table.name} is over table {table.name}, which is not declared before it"
                    )
            self._declare(step.table)
        self._stages = self._build(self._stores)
        self._abandoned = False  # a commit failed half-way: the stages no longer fit the rows

    @property
    def tables(self) -> Mapping[str, Table[Any, Any]]:
        """All tables by name, in order of declaration."""
        return {table.name: table for table in self._stores}

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All faults that stand after the last commit."""
        found = [fault for store in self._stores.values() for fault in store.faults()]
        return (*found, *(fault for stage in self._stages for fault in stage.faults()))

    def get(self, table: Table[K, R], key: K) -> R | None:
        """The committed row under a key."""
        return self.store(table).rows.get(key)

    def by(self, table: Table[K, R], index: str, value: Hashable) -> tuple[tuple[K, R], ...]:
        """Committed rows under an index value, sorted by key."""
        return self.store(table).select(index, value)

    def all(self, table: Table[K, R]) -> tuple[tuple[K, R], ...]:
        """All committed rows, sorted by key."""
        return self.by(table, WHOLE, None)

    def rows(self, table: Table[K, R]) -> Mapping[K, R]:
        """All committed rows in no particular order: a live, read-only mapping, cheap to get."""
        return MappingProxyType(self.store(table).rows)

    def commit(self, batch: Mapping[Table[Any, Any], Mapping[Any, Any | None]]) -> Delta:
        """Change source rows (None deletes) and everything that follows from them, or nothing if this raises."""
        for table in batch:
            if table not in self._sources:
                raise WiringError(f"table {table.name} is not a source of this graph")
        return self._advance(batch, fresh=self._abandoned or not self._incremental)

    def rebuild(self) -> Delta:
        """Recompute all steps from the source rows alone. The delta is what differs from the rows before."""
        return self._advance({}, fresh=True)

    def store(self, table: Table[K, R]) -> Store[K, R]:
        """The engine's own record of a table, for inspection."""
        try:
            return self._stores[table]
        except KeyError:
            raise WiringError(f"table {table.name} is not in this graph") from None

    def stage(self, table: Table[Any, Any]) -> Stage | None:
        """The engine's own record of the step that writes a table (None: a source), for inspection."""
        return next((stage for stage in self._stages if stage.step.table is table), None)

    def _declare(self, table: Table[Any, Any]) -> None:
        if any(table.name == other.name for other in self._stores):
            raise WiringError(f"two tables, or two steps for one, are called {table.name}")
        self._stores[table] = Store(table)

    def _build(self, stores: dict[Table[Any, Any], Store[Any, Any]]) -> list[Stage]:
        before = {table: stores[table] for table in self._sources}
        stages = []
        for step in self._steps:
            store = stores[step.table]
            stages.append(stage_of(step, dict(before), store))
            before[step.table] = store
        return stages

    def _advance(self, batch: Mapping[Table[Any, Any], Mapping[Any, Any]], *, fresh: bool) -> Delta:
        work = _Work(self.sequence + 1)
        try:
            for table in self._sources:  # in this order, whatever that of the batch
                if table in batch:
                    changes = self._stores[table].apply(batch[table], work.sequence)
                    work.add(table, changes)
                    work.faults += changes.faults
            published = self._renew(work) if fresh else self._update(work)
        except BaseException:
            for table, changes in work.changes.items():
                self._stores[table].apply({key: old for key, (old, _) in changes.rows.items()}, self.sequence)
            for stage in self._stages:
                stage.output.forget()
            self._abandoned = True
            raise
        self.sequence = work.sequence
        return Delta(work.sequence, published, tuple(work.faults), work.recomputed)

    def _update(self, work: _Work) -> dict[Table[Any, Any], Mapping[Any, Any]]:
        for stage in self._stages:
            if stage.concerns(work.changes):
                work.add(stage.step.table, work.run(stage, work.changes))
        return {table: changes.rows for table, changes in work.changes.items()}

    def _renew(self, work: _Work) -> dict[Table[Any, Any], Mapping[Any, Any]]:
        """Run blank stages over all source rows, and put them in force once all have succeeded."""
        stores = {table: store if table in self._sources else Store(table) for table, store in self._stores.items()}
        stages = self._build(stores)
        added = {table: Changes.adding(stores[table].rows) for table in self._sources}
        for stage, former in zip(stages, self._stages, strict=True):
            added[stage.step.table] = work.run(stage, added, former)
        published: dict[Table[Any, Any], Mapping[Any, Any]] = {
            table: changes.rows for table, changes in work.changes.items()
        }
        for step in self._steps:
            changed = stores[step.table].succeed(self._stores[step.table], work.sequence)
            if changed:
                published[step.table] = changed
        self._stores, self._stages, self._abandoned = stores, stages, False
        return published


class _Work:
    """What a commit under way has done so far."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.changes: dict[Table[Any, Any], Changes] = {}
        self.faults: list[Fault] = []
        self.recomputed: dict[str, int] = {}

    def add(self, table: Table[Any, Any], changes: Changes) -> None:
        if changes.rows:
            self.changes[table] = changes

    def run(self, stage: Stage, changes: Mapping[Table[Any, Any], Changes], former: Stage | None = None) -> Changes:
        outcome = stage.run(changes, self.sequence, former)
        self.faults += outcome.faults
        if outcome.recomputed:
            self.recomputed[stage.step.table.name] = outcome.recomputed
        return outcome.changes
