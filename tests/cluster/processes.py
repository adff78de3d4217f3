"""Long-running programs of the tests: they end with this process however it ends, and can be frozen and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from meshgw.standalone import launch

_LAUNCHER = ThreadPoolExecutor(1, "launcher")
"""Starts every program: the kernel ends a child with the thread that started it, and this thread ends last."""

_TAIL = 3000


class ProcessError(Exception):
    """A program ended that should not have; the message ends with what it logged last."""


class Process:
    """One program with its log file; `start` may be called again after it ended."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        log: Path,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self.log = log
        self._environ = {**os.environ, **(environ or {})}
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return Path(self.arguments[0]).name

    @property
    def pid(self) -> int:
        """The process id of the one that was started last."""
        if self._process is None:
            raise ProcessError(f"{self.name} was never started")
        return self._process.pid

    @property
    def started(self) -> bool:
        """Whether it ran ever."""
        return self._process is not None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended; a frozen one is running."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; its output is appended to its log."""
        if not self.running:
            self._process = _LAUNCHER.submit(self._launch).result()

    def check(self) -> None:
        """Raise ProcessError if it ended."""
        if not self.running:
            code = self._process.returncode if self._process else None
            raise ProcessError(f"{self.name} ended with {code}:\n{self.tail()}")

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-_TAIL:] if self.log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def freeze(self) -> None:
        """Stop it from running, connections and all, until `thaw`; return once it stands still."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: not self.running or self._state() == "T", what=f"{self.name} stands still", within=10)

    def thaw(self) -> None:
        """Let a frozen program go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, without a chance to clean up."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self, *, within: float = 10.0) -> None:
        """Ask it to end, and kill it when it does not within so many seconds."""
        self.thaw()
        self.signal(signal.SIGTERM)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within)
            self.kill()

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                launch.command(self.arguments),
                env=self._environ,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def wait_until(check: Callable[[], object], *, what: str, within: float, watched: Sequence[Process] = ()) -> None:
    """Return once `check()` is true; raises TimeoutError, or ProcessError when a watched program ends."""
    deadline = time.monotonic() + within
    while not check():
        for process in watched:
            process.check()
        if time.monotonic() > deadline:
            tails = "".join(f"\n--- {process.name}\n{process.tail()}" for process in watched)
            raise TimeoutError(f"not within {within} s: {what}{tails}")
        time.sleep(0.05)
