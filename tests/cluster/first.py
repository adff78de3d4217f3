"""The first process of a local cluster: alone in its namespaces it prepares them, then starts what it is told to.

Its orders come over a unix socket, one JSON object per connection. It ends with its standard input, and everything in
its namespaces ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

INTERFACE = "eth0"
CONTROL = "control.sock"


class Children:
    """The programs started so far, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def order(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what one order says and return the answer."""
        match order["do"]:
            case "start":
                self._start(order["name"], order["argv"], order.get("env", {}))
            case "signal":
                os.kill(self._running[order["name"]], order["signal"])
        self.reap()
        return {"running": self._running, "ended": self._ended}

    def reap(self) -> None:
        """Take note of what ended, orphans of others included."""
        with contextlib.suppress(ChildProcessError):
            while (outcome := os.waitpid(-1, os.WNOHANG))[0]:
                for name, pid in list(self._running.items()):
                    if pid == outcome[0]:
                        del self._running[name]
                        self._ended[name] = os.waitstatus_to_exitcode(outcome[1])

    def _start(self, name: str, argv: list[str], environ: dict[str, str]) -> None:
        with (self._folder / "log" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                cwd=self._folder,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process.returncode = 0  # reaped here, not by subprocess
        self._running[name] = process.pid
        self._ended.pop(name, None)


def prepare(folder: Path, hostname: str, address: str, gateway: str) -> None:
    """Make the private view of the machine: mounts, host name, network."""
    socket.sethostname(hostname)
    kept = folder / "cgroup"
    kept.mkdir()
    _run("mount", "--rbind", "/sys/fs/cgroup", str(kept))
    _run("mount", "-t", "sysfs", "sysfs", "/sys")  # shows this network namespace
    _run("mount", "--rbind", str(kept), "/sys/fs/cgroup")
    _run("umount", "-l", str(kept))  # while mounts are private yet: sharing them first would undo the line above
    _run("mount", "--make-rshared", "/")
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for place in ("/run/netns", "/run/containerd", "/run/lock", "/run/cni"):
        Path(place).mkdir()
    for place in ("/var/lib/kubelet", "/var/lib/cni", "/var/log"):
        source = folder / place.strip("/").replace("/", "-")
        source.mkdir()
        Path(place).mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(source), place)
    _run("mount", "--make-rshared", "/var/lib/kubelet")
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{address}/24", "dev", INTERFACE)
    _run("ip", "link", "set", INTERFACE, "up")
    # Service addresses need a route to be looked up before they are translated. Nobody has the gateway's address.
    _run("ip", "route", "add", "default", "via", gateway, "dev", INTERFACE, "onlink")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def serve(children: Children, control: socket.socket) -> None:
    """Follow orders until standard input ends."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        for source in (0, reading, control.fileno()):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0 and not os.read(0, 64):
                    return
                if key.fd == reading:
                    os.read(reading, 4096)
                    children.reap()
                if key.fd == control.fileno():
                    with control.accept()[0] as connection, connection.makefile("rwb") as stream:
                        stream.write(json.dumps(children.order(json.loads(stream.readline()))).encode() + b"\n")


def _run(*command: str) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}: {finished.stderr.strip()}")


def main(folder: Path, hostname: str, address: str, gateway: str) -> None:
    """Wait for the network interface, which comes from outside, then prepare and serve."""
    sys.stdin.buffer.readline()
    prepare(folder, hostname, address, gateway)
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(folder / f".{CONTROL}"))
        control.listen()
        (folder / f".{CONTROL}").rename(folder / CONTROL)  # its presence says that orders are welcome
        serve(Children(folder), control)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5])
