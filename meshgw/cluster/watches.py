"""The reflectors that run: one for each kind and namespace that is wanted, started and ended as that changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from meshgw.api.registry import Kind
from meshgw.cluster.scope import Watch
from meshgw.ir.finding import Finding
from meshgw.observe.log import get_logger

_log = get_logger("watches")
_TELL: Final = 5.0
"""Seconds after which a wait says what it still waits for."""


class Reflecting(Protocol):
    """Keeps up with the objects of one kind; `meshgw.kube.reflector.Reflector` is one."""

    @property
    def synced(self) -> asyncio.Event:
        """Set once all objects have been passed on."""

    async def run(self) -> None:
        """Keep up until cancelled."""

    def drop(self) -> None:
        """Tell that all objects are gone."""


Report = Callable[[Kind, str, Finding | None], None]
Make = Callable[[Watch, Report], Reflecting]
"""Makes the reflector of a watch; the report takes kind, namespace and what keeps it from reading, None for nothing."""


class Watches:
    """Runs exactly the wanted watches, in the given task group; objects of one that ends are gone."""

    def __init__(self, tasks: asyncio.TaskGroup, make: Make) -> None:
        self._tasks, self._make = tasks, make
        self._running: dict[Watch, Reflecting] = {}
        self._work: dict[Watch, tuple[asyncio.Task[None], ...]] = {}
        self._problems: dict[Watch, Finding] = {}
        self._moved = asyncio.Event()

    def want(
        self, wanted: Iterable[Watch], *, among: Callable[[Watch], bool] = lambda _watch: True
    ) -> frozenset[Watch]:
        """Run these watches, and end others for which `among` holds; returns the new ones."""
        asked = frozenset(wanted)
        for watch in [watch for watch in self._running if among(watch) and watch not in asked]:
            self._end(watch)
        new = asked - self._running.keys()
        for watch in sorted(new, key=str):
            reflector = self._running[watch] = self._make(watch, self._report)
            self._work[watch] = (
                self._tasks.create_task(reflector.run(), name=f"watch {watch}"),
                self._tasks.create_task(self._await_synced(reflector), name=f"first look at {watch}"),
            )
        return new

    def waiting(self, among: Iterable[Watch] | None = None) -> list[str]:
        """Return the names of watches that have not yet seen all, of these or of all, sorted."""
        asked = self._running.keys() if among is None else self._running.keys() & set(among)
        return sorted(str(watch) for watch in asked if not self._running[watch].synced.is_set())

    def problems(self) -> list[Finding]:
        """Return what keeps watches from reading, although the API server answers."""
        return list(self._problems.values())

    async def wait_synced(self, watches: Iterable[Watch], *, or_refused: bool = False) -> None:
        """Wait until these have seen all, or are no longer wanted; with `or_refused` those that may not read count."""
        asked = set(watches)
        while True:
            asked &= self._running.keys()
            refused = self._problems.keys() if or_refused else set[Watch]()
            asked = {watch for watch in asked if watch not in refused and not self._running[watch].synced.is_set()}
            if not asked:
                return
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TELL):
                    await self._moved.wait()
                    continue
            _log.info("waiting for the API server", objects=", ".join(sorted(map(str, asked))))

    def stop(self) -> None:
        """End all; what they have seen stays."""
        for work in self._work.values():
            for task in work:
                task.cancel()

    def _end(self, watch: Watch) -> None:
        for task in self._work.pop(watch):
            task.cancel()
        self._running.pop(watch).drop()
        self._problems.pop(watch, None)
        self._moved.set()

    async def _await_synced(self, reflector: Reflecting) -> None:
        await reflector.synced.wait()
        self._moved.set()

    def _report(self, kind: Kind, namespace: str, problem: Finding | None) -> None:
        watch = Watch(kind, namespace)
        if problem is None:
            self._problems.pop(watch, None)
        elif watch in self._running:
            self._problems[watch] = problem
        self._moved.set()
