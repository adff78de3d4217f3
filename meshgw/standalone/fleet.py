"""The Envoys of one instance: one per Gateway, started, replaced and stopped as Gateways come and go."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from meshgw.api.meta import Key
from meshgw.emit.bootstrap import Bootstrap, build_bootstrap
from meshgw.observe.log import get_logger
from meshgw.standalone.runtime import RuntimeDirectory
from meshgw.standalone.supervise import EnvoyFailedError, Supervisor, SupervisorEvent, Timing

_log = get_logger("fleet")


class ProxyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What all proxies of an instance share."""

    binary: Path
    concurrency: int | None = None
    detach: bool = False
    all_stats: bool = False
    timing: Timing = Timing()


class Fleet:
    """Runs the proxies of the wanted Gateways inside the given task group.

    `on_change` is called whenever a proxy's state (`states`) changed.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        runtime: RuntimeDirectory,
        options: ProxyOptions,
        *,
        on_change: Callable[[Key, SupervisorEvent | EnvoyFailedError], None],
    ) -> None:
        self.states: dict[Key, str] = {}
        self.errors: dict[Key, str] = {}
        self._tasks, self._runtime, self._options, self._on_change = tasks, runtime, options, on_change
        self._supervisors: dict[Key, Supervisor] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._latest: dict[Key, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._stopping = False

    def want(self, gateways: set[Key]) -> None:
        """Start proxies of new Gateways and stop those of Gateways that are gone; no effect once `stop` was called."""
        if self._stopping:
            return
        for key in sorted(self._supervisors.keys() - gateways):
            supervisor = self._supervisors.pop(key)
            self.states.pop(key, None)
            self.errors.pop(key, None)
            task = self._tasks.create_task(supervisor.stop(), name=f"stop {key}")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for key in sorted(gateways - self._supervisors.keys()):
            self._supervisors[key] = supervisor = self._supervisor(key)
            self.states[key] = "starting"
            life = self._tasks.create_task(self._run(key, supervisor, self._latest.get(key)), name=f"proxy {key}")
            self._latest[key] = life
            self._lives.add(life)
            life.add_done_callback(functools.partial(self._forget, key))

    async def stop(self) -> None:
        """Drain and end all proxies; with `detach` leave those of wanted Gateways serving."""
        self._stopping = True
        supervisors = list(self._supervisors.values())
        self._supervisors.clear()
        if not self._options.detach:
            await asyncio.gather(*(supervisor.stop() for supervisor in supervisors), *self._leaving)
            return
        await asyncio.gather(*self._leaving)
        lives = list(self._lives)
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    def is_live(self, key: Key) -> bool:
        """Whether the Gateway's Envoy has its first configuration."""
        supervisor = self._supervisors.get(key)
        return supervisor is not None and supervisor.live

    def pid(self, key: Key) -> int | None:
        """Return the process id of a Gateway's Envoy."""
        supervisor = self._supervisors.get(key)
        return supervisor.pid if supervisor else None

    def _supervisor(self, key: Key) -> Supervisor:
        options = self._options
        directory = self._runtime.proxy(*key)
        bootstrap: dict[str, Any] = build_bootstrap(
            Bootstrap(
                node_id=str(key),
                cluster=str(key),
                xds=self._runtime.xds,
                admin=directory.admin,
                all_stats=options.all_stats,
            )
        )
        return Supervisor(
            name=str(key),
            binary=options.binary,
            bootstrap=bootstrap,
            directory=directory,
            concurrency=options.concurrency,
            detach=options.detach,
            timing=options.timing,
            on_event=lambda event: self._note(key, event),
        )

    def _forget(self, key: Key, life: asyncio.Task[None]) -> None:
        self._lives.discard(life)
        if self._latest.get(key) is life:
            del self._latest[key]

    async def _run(self, key: Key, supervisor: Supervisor, earlier: asyncio.Task[None] | None) -> None:
        """Run a proxy, once the one that a Gateway of this name had before is gone: they share a directory."""
        try:
            if earlier is not None:
                await asyncio.wait({earlier})
            await supervisor.run()
        except EnvoyFailedError as error:
            _log.error("envoy failed", gateway=str(key), cause=str(error))
            if self._supervisors.get(key) is supervisor:
                self.states[key] = "failed"
                self.errors[key] = str(error)
                self._on_change(key, error)
        finally:
            if self._supervisors.get(key) is supervisor and self.states.get(key) != "failed":
                with contextlib.suppress(KeyError):
                    self._supervisors.pop(key)

    def _note(self, key: Key, event: SupervisorEvent) -> None:
        details = {name: value for name, value in (("pid", event.pid), ("cause", event.text)) if value}
        report = _log.warning if event.kind == "died" else _log.info
        report(f"envoy {event.kind}", gateway=str(key), **details)
        if key in self.states:
            self.states[key] = event.kind
            if event.kind == "died":
                self.errors[key] = event.text
            elif event.kind == "live":
                self.errors.pop(key, None)
        self._on_change(key, event)


async def end_strangers(runtime: RuntimeDirectory, wanted: set[Key], options: ProxyOptions) -> None:
    """Drain and end Envoys that an earlier, detached run left for Gateways that no longer exist.

    Before addresses are claimed: a new Gateway may want one that a stranger still has.
    """
    mine = {runtime.proxy(*key).path for key in wanted}
    leftovers = (
        Supervisor(
            name=directory.path.name, binary=options.binary, bootstrap={}, directory=directory, timing=options.timing
        )
        for directory in runtime.known_proxies()
        if directory.path not in mine
    )
    await asyncio.gather(*(leftover.end_leftover() for leftover in leftovers))
