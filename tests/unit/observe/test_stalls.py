"""The monitor of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time

from meshgw.observe.stalls import watch_stalls


async def test_a_blocked_loop_is_reported_with_its_delay() -> None:
    found: list[float] = []
    enough = asyncio.Event()

    def report(seconds: float) -> None:
        found.append(seconds)
        if seconds > 0.15:
            enough.set()

    watch = asyncio.get_running_loop().create_task(watch_stalls(report, period=0.01))
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - this is the stall
    async with asyncio.timeout(5):
        await enough.wait()
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch
    assert all(seconds >= 0 for seconds in found)
