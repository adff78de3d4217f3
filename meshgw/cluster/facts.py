"""Objects of the API server as facts of the pipeline: batches of what changed, and what could not be read."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

from meshgw.api.meta import ObjectRef
from meshgw.api.registry import Kind
from meshgw.control import Batch
from meshgw.engine import Table
from meshgw.ir.finding import Finding
from meshgw.kube.seen import Seen
from meshgw.pipeline import list_facts

K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Hashable)


class ClusterFacts:
    """What reflectors have seen and nobody has committed yet."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set while there is something to take."""
        self.moved = False
        """Whether somebody has asked for bindings anew since the last `take`."""
        self._tables: dict[str, Table[Any, Any]] = list_facts()
        self._pending: Batch = {}
        self._problems: dict[ObjectRef, tuple[Finding, ...]] = {}
        self._told: dict[str, tuple[Finding, ...]] = {}

    def see(self, kind: Kind, seen: Sequence[Seen]) -> None:
        """Take in what a reflector has seen: the sink of all of them."""
        table = self._tables[kind.name]
        pending = self._pending.setdefault(table, {})
        for one in seen:
            ref = ObjectRef(kind.name, *one.key)
            if one.problems:
                self._problems[ref] = one.problems
            else:
                self._problems.pop(ref, None)
            if one.object is not None or one.gone:
                pending[one.key] = one.object
        self.changed.set()

    def put(self, table: Table[K, R], key: K, row: R | None) -> None:
        """Set a fact that is no object."""
        self._pending.setdefault(table, {})[key] = row
        self.changed.set()

    def offer(self, batch: Batch) -> None:
        """Set facts that have been seen before, but for those that have been seen anew since."""
        for table, rows in batch.items():
            self._pending[table] = {**rows, **self._pending.get(table, {})}
        self.changed.set()

    def tell(self, topic: str, findings: Sequence[Finding]) -> None:
        """Take all that is wrong with something that is no fact, instead of what was said of it before."""
        self._told[topic] = tuple(findings)

    def poke(self) -> None:
        """Ask for a commit, also of nothing: something that is no fact has moved a Gateway."""
        self.moved = True
        self.changed.set()

    def take(self) -> Batch:
        """Return what changed since the last call."""
        batch, self._pending = self._pending, {}
        self.moved = False
        self.changed.clear()
        return {table: rows for table, rows in batch.items() if rows}

    def peek(self, *tables: Table[Any, Any]) -> Batch:
        """Return what waits for these tables; it goes on waiting."""
        return {table: self._pending[table] for table in tables if self._pending.get(table)}

    def problems(self) -> list[Finding]:
        """Return what could not be read."""
        return [finding for each in (self._problems, self._told) for found in each.values() for finding in found]
