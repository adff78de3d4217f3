"""Who writes: the replica that holds the Lease, and no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from meshgw.kube.lease import Elector

_DRAIN: Final = 2.0
"""Seconds for what still has to be written at the end."""


class Writer(Protocol):
    """Writes while it runs."""

    async def run(self) -> None:
        """Write until cancelled."""

    async def drain(self, within: float) -> int:
        """Write what waits, for so many seconds at most; return how much was left."""


class Leading:
    """Runs the writers while this replica leads, which it always does without an `elector`."""

    def __init__(self) -> None:
        self._leads = asyncio.Event()
        self._lost = asyncio.Event()
        self.elector: Elector | None = None

    def changed(self, leads: bool) -> None:  # noqa: FBT001 - called by the elector
        """Take note of who leads."""
        (self._leads.set if leads else self._leads.clear)()
        (self._lost.clear if leads else self._lost.set)()

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Give the time for one write; raises `NotLeaderError`."""
        if self.elector is None:
            yield
            return
        async with self.elector.hold():
            yield

    async def run(self, writers: Sequence[Writer]) -> None:
        """Let the writers write whenever this replica leads, until cancelled."""
        if self.elector is None:
            self.changed(leads=True)
        while True:
            await self._leads.wait()
            async with asyncio.TaskGroup() as tasks:
                work = [tasks.create_task(writer.run(), name="writer") for writer in writers]
                await self._lost.wait()
                for each in work:
                    each.cancel()

    async def finish(self, writers: Sequence[Writer]) -> None:
        """Write what waits, if this replica leads, for a moment at most."""
        if self._leads.is_set():
            await asyncio.gather(*(writer.drain(_DRAIN) for writer in writers))
