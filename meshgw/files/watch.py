"""Notices changed files by polling, which works on every file system, ConfigMap mounts included."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from os import PathLike
from typing import Final

from meshgw.files.scan import Scan, normalise, scan

DEFAULT_INTERVAL: Final = 0.05
"""Seconds between two looks."""

_REST: Final = 9
"""A look that took one second is followed by at least nine seconds of rest, so that many files do not cost a core."""


async def watch(
    paths: Sequence[str | PathLike[str]], *, since: Scan | None = None, interval: float = DEFAULT_INTERVAL
) -> AsyncIterator[Scan]:
    """A scan for every change; without ``since`` the first one comes at once.

    The looks are taken in a thread, so that the event loop does not wait for the file system. A scan
    with a file so young that a further change would be invisible is followed by another one.
    """
    names = normalise(paths)
    loop = asyncio.get_running_loop()
    last = since
    while True:
        started = loop.time()
        current = await asyncio.to_thread(scan, names)
        spent = loop.time() - started
        if last is None or last.unsettled or current.differs(last):
            yield current
        last = current
        await asyncio.sleep(max(interval, _REST * spent))
