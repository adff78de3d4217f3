"""One Envoy process: started by us or taken over from a controller that is gone, and the state file that allows it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from meshgw.standalone import launch

_TAIL_BYTES = 16_384


class Process:
    """A running process, ours or adopted, that can be awaited and signalled from the event loop.

    It is held by a descriptor, so that its id cannot come to mean another process.
    """

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._ended = asyncio.Event()
        self._code: int | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._end)

    async def wait(self) -> int | None:
        """Wait until it ends; returns the exit status (negative: signal), None when it was no child of ours."""
        await self._ended.wait()
        return self._code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; no effect on a process that ended or was let go."""
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def release(self) -> None:
        """Let go of the process without ending it."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _end(self) -> None:
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status)
        self.release()
        self._ended.set()


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """What a later controller needs to take a process over; `started` and `boot` tell it from a reused id."""

    pid: int
    started: int
    boot: str
    admin: str
    fingerprint: str
    """Hash of the binary, its arguments and its bootstrap: another one cannot be taken over."""


def spawn(command: Sequence[str], log: Path, *, detached: bool) -> Process:
    """Start a process in a session of its own, writing to `log`; raises OSError.

    Unless `detached`, it dies with this process. Start it from the main thread: Linux ties that to the thread's life.
    """
    arguments = list(command) if detached else launch.command(list(command))
    with log.open("ab") as sink:
        child = subprocess.Popen(  # noqa: S603 - the user's own choice of binary, no shell
            arguments, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    # Popen would warn about a child that is left running on purpose; from here on its descriptor says when it ends.
    child.returncode = 0
    return Process(child.pid, os.pidfd_open(child.pid))


def adopt(state: ProcessState) -> Process | None:
    """Return the process that `state` describes if it still runs."""
    if state.boot != boot_id():
        return None
    try:
        descriptor = os.pidfd_open(state.pid)
    except OSError:
        return None
    if start_time(state.pid) != state.started:  # read after opening: the descriptor now pins the identity
        os.close(descriptor)
        return None
    return Process(state.pid, descriptor)


def save_state(path: Path, state: ProcessState) -> None:
    """Write the state file in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(state))
    fresh.chmod(0o600)
    fresh.replace(path)


def load_state(path: Path) -> ProcessState | None:
    """Return what an earlier controller left, None when nothing usable is there."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProcessState)
    except (OSError, msgspec.DecodeError):
        return None


def start_time(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return when a process started, in clock ticks since boot, None when it is gone or a zombie."""
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """Return the kernel's name for this boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def log_tail(path: Path, *, after: int = 0, lines: int = 40) -> list[str]:
    """Return the last lines a process wrote to its log, of those beyond offset `after`."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(after if after <= size else 0, size - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
