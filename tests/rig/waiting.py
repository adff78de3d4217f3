"""The one bounded poll, for what offers no event to await."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(
    check: Callable[[], Awaitable[T]], *, what: str = "", within: float = 5.0, interval: float = 0.02
) -> T: ...
@overload
async def eventually(check: Callable[[], T], *, what: str = "", within: float = 5.0, interval: float = 0.02) -> T: ...
async def eventually(check: Callable[[], Any], *, what: str = "", within: float = 5.0, interval: float = 0.02) -> Any:
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
