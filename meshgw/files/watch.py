"""Notices changed files by polling, which works on every file system, ConfigMap mounts included."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from os import PathLike
from typing import Final

from meshgw.files.scan import Change, Scan, compare, normalise, scan

DEFAULT_INTERVAL: Final = 0.05
"""Seconds between two looks."""

_REST: Final = 3
"""A look that took one second is followed by at least three seconds of rest, so that many files do not cost a core."""


async def watch(
    paths: Sequence[str | PathLike[str]], *, since: Scan | None = None, interval: float = DEFAULT_INTERVAL
) -> AsyncIterator[Change]:
    """Every change; without ``since`` the first one comes at once, and is of all files.

    The looks are taken in a thread, so that the event loop does not wait for the file system. A scan
    with a file so young that a further change would be invisible is followed by another one.
    """
    names = normalise(paths)
    loop = asyncio.get_running_loop()
    last = since
    while True:
        started = loop.time()
        current, change = await asyncio.to_thread(_look, names, last)
        spent = loop.time() - started
        if change is not None:
            yield change
        last = current
        await asyncio.sleep(max(interval, _REST * spent))


def _look(paths: Sequence[str], last: Scan | None) -> tuple[Scan, Change | None]:
    current = scan(paths)
    if last is None or last.unsettled or current.differs(last):
        return current, compare(current, last)
    return current, None
