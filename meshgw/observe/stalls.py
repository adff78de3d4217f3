"""A monitor of the event loop: how late due timers fire, which is how long something blocked it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

PERIOD: Final = 0.1


async def watch_stalls(report: Callable[[float], None], *, period: float = PERIOD) -> None:
    """Report the lateness of a periodic timer in seconds, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + period
        await asyncio.sleep(period)
        report(max(0.0, loop.time() - due))
