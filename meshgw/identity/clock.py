"""Time, sleep and chance as one part, so that tests run a day of rotations at once."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where identity code gets time and chance from."""

    def now(self) -> datetime:
        """Return the wall clock, aware and in UTC."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""

    def jitter(self) -> float:
        """Return a number drawn evenly from -1 to 1."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the wall clock, aware and in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        """Return a number drawn evenly from -1 to 1."""
        return random.uniform(-1.0, 1.0)  # noqa: S311 - spreads load, guards nothing
