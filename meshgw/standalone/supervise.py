"""Keeps one Envoy running: starts or adopts it, watches it, restarts it with back-off, drains and stops it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from meshgw.standalone.admin import Admin
from meshgw.standalone.cause import Cause, explain_exit
from meshgw.standalone.process import (
    Process,
    ProcessState,
    adopt,
    boot_id,
    load_state,
    log_tail,
    save_state,
    spawn,
    start_time,
)
from meshgw.standalone.runtime import ProxyDirectory

_LARGEST_LOG = 16 * 2**20


class EnvoyFailedError(Exception):
    """Envoy cannot run here; starting it again would not help. One line with cause and remedy."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds, in seconds."""

    poll: float = 0.02
    answer_within: float = 15.0
    """A new Envoy whose admin interface is silent for longer is killed and started again."""
    first_delay: float = 0.1
    longest_delay: float = 10.0
    healthy_after: float = 10.0
    """An Envoy that lived this long starts its next back-off from the beginning."""
    drain_within: float = 5.0
    """How long open connections may hold up a stop."""
    kill_after: float = 5.0
    """How long Envoy may take to end once asked."""
    drain_seconds: int = 10
    """Envoy's own drain time: how long connections of a replaced listener may live on."""


class SupervisorEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened to the process: `delay` is the time to the next start."""

    kind: Literal["started", "adopted", "live", "died", "stopped", "left"]
    name: str
    pid: int = 0
    text: str = ""
    delay: float = 0.0


class Supervisor:
    """Supervises one Envoy. `run` does the work; everything else may be called while it runs.

    With `detach` Envoy outlives the controller: ending `run` other than by `stop` leaves it serving, and the next
    supervisor of the same directory, binary and bootstrap takes it over. Without, it dies with the controller, however
    that dies.
    """

    def __init__(
        self,
        *,
        name: str,
        binary: Path,
        bootstrap: Mapping[str, Any],
        directory: ProxyDirectory,
        concurrency: int | None = None,
        log_level: str = "warning",
        detach: bool = False,
        timing: Timing | None = None,
        on_event: Callable[[SupervisorEvent], None] = lambda _event: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.directory = directory
        self.admin = Admin(directory.admin)
        self.timing = timing or Timing()
        self.restarts = 0
        self._binary, self._detach = binary, detach
        self._bootstrap = msgspec.json.encode(bootstrap, order="sorted")
        self._arguments = _arguments(directory, concurrency, log_level, self.timing.drain_seconds)
        self._on_event, self._jitter = on_event, jitter
        self._process: Process | None = None
        self._log_offset = 0
        self._live = asyncio.Event()
        self._lived = False
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def pid(self) -> int | None:
        """The process id of the running Envoy, None between two lives."""
        return self._process.pid if self._process is not None else None

    @property
    def live(self) -> bool:
        """Whether this life of Envoy has reached LIVE: it has its first configuration."""
        return self._live.is_set()

    async def wait_live(self) -> None:
        """Wait until Envoy is LIVE; bound it with asyncio.timeout, as LIVE needs an xDS server that answers."""
        await self._live.wait()

    async def run(self) -> None:
        """Keep Envoy running until `stop` or cancellation; raises EnvoyFailedError when it can never run."""
        self._ended.clear()
        attempt = 0
        clock = asyncio.get_running_loop().time
        try:
            while not self._stopping.is_set():
                began = clock()
                cause = await self._one_life(adopting=attempt == 0)
                if cause is None:
                    return
                if cause.lasting and not self._lived:
                    raise EnvoyFailedError(f"{self.name}: {cause.text}")
                attempt = 1 if clock() - began >= self.timing.healthy_after else attempt + 1
                await self._back_off(attempt, cause)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Drain, then end Envoy, and with it `run`; bounded by `drain_within` plus twice `kill_after`."""
        self._stopping.set()
        await self._ended.wait()

    async def end_leftover(self) -> bool:
        """End the Envoy that an earlier controller left in this directory; returns whether there was one.

        For Gateways that are gone. Call it while holding the runtime directory's lock, and instead of `run`.
        """
        state = load_state(self.directory.state)
        process = adopt(state) if state is not None else None
        if process is not None:
            await end_process(process, self.admin, self.timing)
        self.directory.state.unlink(missing_ok=True)
        return process is not None

    async def _one_life(self, *, adopting: bool) -> Cause | None:
        """Return why Envoy ended, None when it was asked to."""
        self._lived = False
        try:
            process = await self._obtain(adopting=adopting)
        except OSError as error:
            return Cause(text=f"cannot run {self._binary}: {error.strerror or error}; use --envoy", lasting=True)
        self._process = process
        try:
            async with asyncio.TaskGroup() as tasks:
                ended = tasks.create_task(process.wait(), name=f"{self.name} exit")
                stopping = tasks.create_task(self._stopping.wait(), name=f"{self.name} stop")
                watching = tasks.create_task(self._watch(process), name=f"{self.name} watch")
                await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
                watching.cancel()
                stopping.cancel()
                if not ended.done():
                    await end_process(process, self.admin, self.timing)
                code = await ended
        except asyncio.CancelledError:
            await self._abandon(process)
            raise
        finally:
            self._process = None
            self._live.clear()
        self.directory.state.unlink(missing_ok=True)
        if self._stopping.is_set():
            self._tell("stopped", pid=process.pid)
            return None
        return explain_exit(code, log_tail(self.directory.log, after=self._log_offset))

    async def _obtain(self, *, adopting: bool) -> Process:
        """Return a running Envoy: the one an earlier controller left when it fits, else a new one."""
        self.directory.create()
        state = load_state(self.directory.state) if adopting else None
        old = adopt(state) if state is not None else None
        if state is not None and old is not None:
            fits = self._detach and state.fingerprint == self._fingerprint()
            if fits and await self.admin.state() is not None:
                self._tell("adopted", pid=old.pid)
                return old
            await end_process(old, self.admin, self.timing)
        return self._start()

    def _start(self) -> Process:
        directory = self.directory
        for leftover in (directory.state, directory.admin_socket):
            leftover.unlink(missing_ok=True)
        directory.bootstrap.write_bytes(self._bootstrap)
        self._log_offset = _trim_log(directory.log)
        process = spawn([str(self._binary), *self._arguments], directory.log, detached=self._detach)
        started = start_time(process.pid)
        if started is not None:
            state = ProcessState(
                pid=process.pid,
                started=started,
                boot=boot_id(),
                admin=directory.admin,
                fingerprint=self._fingerprint(),
            )
            save_state(directory.state, state)
        self._tell("started", pid=process.pid)
        return process

    async def _watch(self, process: Process) -> None:
        """See Envoy become LIVE; kill one that never answers; keep its log bounded."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timing.answer_within
        answered = False
        while (state := await self.admin.state()) != "LIVE":
            answered = answered or state is not None
            if not answered and loop.time() >= deadline:
                process.signal(signal.SIGKILL)
                return
            await asyncio.sleep(self.timing.poll)
        self._lived = True
        self._live.set()
        self._tell("live", pid=process.pid)
        while True:
            await asyncio.sleep(60)
            self._log_offset = min(self._log_offset, _trim_log(self.directory.log))

    async def _abandon(self, process: Process) -> None:
        """`run` is cancelled: leave a detached Envoy serving, end any other at once."""
        if self._detach and not self._stopping.is_set():
            process.release()
            self._tell("left", pid=process.pid)
            return
        await end_process(process, self.admin, self.timing, drain=False)
        self.directory.state.unlink(missing_ok=True)

    async def _back_off(self, attempt: int, cause: Cause) -> None:
        timing = self.timing
        ceiling = min(timing.longest_delay, timing.first_delay * 2.0 ** min(attempt - 1, 30))
        delay = ceiling * (0.5 + self._jitter() / 2)
        self.restarts += 1
        self._tell("died", text=cause.text, delay=delay)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._stopping.wait()

    def _fingerprint(self) -> str:
        """Return the hash of all that makes this Envoy this one."""
        digest = hashlib.sha256(self._bootstrap)
        status = self._binary.stat()
        identity = [str(self._binary.resolve()), str(status.st_size), str(status.st_mtime_ns), *self._arguments]
        digest.update("\0".join(identity).encode())
        return digest.hexdigest()

    def _tell(
        self,
        kind: Literal["started", "adopted", "live", "died", "stopped", "left"],
        *,
        pid: int = 0,
        text: str = "",
        delay: float = 0.0,
    ) -> None:
        self._on_event(SupervisorEvent(kind=kind, name=self.name, pid=pid, text=text, delay=delay))


async def end_process(process: Process, admin: Admin, timing: Timing, *, drain: bool = True) -> None:
    """Drain, terminate, and at last kill an Envoy; returns when it is gone."""
    if drain and await admin.state(within=0.5) in ("LIVE", "DRAINING"):
        with contextlib.suppress(OSError, TimeoutError, msgspec.DecodeError):
            async with asyncio.timeout(timing.drain_within):
                await admin.drain()
                while await admin.active_connections():  # noqa: ASYNC110 - Envoy offers no event for it
                    await asyncio.sleep(timing.poll)
    for ask in (signal.SIGTERM, signal.SIGKILL):
        process.signal(ask)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timing.kill_after):
                await process.wait()
                return


def _arguments(directory: ProxyDirectory, concurrency: int | None, log_level: str, drain_seconds: int) -> list[str]:
    arguments = ["-c", str(directory.bootstrap), "--log-level", log_level, "--disable-hot-restart"]
    arguments += ["--drain-time-s", str(drain_seconds), "--drain-strategy", "immediate"]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    return arguments


def _trim_log(path: Path) -> int:
    """Return the log's size after emptying one that grew too large (its writers append)."""
    try:
        size = path.stat().st_size
        if size <= _LARGEST_LOG:
            return size
        os.truncate(path, 0)
    except OSError:
        return 0
    return 0
