"""The one bounded poll, for what offers no event to await."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    check: Callable[[], T | Awaitable[T]], *, what: str = "", within: float = 5.0, interval: float = 0.02
) -> T:
    """Return the first truthy value of `check` (plain or async); after `within` seconds fail with the last outcome.

    An AssertionError or OSError raised by `check` counts as "not yet".
    """
    deadline = asyncio.get_running_loop().time() + within
    while True:
        last: object
        try:
            outcome = check()
            value = await outcome if inspect.isawaitable(outcome) else outcome
            if value:
                return value
            last = value
        except (AssertionError, OSError) as error:
            last = error
        if asyncio.get_running_loop().time() >= deadline:
            raise AssertionError(f"not within {within} s: {what or check}; last: {last!r}")
        await asyncio.sleep(interval)
