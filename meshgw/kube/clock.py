"""Time, sleep and chance as one part, so that tests need not wait; and waits that grow."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol


class Clock(Protocol):
    """Where this package gets time and chance from."""

    def now(self) -> float:
        """Return seconds of a clock that nobody sets and that runs on while the process or the machine is stopped."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""

    def chance(self) -> float:
        """Return a number drawn evenly from 0 to 1."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return the seconds since the machine started, suspension included where the system counts it."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)

    def chance(self) -> float:
        """Return a number drawn evenly from 0 to 1."""
        return random.random()  # noqa: S311 - spreads load, guards nothing


class Backoff:
    """Waits that double from `first` to `most` seconds; each is cut by up to a half, so that clients do not align."""

    def __init__(self, clock: Clock, *, first: float = 0.2, most: float = 30.0) -> None:
        self._clock = clock
        self._first = first
        self._most = most
        self.failures = 0
        """How many there were since the last success."""

    def next(self) -> float:
        """Return the seconds to wait after one more failure."""
        delay = min(self._most, self._first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return delay * (1 - self._clock.chance() / 2)

    def reset(self) -> None:
        """Start anew, after a success."""
        self.failures = 0
