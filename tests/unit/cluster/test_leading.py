"""Writers run while this replica leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshgw.cluster.leading import Leading
from tests.rig.waiting import eventually


class Writer:
    """Counts how often it began, and whether it writes now."""

    def __init__(self) -> None:
        self.turns = 0
        self.writes = False
        self.drained = 0.0

    async def run(self) -> None:
        self.turns += 1
        self.writes = True
        try:
            await asyncio.Event().wait()
        finally:
            self.writes = False

    async def drain(self, within: float) -> int:
        self.drained = within
        return 0


class Election:
    """An elector that lets itself be told."""

    identity = "me"


@pytest.fixture
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        yield group


async def test_without_an_election_a_replica_writes_all_the_time(tasks: asyncio.TaskGroup) -> None:
    leading, writer = Leading(), Writer()
    running = tasks.create_task(leading.run([writer]))
    await eventually(lambda: writer.writes)
    async with leading.hold():
        pass
    await leading.finish([writer])
    assert writer.drained > 0
    running.cancel()


async def test_writers_begin_and_end_with_the_lead(tasks: asyncio.TaskGroup) -> None:
    leading, writer = Leading(), Writer()
    leading.elector = Election()  # type: ignore[assignment]  # nothing of it is used here
    running = tasks.create_task(leading.run([writer]))
    await asyncio.sleep(0)
    assert not writer.writes
    await leading.finish([writer])
    assert writer.drained == 0
    for turn in (1, 2):
        leading.changed(leads=True)
        await eventually(lambda: writer.writes)
        leading.changed(leads=False)
        await eventually(lambda: not writer.writes)
        assert writer.turns == turn
    running.cancel()
