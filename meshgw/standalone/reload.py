"""Follows the files: reads what changed and commits it, and removes only what is still gone a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from meshgw.control import Batch
from meshgw.files.scan import Change
from meshgw.files.watch import watch
from meshgw.observe.metrics import Metrics
from meshgw.standalone.facts import FileFacts

_REMOVE_AFTER = 0.075
"""Seconds for which objects must be gone from the files: many programs replace a file in two steps."""


class Reloads:
    """The reloads of one instance; `commit` gets each batch, also an empty one when what is wrong has changed."""

    def __init__(self, paths: Sequence[str], commit: Callable[[Batch], None], metrics: Metrics) -> None:
        self.facts = FileFacts(paths)
        self._paths, self._commit, self._metrics = paths, commit, metrics
        self._removal: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Read everything for the first time."""
        self.facts.read()
        self._commit(self.facts.take())

    async def watch(self, *, interval: float) -> None:
        """Follow the files until cancelled; `interval` is in seconds."""
        async for change in watch(self._paths, interval=interval):
            self.reload(change)

    def reload(self, change: Change | None = None) -> None:
        """Read the files again, or only those of a change, and commit what is new in them.

        What is gone from them is removed if another look, a moment later, does not find it either.
        """
        self._read(change, removals=False)
        if self.facts.removing and self._removal is None:
            self._removal = asyncio.get_running_loop().call_later(_REMOVE_AFTER, self._remove)

    def stop(self) -> None:
        """Remove nothing more."""
        if self._removal is not None:
            self._removal.cancel()

    def _remove(self) -> None:
        self._removal = None
        self._read(None, removals=True)

    def _read(self, change: Change | None, *, removals: bool) -> None:
        self._metrics.reloads.inc()
        self.facts.read(change)
        batch = self.facts.take(removals=removals)
        if batch or self.facts.moved:
            self._commit(batch)
