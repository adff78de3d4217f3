"""Steps: pure functions from rows to rows, and what the graph remembers of each to re-run no more than it must."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from meshgw.engine.output import Output
from meshgw.engine.reads import Read, Tracker, View
from meshgw.engine.table import Changes, DuplicateKeyError, Fault, Index, Store, Table, WiringError, fault_of, in_order

K = TypeVar("K")
R = TypeVar("R")
SK = TypeVar("SK")
SR = TypeVar("SR")
G = TypeVar("G")


@dataclass(frozen=True, eq=False)
class Derived(Generic[SK, SR, K, R]):
    """A step: each source row gives rows of `table`, none to many.

    A row whose `fn` raises keeps its previous output, unless `on_fault` gives another.
    """

    table: Table[K, R]
    source: Table[SK, SR] = field(kw_only=True)
    fn: Callable[[View, SK, SR], Iterable[tuple[K, R]]] = field(kw_only=True)
    on_fault: Callable[[SK, SR, Exception], Iterable[tuple[K, R]]] | None = field(default=None, kw_only=True)

    @property
    def sources(self) -> Sequence[Table[Any, Any]]:
        """The one source."""
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Group(Generic[SK, SR, G, K, R]):
    """A step: source rows gather under the group keys that `by` gives, and each group gives rows of `table`.

    Members are sorted by key; a group without members is gone. A row for which `by` raises is in no group.
    """

    table: Table[K, R]
    source: Table[SK, SR] = field(kw_only=True)
    by: Callable[[SK, SR], Iterable[G]] = field(kw_only=True)
    fn: Callable[[View, G, Mapping[SK, SR]], Iterable[tuple[K, R]]] = field(kw_only=True)
    on_fault: Callable[[G, Mapping[SK, SR], Exception], Iterable[tuple[K, R]]] | None = field(
        default=None, kw_only=True
    )

    @property
    def sources(self) -> Sequence[Table[Any, Any]]:
        """The one source."""
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Union(Generic[K, R]):
    """A step like `Derived` over sources of any types; of two rows that emit one key, the earlier source's wins."""

    table: Table[K, R]
    sources: Sequence[Table[Any, Any]] = field(kw_only=True)
    fn: Callable[[View, str, Any, Any], Iterable[tuple[K, R]]] = field(kw_only=True)
    on_fault: Callable[[str, Any, Any, Exception], Iterable[tuple[K, R]]] | None = field(default=None, kw_only=True)


Step: TypeAlias = Derived[Any, Any, Any, Any] | Group[Any, Any, Any, Any, Any] | Union[Any, Any]
Stores: TypeAlias = Mapping[Table[Any, Any], Store[Any, Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step did in one commit."""

    changes: Changes
    faults: list[Fault]
    recomputed: int


_IDLE = Outcome(Changes({}, {}, []), [], 0)
"""Of a step that no change concerns, as of most steps in most commits."""


class Stage:
    """The state of one step in one graph.

    A *unit* is what the function runs for: a source row, a group, or for a Union (position of the source, key).
    """

    def __init__(self, step: Step, before: Stores, store: Store[Any, Any]) -> None:
        self.step = step
        self.output = Output(store)
        self.tracker = Tracker(step.table.name, before)
        self.reads: dict[Any, tuple[Read, ...]] = {}
        self._fn: Callable[..., Iterable[tuple[Any, Any]]] = step.fn
        self._on_fault: Callable[..., Iterable[tuple[Any, Any]]] | None = step.on_fault
        self._sources = [before[table] for table in step.sources]
        self.tracker.tables.update(step.sources)
        self._faults: dict[Any, Fault] = {}  # of the last run of each unit
        self._failed: dict[Any, Fault] = {}  # units of the run under way
        self._raised: list[Fault] = []  # its other faults

    def concerns(self, changes: Mapping[Table[Any, Any], Changes]) -> bool:
        """Whether it may have read what changed; of most commits most steps have not."""
        return not self.tracker.tables.isdisjoint(changes)

    def run(self, changes: Mapping[Table[Any, Any], Changes], sequence: int, former: Stage | None = None) -> Outcome:
        """Re-run the units that the changes concern and store what they emit.

        A unit that fails keeps what it emitted in the `former` stage if there is one, else in this.
        """
        self._failed, self._raised = {}, []
        reads, faults, log = self.reads, self._faults, self.tracker.log
        settle, kept, recomputed = self.output.settle, (former or self).output, 0
        stale = self._stale(changes, sequence)
        if not stale and not self._raised:
            return _IDLE
        for unit in stale:
            if faults:
                faults.pop(unit, None)
            log.clear()
            arguments = self._arguments(unit)
            if arguments is None:
                settle(unit, {})
            else:
                recomputed += 1
                settle(unit, self._emit(unit, arguments, kept))
            if log or unit in reads:
                self._link(unit, (log[0],) if len(log) == 1 else tuple(dict.fromkeys(log)))
        raised = [*self._raised, *in_order(self._failed), *self._duplicates(fresh=True)]
        published = self.output.publish(sequence)
        faults.update(self._failed)
        return Outcome(published, [*raised, *published.faults], recomputed)

    def unit(self, key: Any) -> Any:
        """The unit that a row comes from, or if it is absent the one that bears its key; None if none can."""
        return self.output.owner(key)

    def label(self, unit: Any) -> Any:
        """A unit's name in faults."""
        return unit

    def inputs(self, unit: Any) -> list[tuple[Table[Any, Any], Any]]:
        """The source rows of a unit, as pairs of table and key."""
        return [(self._sources[0].table, unit)]

    def faults(self) -> list[Fault]:
        """Units whose last run failed and keys emitted twice, as of now."""
        return [*in_order(self._faults), *self._duplicates(fresh=False)]

    def _duplicates(self, *, fresh: bool) -> Iterator[Fault]:
        for key, winner, losers in self.output.disputes(fresh=fresh):
            for unit in losers:
                error = DuplicateKeyError(f"{key!r} is emitted by {self.label(winner)!r} too, which comes first")
                yield Fault(self.step.table.name, self.label(unit), error)

    # Which units, with which arguments: Group and Union differ

    def _touched(self, _source: int, changes: Changes) -> Iterable[Any]:
        return changes.rows

    def _arguments(self, unit: Any) -> tuple[Any, ...] | None:
        row = self._sources[0].rows.get(unit)
        return None if row is None else (unit, row)

    def _stale(self, changes: Mapping[Table[Any, Any], Changes], sequence: int) -> dict[Any, None]:
        units: dict[Any, None] = {}  # a dict, not a set: its order does not depend on hash seeds
        for position, source in enumerate(self._sources):
            if source.table in changes:
                units.update(dict.fromkeys(self._touched(position, changes[source.table])))
        for watch in self.tracker.watches.values():
            if watch.reads and watch.store.table in changes:
                units.update(dict.fromkeys(watch.stale(changes[watch.store.table], sequence)))
        return units

    # What a unit emits and reads

    def _emit(self, unit: Any, arguments: tuple[Any, ...], kept: Output) -> dict[Any, Any]:
        try:
            pairs = list(self._fn(self.tracker, *arguments))
            emitted = dict(pairs)
        except WiringError:
            raise
        except Exception as error:  # noqa: BLE001 - a bad row must cost only itself
            emitted = self._recover(unit, arguments, kept, error)
        else:
            if len(emitted) != len(pairs):
                twice = DuplicateKeyError("emits one key twice: the first row counts")
                self._failed[unit] = Fault(self.step.table.name, self.label(unit), twice)
                emitted = dict(reversed(pairs))
        for row in emitted.values():
            if row is None:
                return {key: row for key, row in emitted.items() if row is not None}
        return emitted

    def _recover(self, unit: Any, arguments: tuple[Any, ...], kept: Output, error: Exception) -> dict[Any, Any]:
        self._failed[unit] = fault_of(self.step.table.name, self.label(unit), error)
        try:
            return kept.rows(unit) if self._on_fault is None else dict(self._on_fault(*arguments, error))
        except Exception as second:  # noqa: BLE001 - the same
            self._failed[unit] = fault_of(self.step.table.name, self.label(unit), second)
            return kept.rows(unit)

    def _link(self, unit: Any, reads: tuple[Read, ...]) -> None:
        known = self.reads.get(unit)
        if known is None:
            for read in reads:
                read.join(unit)
        elif known != reads:
            for read in set(known).difference(reads):
                read.leave(unit)
            for read in set(reads).difference(known):
                read.join(unit)
        else:
            return
        if reads:
            self.reads[unit] = reads
        else:
            del self.reads[unit]


class Members(Mapping[Any, Any]):
    """The rows of a group by key, sorted; gathered only when looked at, as many functions do no more than count."""

    __slots__ = ("_found", "_keys", "_rows")

    def __init__(self, keys: Sequence[Any], rows: Mapping[Any, Any]) -> None:
        self._keys = keys
        self._rows = rows
        self._found: dict[Any, Any] | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys)

    def __getitem__(self, key: Any) -> Any:
        return self._gather()[key]

    def keys(self) -> KeysView[Any]:
        """Their keys."""
        return self._gather().keys()

    def values(self) -> ValuesView[Any]:
        """Their rows."""
        return self._gather().values()

    def items(self) -> ItemsView[Any, Any]:
        """Both."""
        return self._gather().items()

    def _gather(self) -> dict[Any, Any]:
        if self._found is None:
            rows = self._rows
            self._found = {key: rows[key] for key in self._keys}
        return self._found


class GroupStage(Stage):
    """The state of a Group: its units are the values of an index over the source."""

    step: Group[Any, Any, Any, Any, Any]

    def __init__(self, step: Group[Any, Any, Any, Any, Any], before: Stores, store: Store[Any, Any]) -> None:
        super().__init__(step, before, store)
        self._groups = Index(step.by, step.table.name)

    def inputs(self, unit: Any) -> list[tuple[Table[Any, Any], Any]]:
        """The members of a group."""
        return [(self._sources[0].table, key) for key in self._groups.find(unit)]

    def _touched(self, _source: int, changes: Changes) -> Iterable[Any]:
        touched, faults = self._groups.update(changes.rows)
        self._raised += faults
        return touched

    def faults(self) -> list[Fault]:
        """The same, and rows that are in no group because `by` failed."""
        return [*in_order(self._groups.faults), *super().faults()]

    def _arguments(self, unit: Any) -> tuple[Any, ...] | None:
        keys = self._groups.find(unit)
        return (unit, Members(keys, self._sources[0].rows)) if keys else None


class UnionStage(Stage):
    """The state of a Union: its units are pairs of the source's position and the key."""

    def unit(self, key: Any) -> Any:
        """The same, but no unit bears the key of a row."""
        unit = self.output.owner(key)
        return None if unit is key else unit

    def label(self, unit: Any) -> Any:
        """Name of the source table, and key."""
        return self._sources[unit[0]].table.name, unit[1]

    def inputs(self, unit: Any) -> list[tuple[Table[Any, Any], Any]]:
        """The one source row."""
        return [(self._sources[unit[0]].table, unit[1])]

    def _touched(self, source: int, changes: Changes) -> Iterable[Any]:
        return [(source, key) for key in changes.rows]

    def _arguments(self, unit: Any) -> tuple[Any, ...] | None:
        source = self._sources[unit[0]]
        row = source.rows.get(unit[1])
        return None if row is None else (source.table.name, unit[1], row)


def stage_of(step: Step, before: Stores, store: Store[Any, Any]) -> Stage:
    """The stage of a step that may read the stores of the tables `before` it, and writes one."""
    if isinstance(step, Group):
        return GroupStage(step, before, store)
    return (UnionStage if isinstance(step, Union) else Stage)(step, before, store)
