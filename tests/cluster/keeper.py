"""The keeper of one local cluster: makes its namespaces from outside, and cleans up after it however it ends.

A process of its own, because the tests may crash: it ends the cluster when its standard input ends or by SIGTERM, and
cleans up when the cluster's first process ends on its own account. What a crash of the keeper itself leaves (cgroups, a
folder, for minutes an interface) goes when the next cluster takes the same number.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from meshgw.standalone import launch
from tests.cluster import cgroups
from tests.cluster.first import INTERFACE

_NAMESPACES: Final = ("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child=KILL")


class Plot(NamedTuple):
    """What one cluster has of its own on this machine, told apart by a number below 60."""

    number: int

    @property
    def name(self) -> str:
        """The name of its cgroup and of its node."""
        return f"meshgw-{self.number}"

    @property
    def interface(self) -> str:
        """The name of the network interface that leads to it."""
        return f"meshgw{self.number}"

    @property
    def network(self) -> str:
        """All its addresses."""
        return f"{self._prefix}.0.0/16"

    @property
    def pods(self) -> str:
        """The addresses of pods."""
        return f"{self._prefix}.0.0/20"

    @property
    def services(self) -> str:
        """The addresses of Services."""
        return f"{self._prefix}.64.0/18"

    @property
    def api(self) -> str:
        """The address of Service `kubernetes`."""
        return f"{self._prefix}.64.1"

    @property
    def dns(self) -> str:
        """The address of Service `kube-dns`."""
        return f"{self._prefix}.64.10"

    @property
    def load_balancers(self) -> str:
        """The addresses of load balancers."""
        return f"{self._prefix}.192.0/24"

    @property
    def machines(self) -> str:
        """The addresses of nodes that are containers."""
        return f"{self._prefix}.128.0/24"

    @property
    def host(self) -> str:
        """This machine's address on the way to the cluster; pods reach what the tests serve there."""
        return f"{self._prefix}.255.1"

    @property
    def node(self) -> str:
        """The node's address."""
        return f"{self._prefix}.255.2"

    @property
    def nowhere(self) -> str:
        """The gateway to everything else, which is not there."""
        return f"{self._prefix}.255.254"

    @property
    def _prefix(self) -> str:
        return f"10.{192 + self.number}"


def sweep(plot: Plot) -> None:
    """Remove what an earlier cluster of this number may have left."""
    subprocess.run(["ip", "link", "delete", plot.interface], capture_output=True, check=False)
    cgroups.remove(plot.name)


def keep(plot: Plot, folder: Path, *, detached: bool) -> None:
    """Run a cluster's namespaces until something ends them, and leave nothing."""
    ends, says_end = os.pipe()
    os.set_blocking(says_end, False)
    signal.set_wakeup_fd(says_end)
    told_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told_to_end.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    sweep(plot)
    cgroups.create(plot.name)
    first = [sys.executable, "-m", "tests.cluster.first", str(folder), plot.name, plot.node, plot.nowhere]
    with (folder / "log" / "first.log").open("wb") as log:
        unshare = subprocess.Popen(
            launch.command([shutil.which("unshare") or "unshare", *_NAMESPACES, *first]),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        pid = _child_of(unshare)
        _connect(plot, pid)
        (folder / "first.pid").write_text(str(pid))
        assert unshare.stdin is not None
        unshare.stdin.write(b"go\n")
        unshare.stdin.flush()
        with selectors.DefaultSelector() as selector:
            for source in (ends, *(() if detached else (0,))):
                selector.register(source, selectors.EVENT_READ)
            while unshare.poll() is None and not told_to_end:
                for key, _ in selector.select():
                    if not os.read(key.fd, 4096):
                        return  # the tests are gone
    finally:
        unshare.kill()
        unshare.wait()
        _wait_gone(folder)
        sweep(plot)
        shutil.rmtree(folder, ignore_errors=True)


def _child_of(unshare: subprocess.Popen[bytes]) -> int:
    """Return the process id of the first process, once it is there."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    while unshare.poll() is None:
        # Before unshare runs, the one of this process id is the launcher, which has no children.
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.01)
    raise SystemExit(f"unshare ended with {unshare.returncode}")


def _connect(plot: Plot, pid: int) -> None:
    """Lay a wire from this machine into the namespace, and the route to all that is behind it."""
    peer = ["peer", "name", INTERFACE, "netns", str(pid)]
    _run("ip", "link", "add", plot.interface, "type", "veth", *peer)
    _run("ip", "address", "add", f"{plot.host}/24", "dev", plot.interface)
    _run("ip", "link", "set", plot.interface, "up")
    _run("ip", "route", "add", plot.network, "via", plot.node, "dev", plot.interface, "onlink")


def _wait_gone(folder: Path) -> None:
    """Wait until the kernel has ended the first process, and so all of its namespace."""
    path = folder / "first.pid"
    if path.exists():
        deadline = time.monotonic() + 10
        while Path(f"/proc/{path.read_text()}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def _run(*command: str) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}: {finished.stderr.strip()}")


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    keep(Plot(settings["number"]), Path(settings["folder"]), detached=settings["detached"])
