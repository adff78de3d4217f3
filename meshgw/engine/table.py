"""Tables: typed handles, and the rows and indexes a graph keeps for each."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

K = TypeVar("K")
R = TypeVar("R")

WHOLE = "*"  # the index of everything: one value, None
_NO_VALUES: dict[Any, None] = {}
_FEW = 8  # up to this many edits are cheaper as bisected insertions than as a sort


class WiringError(Exception):
    """A mistake in the declarations: an unknown table or index, or a read of a table not declared before its reader."""


class DuplicateKeyError(Exception):
    """A source row emitted an output key that is taken: by a smaller source key, or by the row itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that cost one row of one table its update.

    `table` names the table that lacks the update, `key` is the source row (or group) at fault, for an index the row
    itself, and for a step of several sources the pair of table name and key. `where` is the `file:line` that raised;
    the traceback itself is dropped because it would keep every local variable alive.
    """

    table: str
    key: Any
    error: Exception
    where: str = ""


@dataclass(frozen=True, eq=False)
class Table(Generic[K, R]):
    """A declaration: rows of type R under hashable keys of type K, best such that sort.

    Each index maps (key, row) to the values under which the row is found, none to many. An index that raises files the
    row under no value, which is a fault.
    """

    name: str
    indexes: Mapping[str, Callable[[K, R], Iterable[Hashable]]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Table({self.name!r})"


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows of one table before and after (None is absent), and per index the values they were or are filed under."""

    rows: dict[Any, tuple[Any, Any]]
    touched: dict[str, dict[Any, None]]
    faults: list[Fault]

    @classmethod
    def adding(cls, rows: Mapping[Any, Any]) -> Changes:
        """The rows as if all were new, for readers that have not looked at any index yet."""
        return cls({key: (None, row) for key, row in rows.items()}, {}, [])


class Index:
    """For each value of an index function, the sorted keys of its rows. `table` is named in faults."""

    __slots__ = ("_buckets", "_fn", "_table", "faults")

    def __init__(self, fn: Callable[[Any, Any], Iterable[Hashable]], table: str) -> None:
        self._fn = fn
        self._table = table
        self._buckets: dict[Any, list[Any]] = {}
        self.faults: dict[Any, Fault] = {}

    def find(self, value: Hashable) -> Sequence[Any]:
        """Sorted keys of the rows under a value."""
        return self._buckets.get(value, ())

    def update(self, changed: Mapping[Any, tuple[Any, Any]]) -> tuple[dict[Any, None], list[Fault]]:
        """Follow changes of rows (before, after). Returns the values they were or are under, and new faults."""
        gone: dict[Any, list[Any]] = {}
        come: dict[Any, list[Any]] = {}
        touched: dict[Any, None] = {}
        faults: dict[Any, Fault] = {}
        for key, (old, new) in changed.items():
            before = _NO_VALUES if old is None else self._values(key, old, {})
            after = _NO_VALUES if new is None else self._values(key, new, faults)
            if before:
                touched.update(before)
                _file(key, before, after, gone)
            if after:
                _file(key, after, before, come)
        touched.update(come)
        for value in gone.keys() | come.keys() if gone else come:
            keys = _edit(self.find(value), gone.get(value, ()), come.get(value, ()))
            if keys:
                self._buckets[value] = keys
            else:
                del self._buckets[value]
        if self.faults:
            for key in changed:
                self.faults.pop(key, None)
        self.faults.update(faults)
        return touched, in_order(faults)

    def _values(self, key: Any, row: Any, faults: dict[Any, Fault]) -> dict[Any, None]:
        try:
            return dict.fromkeys(self._fn(key, row))
        except Exception as error:  # noqa: BLE001 - a bad row must cost only itself
            faults[key] = fault_of(self._table, key, error)
            return {}


class _ByRepr(list[Any]):
    """Keys that do not compare with each other, such as None and text: never to be bisected."""


def ordered(keys: Collection[Any]) -> list[Any]:
    """Keys in their natural order, or in that of their text if there is none."""
    try:
        return sorted(keys)
    except TypeError:
        return _ByRepr(sorted(keys, key=repr))


def _file(key: Any, values: Iterable[Any], others: Container[Any], into: dict[Any, list[Any]]) -> None:
    """File a key under the values that are not among the others."""
    for value in values:
        if value in others:
            continue
        keys = into.get(value)
        if keys is None:
            into[value] = [key]
        else:
            keys.append(key)


def _edit(bucket: Sequence[Any], gone: Sequence[Any], come: Sequence[Any]) -> list[Any]:
    if not bucket:
        return ordered(come)
    if len(gone) + len(come) <= _FEW and type(bucket) is list:
        keys = bucket.copy()
        try:
            for key in gone:
                del keys[bisect_left(keys, key)]
            for key in come:
                insort(keys, key)
        except TypeError:
            pass
        else:
            return keys
    left = set(gone)
    return ordered([*(key for key in bucket if key not in left), *come])


def fault_of(table: str, key: Any, error: Exception) -> Fault:
    """The fault that an exception amounts to, freed of its traceback."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return Fault(table, key, error.with_traceback(None), where)


def in_order(faults: Mapping[Any, Fault]) -> list[Fault]:
    """Faults sorted by what they are filed under, so that the order of events does not show."""
    return [faults[key] for key in ordered(faults)]


class Store(Generic[K, R]):
    """The rows of one table in one graph, with its indexes and the commit that last changed each row."""

    __slots__ = ("_indexes", "rows", "stamps", "table")

    def __init__(self, table: Table[K, R]) -> None:
        self.table = table
        self.rows: dict[K, R] = {}
        self.stamps: dict[K, int] = {}  # only of rows changed after the first commit: those are few
        self._indexes = {name: Index(fn, table.name) for name, fn in table.indexes.items()}

    def index(self, name: str) -> Index:
        """An index by name; the one of the whole table is built when first asked for."""
        found = self._indexes.get(name)
        if found is None:
            if name != WHOLE:
                raise WiringError(f"table {self.table.name} has no index {name!r}")
            found = self._indexes[name] = Index(_whole, self.table.name)
            found.update({key: (None, row) for key, row in self.rows.items()})
        return found

    def select(self, index: str, value: Hashable) -> tuple[tuple[K, R], ...]:
        """Rows under an index value, sorted by key."""
        rows = self.rows
        return tuple([(key, rows[key]) for key in self.index(index).find(value)])

    def stamp(self, key: K) -> int:
        """Sequence of the commit that last changed the row; 1 is the first commit, 0 no such row."""
        return self.stamps.get(key, 1) if key in self.rows else 0

    def faults(self) -> list[Fault]:
        """Rows an index could not file, as of now."""
        return [fault for index in self._indexes.values() for fault in in_order(index.faults)]

    def apply(self, edits: Mapping[K, R | None], sequence: int) -> Changes:
        """Store rows (None deletes) and return what really changed."""
        rows, stamps = self.rows, self.stamps
        changed: dict[K, tuple[R | None, R | None]] = {}
        for key, new in edits.items():
            old = rows.get(key)
            if old is not new and old != new:
                changed[key] = (old, new)
        if not changed:
            return Changes({}, {}, [])
        for key, (_, new) in changed.items():
            if new is None:
                del rows[key]
                stamps.pop(key, None)
            else:
                rows[key] = new
                if sequence > 1:
                    stamps[key] = sequence
        touched: dict[str, dict[Any, None]] = {}
        faults: list[Fault] = []
        for name, index in self._indexes.items():
            touched[name], found = index.update(changed)
            faults += found
        return Changes(changed, touched, faults)

    def succeed(self, former: Store[K, R], sequence: int) -> dict[K, tuple[R | None, R | None]]:
        """Take the place of a store of the same table, keep its objects where rows are equal, return the difference."""
        changed: dict[K, tuple[R | None, R | None]] = {}
        self.stamps = {}
        for key, row in self.rows.items():
            old = former.rows.get(key)
            if old is not None and (old is row or old == row):
                self.rows[key] = old  # the key exists, so this is safe while iterating
                if key in former.stamps:
                    self.stamps[key] = former.stamps[key]
            else:
                changed[key] = (old, row)
                if sequence > 1:
                    self.stamps[key] = sequence
        changed.update({key: (old, None) for key, old in former.rows.items() if key not in self.rows})
        return changed


def _whole(_key: Any, _row: Any) -> Iterable[None]:
    return (None,)
