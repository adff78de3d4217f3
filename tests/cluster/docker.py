"""A Docker daemon to make nodes with: the machine's own, or a private one in the namespaces of one cluster."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from tests.cluster import runtime
from tests.cluster.keeper import Plot
from tests.cluster.namespaces import ROOT, ClusterError, Namespaces, claim, hold, start_namespaces
from tests.cluster.processes import wait_until
from tests.cluster.programs import executable

PACKAGES: Final = {"docker": "docker.io", "dockerd": "docker.io", "nsenter": "util-linux", "ip": "iproute2"}
"""What a private daemon needs on PATH, and the Debian package that has it."""

NETWORK: Final = "kind"
"""The network that kind connects nodes to."""

_DATA: Final = "docker"
_READY: Final = 60.0
_SYS_RESOURCE: Final = 24


class DockerError(Exception):
    """The client failed; the message is its own."""


def is_running() -> bool:
    """Whether this machine has a Docker daemon that this user may use."""
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "info"], capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=60)
    return asked.returncode == 0


def why_not() -> str | None:
    """Return why no private daemon can run here, with the remedy; None when it can."""
    missing = {package for program, package in PACKAGES.items() if shutil.which(program) is None}
    return f"a private dockerd needs more programs: apt-get install {' '.join(sorted(missing))}" if missing else None


class Docker(ABC):
    """A daemon, and the network between it and the tests."""

    def __init__(self, plot: Plot, folder: Path, host: str = "") -> None:
        self.plot = plot
        """The addresses and names that the cluster made with it has on this machine."""

        self.folder = folder
        """For what belongs to the cluster; goes with it."""

        self.environ = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
        """The environment in which `docker` and `kind` use this daemon."""

    @abstractmethod
    def host(self) -> str:
        """Return the address of this machine at which containers can reach what the tests serve."""

    @abstractmethod
    def route(self, network: str, node: str) -> None:
        """Let the tests reach the addresses of `network` by way of the container with address `node`."""

    @property
    def is_private(self) -> bool:
        """Whether it has nothing but what this cluster brings: no images, and no registry to get them from."""
        return False

    def run(self, *arguments: str | Path, stdin: IO[bytes] | None = None, within: float = 300.0) -> str:
        """Return what `docker ARGUMENTS` prints; raises DockerError."""
        finished = subprocess.run(
            ["docker", *map(str, arguments)],
            env=self.environ,
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=within,
        )
        if finished.returncode:
            said = finished.stderr.decode(errors="replace").strip()
            raise DockerError(f"docker {' '.join(map(str, arguments))}: {said}")
        return finished.stdout.decode(errors="replace")

    def has(self, image: str) -> bool:
        """Whether it has an image of this name."""
        with contextlib.suppress(DockerError):
            self.run("image", "inspect", image)
            return True
        return False

    def address(self, container: str) -> str:
        """Return the IPv4 address of a container."""
        (found,) = json.loads(self.run("inspect", container))
        address: str = found["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
        return address


class PrivateDocker(Docker):
    """A daemon of our own; containers' addresses are those of the cluster's plot, and kept as they are."""

    def __init__(self, namespaces: Namespaces) -> None:
        super().__init__(namespaces.plot, namespaces.folder, f"unix://{namespaces.folder}/docker.sock")
        self.namespaces = namespaces

    def boot(self, images: Path | None) -> None:
        """Start it, with the images that `keep_images` kept in a folder."""
        if images is not None:
            _lay_out(images, self.folder / _DATA)
        path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
        dockerd = [
            shutil.which("dockerd") or "dockerd",
            f"--data-root={self.folder / _DATA}",
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            f"--host={self.environ['DOCKER_HOST']}",
            "--bridge=none",
            f"--cgroup-parent=/{self.plot.name}",
            "--oom-score-adjust=0",
            *self._runtime(),
        ]
        self.namespaces.start("dockerd", dockerd, {"PATH": path})
        try:
            wait_until(self._answers, what="dockerd answers", within=_READY)
        except (TimeoutError, ClusterError) as error:
            raise ClusterError(f"{error}{self.namespaces.tails()}") from None

    def connect(self, *, ipv6: bool) -> None:
        """Make the network of kind, and let in what comes from outside."""
        self.enter("iptables", "--insert", "DOCKER-USER", "--jump", "ACCEPT")
        kept = "--opt=com.docker.network.bridge.enable_ip_masquerade=false"
        six = ["--ipv6", f"--subnet=fd00:{self.plot.number:x}::/64"] if ipv6 else []
        self.run("network", "create", "--driver=bridge", kept, f"--subnet={self.plot.machines}", *six, NETWORK)

    def keep_images(self, folder: Path) -> None:
        """End the daemon, and keep the images that it has in a new folder."""
        self.namespaces.signal("dockerd", signal.SIGTERM)
        wait_until(lambda: "dockerd" in self.namespaces.ended(), what="dockerd ends", within=_READY)
        for own in ("network", "containers", "volumes"):
            shutil.rmtree(self.folder / _DATA / own, ignore_errors=True)
        subprocess.run(["cp", "--archive", self.folder / _DATA, folder], check=True)

    def host(self) -> str:
        """Return this machine's address on the way into the namespaces."""
        return self.plot.host

    def route(self, network: str, node: str) -> None:
        """Lead from inside the namespaces to the container; all of the plot is led into the namespaces already."""
        self.enter("ip", "route", "replace", network, "via", node)

    @property
    def is_private(self) -> bool:
        """It has nothing."""
        return True

    def enter(self, *command: str) -> None:
        """Run a command beside the daemon; raises ClusterError."""
        finished = subprocess.run(self.namespaces.command(command), capture_output=True, text=True, check=False)
        if finished.returncode:
            raise ClusterError(f"{' '.join(command)}: {finished.stderr.strip()}")

    def _answers(self) -> bool:
        if "dockerd" not in self.namespaces.running():
            raise ClusterError("dockerd ended")
        with contextlib.suppress(DockerError):
            self.run("version")
            return True
        return False

    def _runtime(self) -> list[str]:
        """Return the arguments for a runtime that asks for no more than this machine allows."""
        status = Path("/proc/self/status").read_text()
        capabilities = int(status.partition("CapBnd:")[2].split()[0], 16)
        if capabilities & 1 << _SYS_RESOURCE:
            return []
        script = self.folder / "runc"
        command = [sys.executable, "-I", "-S", runtime.__file__, shutil.which("runc") or "/usr/sbin/runc"]
        script.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
        script.chmod(0o755)
        return [f"--add-runtime=limited={script}", "--default-runtime=limited"]


class OrdinaryDocker(Docker):
    """The machine's daemon."""

    def host(self) -> str:
        """Return the address of the network's bridge."""
        (network,) = json.loads(self.run("network", "inspect", NETWORK))
        gateways = [row.get("Gateway", "") for row in network["IPAM"]["Config"]]
        return str(next(gateway for gateway in gateways if "." in gateway))

    def route(self, network: str, node: str) -> None:
        """Lead from this machine to the container."""
        command = ["ip", "route", "replace", network, "via", node]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise ClusterError(f"{' '.join(command)}: {finished.stderr.strip()}")


def _lay_out(images: Path, data: Path) -> None:
    """Give a daemon the kept images: no layer is ever written to, so hard links do, but its databases are its own."""
    linked = subprocess.run(["cp", "--archive", "--link", images, data], capture_output=True, check=False)
    if linked.returncode:  # on another file system
        shutil.rmtree(data, ignore_errors=True)
        subprocess.run(["cp", "--archive", images, data], check=True)
        return
    for database in (path for place in data.iterdir() if place.name != "overlay2" for path in place.rglob("*.db")):
        copied = database.with_suffix(".copied")
        shutil.copy2(database, copied)
        copied.rename(database)


@contextlib.contextmanager
def run_private_docker(*, images: Path | None = None, ipv6: bool = False) -> Iterator[PrivateDocker]:
    """Run a daemon of one's own until the block ends; it ends with this process, and leaves nothing."""
    if cause := why_not():
        raise ClusterError(cause)
    namespaces = start_namespaces()
    try:
        docker = PrivateDocker(namespaces)
        docker.boot(images)
        docker.connect(ipv6=ipv6)
        yield docker
    finally:
        namespaces.end()


@contextlib.contextmanager
def use_ordinary_docker() -> Iterator[OrdinaryDocker]:
    """Use the machine's daemon; the cluster and the routes of the plot go with the block, or with this process."""
    folder = Path(tempfile.mkdtemp(prefix="meshgw-kind-"))
    lock, number = claim()
    plot = Plot(number)
    commands = [
        [str(kind()), "delete", "cluster", "--name", plot.name, "--kubeconfig", str(folder / "kubeconfig")],
        ["ip", "route", "flush", "root", plot.network],
        ["rm", "-rf", str(folder)],
    ]
    with lock:
        ending = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.afterwards", json.dumps(commands)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[lock.fileno()],
            start_new_session=True,
        )
        hold(lock, folder, ending.pid)
    try:
        subprocess.run(commands[0], capture_output=True, check=False)  # what one left whose ending was killed
        yield OrdinaryDocker(plot, folder)
    finally:
        assert ending.stdin is not None
        ending.stdin.close()
        ending.wait()


def kind() -> Path:
    """Return the kind of this machine, else ours."""
    found = shutil.which("kind")
    return Path(found) if found else executable("kind")
