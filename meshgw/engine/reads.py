"""Views: how a step reads other tables, and the record of what it read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from meshgw.engine.table import WHOLE, Changes, Store, Table, WiringError

K = TypeVar("K")
R = TypeVar("R")

_NOBODY: Any = object()


class View(Protocol):
    """What a step may read: the tables declared before it. Every read is recorded, whether it finds anything or not.

    A `Graph` is a View too (of its last commit, recording nothing), so the functions of steps can be called directly.
    """

    def get(self, table: Table[K, R], key: K) -> R | None:
        """The row under a key."""

    def by(self, table: Table[K, R], index: str, value: Hashable) -> tuple[tuple[K, R], ...]:
        """Rows under an index value, sorted by key."""

    def all(self, table: Table[K, R]) -> tuple[tuple[K, R], ...]:
        """All rows, sorted by key: any change to the table re-runs the reader."""


class Read:
    """One key or index value of one table, and the units (see `Stage`) of one step that looked at it.

    Most have one reader: `readers` is that unit itself, or a dict (unhashable, so never a unit) once there are more.
    """

    __slots__ = ("changed", "readers", "value", "watch")

    def __init__(self, watch: Watch, value: Hashable) -> None:
        self.watch = watch
        self.value = value
        self.readers: Any = _NOBODY
        self.changed = 0  # sequence of the last commit in which it re-ran its readers

    def join(self, unit: Any) -> None:
        """Add a reader."""
        readers = self.readers
        if readers is _NOBODY:
            self.readers = unit
        elif type(readers) is dict:
            readers[unit] = None
        else:
            self.readers = {readers: None, unit: None}

    def leave(self, unit: Any) -> None:
        """Remove a reader; the last one takes the record with it."""
        readers = self.readers
        if type(readers) is dict and len(readers) > 1:
            del readers[unit]
        else:
            del self.watch.reads[self.value]


class Watch:
    """All that one step has read of one table by key (`index` is None), or by one index."""

    __slots__ = ("index", "reads", "store")

    def __init__(self, store: Store[Any, Any], index: str | None) -> None:
        self.store = store
        self.index = index
        self.reads: dict[Any, Read] = {}

    def stale(self, changes: Changes, sequence: int) -> Iterator[Any]:
        """Units that saw what has changed."""
        values: Iterable[Any]
        if self.index is None:
            values = changes.rows
        elif self.index == WHOLE:
            values = (None,)  # that index may be younger than the change
        else:
            values = changes.touched[self.index]
        for value in values:
            read = self.reads.get(value)
            if read is not None:
                read.changed = sequence
                yield from read.readers if type(read.readers) is dict else (read.readers,)


class Tracker:
    """The View of one step: logs what the running function reads."""

    __slots__ = ("_name", "_stores", "log", "tables", "watches")

    def __init__(self, name: str, stores: Mapping[Table[Any, Any], Store[Any, Any]]) -> None:
        self._name = name
        self._stores = stores
        self.watches: dict[Any, Watch] = {}
        self.tables: set[Table[Any, Any]] = set()  # all that was ever read
        self.log: list[Read] = []

    def get(self, table: Table[K, R], key: K) -> R | None:
        """The row under a key."""
        watch = self.watches.get(table)
        if watch is None:
            watch = self.watches[table] = Watch(self._store(table), None)
        read = watch.reads.get(key)
        if read is None:
            read = watch.reads[key] = Read(watch, key)
        self.log.append(read)
        row: R | None = watch.store.rows.get(key)
        return row

    def by(self, table: Table[K, R], index: str, value: Hashable) -> tuple[tuple[K, R], ...]:
        """Rows under an index value, sorted by key."""
        watch = self.watches.get((table, index))
        if watch is None:
            store = self._store(table)
            store.index(index)
            watch = self.watches[table, index] = Watch(store, index)
        read = watch.reads.get(value)
        if read is None:
            read = watch.reads[value] = Read(watch, value)
        self.log.append(read)
        return watch.store.select(index, value)

    def all(self, table: Table[K, R]) -> tuple[tuple[K, R], ...]:
        """All rows, sorted by key."""
        return self.by(table, WHOLE, None)

    def _store(self, table: Table[K, R]) -> Store[K, R]:
        store = self._stores.get(table)
        if store is None:
            raise WiringError(f"step {self._name} reads table {table.name}, which is not declared before it")
        self.tables.add(table)
        return store
