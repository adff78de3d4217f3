"""Objects of the API server as facts of the pipeline: batches of what changed, and what could not be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from meshgw.api.meta import ObjectRef
from meshgw.api.registry import Kind
from meshgw.control import Batch
from meshgw.engine import Table
from meshgw.ir.finding import Finding
from meshgw.kube.seen import Observed, Seen
from meshgw.pipeline import list_facts

_STATUS_VERB = "patch status"


class ClusterFacts:
    """What reflectors have seen and nobody has committed yet, and what writers need of objects.

    `on_observed` is told the objects whose version, and so perhaps status, is another one than before.
    """

    def __init__(self, *, on_observed: Callable[[ObjectRef], None] = lambda _ref: None) -> None:
        self.changed = asyncio.Event()
        """Set while there is something to take."""
        self._tables: dict[str, Table[Any, Any]] = list_facts()
        self._pending: Batch = {}
        self._observed: dict[ObjectRef, Observed] = {}
        self._problems: dict[ObjectRef, tuple[Finding, ...]] = {}
        self._on_observed = on_observed

    def see(self, kind: Kind, seen: Sequence[Seen]) -> None:
        """Take in what a reflector has seen: the sink of all of them."""
        table = self._tables[kind.name]
        pending = self._pending.setdefault(table, {})
        writes_status = _STATUS_VERB in kind.verbs
        for one in seen:
            ref = ObjectRef(kind.name, *one.key)
            if one.problems:
                self._problems[ref] = one.problems
            else:
                self._problems.pop(ref, None)
            if one.object is not None or one.gone:
                pending[one.key] = one.object
            if writes_status:
                self._keep(ref, one.observed)
        self.changed.set()

    def take(self) -> Batch:
        """Return what changed since the last call."""
        batch, self._pending = self._pending, {}
        self.changed.clear()
        return {table: rows for table, rows in batch.items() if rows}

    def peek(self, *tables: Table[Any, Any]) -> Batch:
        """Return what waits for these tables; it goes on waiting."""
        return {table: self._pending[table] for table in tables if self._pending.get(table)}

    def observed(self, ref: ObjectRef) -> Observed | None:
        """Return what writers need of an object whose status is the controller's business, None if there is none."""
        return self._observed.get(ref)

    def problems(self) -> list[Finding]:
        """Return what could not be read."""
        return [finding for found in self._problems.values() for finding in found]

    def _keep(self, ref: ObjectRef, observed: Observed | None) -> None:
        before = self._observed.get(ref)
        if observed is None:
            self._observed.pop(ref, None)
        else:
            self._observed[ref] = observed
        if observed != before:
            self._on_observed(ref)
