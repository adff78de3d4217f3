"""Questions to a graph: why a row is as it is, what each table holds, how the steps hang together.

Answers name tables, keys and index values, never the content of rows, so they are safe to print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from meshgw.engine.commit import Graph
from meshgw.engine.reads import Read
from meshgw.engine.table import WHOLE, Fault, Table

K = TypeVar("K")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Cause:
    """Something a row depends on: a source row, or a recorded read of a table by key, by index or whole.

    `index` is None for a key and `*` for the whole table. `keys` are the rows found there now: none is a miss.
    `changed` is the sequence of the last commit that changed it (of a read: while anything depended on it, else 0).
    """

    table: str
    index: str | None
    value: Any
    keys: tuple[Any, ...]
    changed: int

    @property
    def hit(self) -> bool:
        """Whether there is any such row now."""
        return bool(self.keys)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row is there, or absent. `step` is the kind of step, empty for a source table.

    `unit` is the source row or group that it comes from; `changed` the sequence of the last commit that changed the
    row, 0 if it is absent.
    """

    table: str
    key: Any
    changed: int
    step: str
    unit: Any
    sources: tuple[Cause, ...]
    reads: tuple[Cause, ...]
    faults: tuple[Fault, ...]

    @property
    def latest(self) -> tuple[Cause, ...]:
        """What changed in the commit that last changed the row."""
        return tuple(cause for cause in (*self.sources, *self.reads) if cause.changed == self.changed)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a table holds: sorted keys, and of its step the kind, the tables it goes over and reads, reads recorded."""

    keys: tuple[Any, ...]
    indexes: tuple[str, ...]
    step: str
    sources: tuple[str, ...]
    reads: tuple[str, ...]
    recorded: int
    faults: tuple[Fault, ...]


def why(graph: Graph, table: Table[K, R], key: K) -> Reason:
    """What the row under a key comes from. Of an absent row: what it would come from if it bears its source's key."""
    stage, changed = graph.stage(table), graph.store(table).stamp(key)
    own = tuple(fault for fault in graph.store(table).faults() if fault.key == key)
    if stage is None:
        return Reason(table.name, key, changed, "", key, (), (), own)
    unit = stage.unit(key)
    if unit is None:
        return Reason(table.name, key, changed, type(stage.step).__name__, None, (), (), ())
    name = stage.label(unit)
    sources = tuple(_source(graph, source, source_key) for source, source_key in stage.inputs(unit))
    reads = tuple(_read(read) for read in stage.reads.get(unit, ()))
    faults = tuple(fault for fault in stage.faults() if fault.key == name)
    return Reason(table.name, key, changed, type(stage.step).__name__, name, sources, reads, (*own, *faults))


def dump(graph: Graph) -> Mapping[str, Contents]:
    """What every table holds, by name in order of declaration."""
    return {name: _contents(graph, table) for name, table in graph.tables.items()}


def dot(graph: Graph) -> str:
    """The graph as DOT text: sources are boxes, steps point with solid edges to what they write, reads are dashed."""
    lines = ["digraph engine {", "  rankdir=LR;"]
    for name, contents in dump(graph).items():
        shape = "ellipse" if contents.step else "box"
        lines.append(f'  "{name}" [shape={shape}, label="{name}\\n{len(contents.keys)}"];')
        lines += [f'  "{source}" -> "{name}" [label="{contents.step}"];' for source in contents.sources]
        lines += [f'  "{read}" -> "{name}" [style=dashed];' for read in contents.reads]
    return "\n".join([*lines, "}", ""])


def _source(graph: Graph, table: Table[Any, Any], key: Any) -> Cause:
    changed = graph.store(table).stamp(key)
    return Cause(table.name, None, key, (key,) if changed else (), changed)


def _read(read: Read) -> Cause:
    store, index = read.watch.store, read.watch.index
    if index is not None:
        keys = tuple(key for key, _ in store.select(index, read.value))
    else:
        keys = (read.value,) if read.value in store.rows else ()
    return Cause(store.table.name, index, read.value, keys, read.changed)


def _contents(graph: Graph, table: Table[Any, Any]) -> Contents:
    store, stage = graph.store(table), graph.stage(table)
    keys = tuple(key for key, _ in store.select(WHOLE, None))
    indexes, faults = tuple(table.indexes), tuple(store.faults())
    if stage is None:
        return Contents(keys, indexes, "", (), (), 0, faults)
    read = tuple(sorted({watch.store.table.name for watch in stage.tracker.watches.values() if watch.reads}))
    recorded = sum(len(reads) for reads in stage.reads.values())
    sources = tuple(source.name for source in stage.step.sources)
    return Contents(keys, indexes, type(stage.step).__name__, sources, read, recorded, (*faults, *stage.faults()))
