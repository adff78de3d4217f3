"""Namespaces of one cluster on this machine, with addresses of their own; a keeper ends and removes them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from tests.cluster.first import CONTROL
from tests.cluster.keeper import Plot

ROOT: Final = Path(__file__).parents[2]
_NUMBERS: Final = 60


class ClusterError(Exception):
    """A cluster did not come up; the message ends with what its programs logged last."""


class Namespaces:
    """Running namespaces, made by `start_namespaces`; the first process in them starts and signals programs."""

    def __init__(self, plot: Plot, folder: Path, keeper: subprocess.Popen[bytes]) -> None:
        self.plot = plot
        """The addresses and names that are this cluster's; `plot.host` is where its pods reach this machine."""

        self.folder = folder
        """Holds `log/*.log`; goes with the namespaces."""

        self._keeper = keeper

    @property
    def pid(self) -> int:
        """The first process, as this machine numbers it: when it ends, all ends."""
        return int((self.folder / "first.pid").read_text())

    def start(self, name: str, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start a program, which is called `name` from then on."""
        self._order({"do": "start", "name": name, "argv": list(argv), "env": dict(environ)})

    def signal(self, program: str, number: int) -> None:
        """Send a signal to a program."""
        self._order({"do": "signal", "name": program, "signal": number})

    def running(self) -> dict[str, int]:
        """Return the programs that run, with their process ids inside the namespaces."""
        running: dict[str, int] = self._order({"do": "list"})["running"]
        return running

    def ended(self) -> dict[str, int]:
        """Return the programs that ended, with their exit codes."""
        ended: dict[str, int] = self._order({"do": "list"})["ended"]
        return ended

    def log(self, program: str) -> str:
        """Return what a program logged."""
        path = self.folder / "log" / f"{program}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def tails(self) -> str:
        """Return what all programs logged last."""
        logs = sorted(self.folder.glob("log/*.log"))
        return "".join(f"\n--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs)

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """Return what, run as root on this machine, runs a command in all of the namespaces."""
        enter = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--uts", "--ipc", "--pid", f"--wd={self.folder}"]
        return [*enter, "--", *map(str, command)]

    def end(self) -> None:
        """End all that runs in them, and leave nothing."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        else:
            self._keeper.terminate()
        self._keeper.wait()

    def _order(self, order: dict[str, Any]) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.folder / CONTROL))
            with connection.makefile("rwb") as stream:
                stream.write(json.dumps(order).encode() + b"\n")
                stream.flush()
                return json.loads(stream.readline())


def start_namespaces(*, detached: bool = False) -> Namespaces:
    """Make namespaces that end with this process, or, detached, when their keeper gets SIGTERM."""
    folder = Path(tempfile.mkdtemp(prefix="meshgw-cluster-"))
    (folder / "log").mkdir()
    lock, number = claim()
    with lock:
        settings = json.dumps({"number": number, "folder": str(folder), "detached": detached})
        with (folder / "log" / "keeper.log").open("wb") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.keeper", settings],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        hold(lock, folder, keeper.pid)
    made = Namespaces(Plot(number), folder, keeper)
    try:
        _await_control(made, keeper)
    except BaseException:
        made.end()
        raise
    return made


def locks() -> Path:
    """Return the folder of the lock files, one for each cluster that runs or ran since this machine started."""
    folder = Path("/run/meshgw-clusters")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def claim() -> tuple[IO[str], int]:
    """Return a locked file and its number: the cluster that owns it owns all that is named by the number."""
    for number in range(_NUMBERS):
        lock = (locks() / f"{number}.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        lock.seek(0)
        if left := lock.read():  # its keeper was killed, or it ended well
            shutil.rmtree(json.loads(left)["folder"], ignore_errors=True)
        return lock, number
    raise ClusterError(f"{_NUMBERS} clusters run already; end one (make cluster-down)")


def hold(lock: IO[str], folder: Path, keeper: int) -> None:
    """Note in a locked file whose it is; the keeper has the lock from its start, and until it ends."""
    lock.truncate(0)
    lock.write(json.dumps({"folder": str(folder), "keeper": keeper}))
    lock.flush()


def _await_control(made: Namespaces, keeper: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not (made.folder / CONTROL).exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise ClusterError(f"no namespaces:\n{made.log('keeper')}\n{made.log('first')}")
        time.sleep(0.02)
