"""Steps: pure functions from rows to rows, and what the graph remembers of each to re-run no more than it must."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

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


class Stage:
    """The state of one step in one graph.

    A *unit* is what the function runs for: a source row, a group, or for a Union (position of the source, key). The
    commonest unit emits one row under its own key, so nothing is stored for that: an output key without an entry in
    `_owners` belongs to the unit of the same name.
    """

    def __init__(self, step: Step, before: Stores, store: Store[Any, Any]) -> None:
        self.step = step
        self._fn: Callable[..., Iterable[tuple[Any, Any]]] = step.fn
        self._on_fault: Callable[..., Iterable[tuple[Any, Any]]] | None = step.on_fault
        self.store = store
        self.tracker = Tracker(step.table.name, before)
        self.reads: dict[Any, tuple[Read, ...]] = {}
        self._sources = [before[table] for table in step.sources]
        self._faults: dict[Any, Fault] = {}  # of the last run of each unit
        self._keys: dict[Any, tuple[Any, ...]] = {}  # unit -> output keys, unless none or its own alone
        self._owners: dict[Any, Any] = {}  # output key -> unit, unless the same
        self._claims: dict[Any, dict[Any, Any]] = {}  # contested output key -> unit -> row
        self._pending: dict[Any, Any] = {}  # output rows (None: withdrawn) of the commit under way
        self._disputed: dict[Any, None] = {}  # keys it found or left contested
        self._failed: dict[Any, Fault] = {}  # units that failed in it
        self._raised: list[Fault] = []  # its other faults

    def run(self, changes: Mapping[Table[Any, Any], Changes], sequence: int, former: Stage | None = None) -> Outcome:
        """Re-run the units that the changes concern and store what they emit.

        A unit that fails keeps what it emitted in the `former` stage if there is one, else in this.
        """
        self._failed, self._raised, self._disputed = {}, [], {}
        log, faults, recomputed = self.tracker.log, self._faults, 0
        try:
            for unit in self._stale(changes, sequence):
                arguments = self._arguments(unit)
                log.clear()
                if faults:
                    faults.pop(unit, None)
                emitted: dict[Any, Any] = {}
                if arguments is not None:
                    recomputed += 1
                    emitted = self._emit(unit, arguments, former or self)
                self._link(unit, tuple(log) if len(log) < 2 else tuple(dict.fromkeys(log)))
                self._settle(unit, emitted)
            done = self.store.apply(self._pending, sequence)
            raised = [*self._raised, *in_order(self._failed), *self._duplicates(self._disputed), *done.faults]
        finally:
            self._pending = {}
        faults.update(self._failed)
        return Outcome(done, raised, recomputed)

    def owner(self, key: Any) -> Any:
        """The unit that a row comes from (of an absent row: the one of the same name)."""
        return self._owners.get(key, key)

    def label(self, unit: Any) -> Any:
        """A unit's name in faults."""
        return unit

    def inputs(self, unit: Any) -> list[tuple[Table[Any, Any], Any]]:
        """The source rows of a unit, as pairs of table and key."""
        return [(self._sources[0].table, unit)]

    def outputs(self, unit: Any) -> dict[Any, Any]:
        """Rows that a unit emits, including those it lost to a smaller unit."""
        rows = {key: self._claims[key][unit] if key in self._claims else self._held(key) for key in self._keys_of(unit)}
        return {key: row for key, row in rows.items() if row is not None}  # None: lost with an abandoned commit

    def faults(self) -> list[Fault]:
        """Units whose last run failed and keys emitted twice, as of now."""
        return [*in_order(self._faults), *self._duplicates(self._claims)]

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

    def _emit(self, unit: Any, arguments: tuple[Any, ...], former: Stage) -> dict[Any, Any]:
        name = self.step.table.name
        try:
            pairs = list(self._fn(self.tracker, *arguments))
            emitted = dict(pairs)
            if None in emitted.values():
                raise TypeError("None is not a row")  # noqa: TRY301 - to be met by the handler below
        except WiringError:
            raise
        except Exception as error:  # noqa: BLE001 - a bad row must cost only itself
            try:
                emitted = former.outputs(unit) if self._on_fault is None else dict(self._on_fault(*arguments, error))
            except Exception as second:  # noqa: BLE001 - the same, and it carries the first as its context
                error, emitted = second, former.outputs(unit)
            self._failed[unit] = fault_of(name, self.label(unit), error)
        else:
            if len(emitted) != len(pairs):
                self._failed[unit] = Fault(
                    name, self.label(unit), DuplicateKeyError("emits one key twice: the first row counts")
                )
                emitted = dict(reversed(pairs))
        return emitted

    def _link(self, unit: Any, reads: tuple[Read, ...]) -> None:
        known = self.reads.get(unit, ())
        if reads == known:
            return
        for read in set(known).difference(reads):
            read.leave(unit)
        for read in set(reads).difference(known) if known else reads:
            read.join(unit)
        if reads:
            self.reads[unit] = reads
        else:
            del self.reads[unit]

    def _settle(self, unit: Any, emitted: dict[Any, Any]) -> None:
        before, keys = self._keys_of(unit), tuple(emitted)
        if before != keys:
            for key in before:
                if key not in emitted:
                    self._withdraw(key, unit)
            if keys and keys != (unit,):
                self._keys[unit] = keys
            else:
                self._keys.pop(unit, None)
        for key, row in emitted.items():
            self._claim(key, unit, row)

    def _keys_of(self, unit: Any) -> tuple[Any, ...]:
        keys = self._keys.get(unit)
        if keys is not None:
            return keys
        if unit in self._claims:
            return (unit,) if unit in self._claims[unit] else ()
        return () if unit in self._owners or self._held(unit) is None else (unit,)

    def _held(self, key: Any) -> Any:
        return self._pending[key] if key in self._pending else self.store.rows.get(key)

    def _withdraw(self, key: Any, unit: Any) -> None:
        claims = self._claims.get(key)
        if claims is None:
            self._owners.pop(key, None)
            self._pending[key] = None
        else:
            del claims[unit]
            self._award(key, claims)

    def _claim(self, key: Any, unit: Any, row: Any) -> None:
        claims = self._claims.get(key)
        if claims is None:
            held = self._held(key)
            if held is None:
                if key != unit:
                    self._owners[key] = unit
                self._pending[key] = row
                return
            owner = self._owners.get(key, key)
            if owner == unit:
                if held is not row and held != row:
                    self._pending[key] = row
                return
            claims = self._claims[key] = {owner: held}
        claims[unit] = row
        self._award(key, claims)

    def _award(self, key: Any, claims: dict[Any, Any]) -> None:
        """Give a contested key to its smallest claimant, whatever the order in which they came."""
        winner = min(claims)
        self._pending[key] = claims[winner]
        if winner == key:
            self._owners.pop(key, None)
        else:
            self._owners[key] = winner
        if len(claims) > 1:
            self._disputed[key] = None
        else:
            del self._claims[key]
            self._disputed.pop(key, None)

    def _duplicates(self, contested: Iterable[Any]) -> list[Fault]:
        faults = []
        for key in sorted(contested):
            winner, *losers = map(self.label, sorted(self._claims[key]))
            error = DuplicateKeyError(f"{key!r} is emitted by {winner!r} too, which comes first")
            faults += [Fault(self.step.table.name, loser, error) for loser in losers]
        return faults


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
        plan = self._groups.plan(changes.rows)
        self._groups.adopt(plan, changes.rows)
        self._raised += in_order(plan.faults)
        return plan.touched

    def faults(self) -> list[Fault]:
        """The same, and rows that are in no group because `by` failed."""
        return [*in_order(self._groups.faults), *super().faults()]

    def _arguments(self, unit: Any) -> tuple[Any, ...] | None:
        rows = self._sources[0].rows
        members = {key: rows[key] for key in self._groups.find(unit)}
        return (unit, members) if members else None


class UnionStage(Stage):
    """The state of a Union: its units are pairs of the source's position and the key."""

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
