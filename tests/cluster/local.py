"""A real one-node cluster on this machine, in namespaces of its own; nothing of it outlives its first process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final

from tests.cluster import node, seed
from tests.cluster.access import KubectlError
from tests.cluster.cluster import Cluster
from tests.cluster.first import CONTROL
from tests.cluster.images import COREDNS, ECHO, ENVOY, PAUSE, image
from tests.cluster.keeper import Plot
from tests.cluster.pki import ClusterAuthority
from tests.cluster.processes import wait_until
from tests.cluster.programs import build

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = ("pause", "control", "node", "coredns", "echo-server", "echo-client")
PACKAGES: Final = {
    "containerd": "containerd",
    "runc": "runc",
    "ctr": "containerd",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
"""What must be on PATH, and the Debian package that has it."""

IMAGES: Final = (PAUSE, COREDNS, ENVOY, ECHO)
_NUMBERS: Final = 60
_READY: Final = 90.0


class ClusterError(Exception):
    """A local cluster did not come up; the message ends with what its programs logged last."""


def why_not() -> str | None:
    """Return why no local cluster can run here, with the remedy; None when it can."""
    if sys.platform != "linux":
        return "a local cluster needs Linux; name another one with --cluster"
    if os.geteuid() != 0:
        return "a local cluster needs root, to make namespaces and network interfaces"
    missing = {package for program, package in PACKAGES.items() if shutil.which(program) is None}
    if node.plugins() is None:
        missing.add("containernetworking-plugins")
    if missing:
        return f"a local cluster needs more programs: apt-get install {' '.join(sorted(missing))}"
    return None


class LocalCluster(Cluster):
    """A running one-node cluster, whose pods, Services and load balancers can be reached from this machine.

    Made by `run_local_cluster`.
    """

    def __init__(self, plot: Plot, folder: Path) -> None:
        self.plot = plot
        """The addresses and names that are this cluster's; `plot.host` is where its pods reach this machine."""

        self.folder = folder
        """Holds `log/*.log`, `audit.log` and all the cluster's data; goes with the cluster."""

        self.pki = ClusterAuthority()
        (folder / "log").mkdir()
        node.write_files(folder, plot, self.pki)
        super().__init__(folder / "admin.conf")
        self._images: dict[str, Future[None]] = {}
        self._importers = ThreadPoolExecutor(2, "import")

    @property
    def pid(self) -> int:
        """The cluster's first process, as this machine numbers it: when it ends, all ends."""
        return int((self.folder / "first.pid").read_text())

    @property
    def host(self) -> str:
        """The address of this machine at which pods can reach what the tests serve."""
        return self.plot.host

    def boot(self, images: Iterable[str], *, seeded: bool) -> None:
        """Start all programs in the fresh namespaces, and wait until pods can run with the images there."""
        *stores, server = node.control_plane(self.plot)
        for command in stores:
            self._start(command)
        if seeded:
            self._seed()
        self._start(server)
        self._importers.submit(self._wait_containerd).result()
        for name in images:
            self._images[name] = self._importers.submit(self._import_named, name)
        self._await(self.is_ready, "the API server is ready")
        for command in node.node(self.plot):
            self._start(command)
        balancing = [sys.executable, "-m", "tests.cluster.loadbalancers", "admin.conf", self.plot.load_balancers]
        self._start(node.Command("load-balancers", balancing))
        addons = string.Template((Path(__file__).parent / "addons.yaml").read_text())
        self.apply(addons.substitute(dns=self.plot.dns, coredns=COREDNS))
        self._await(self._node_ready, "the node is ready")
        for imported in self._images.values():
            imported.result()
        self._await(self._dns_ready, "DNS is ready")
        if seeded:
            self.wait_defined()

    def load_image(self, archive: Path) -> None:
        """Import an image archive (OCI or Docker); its name in the cluster is the one in the archive."""
        with archive.open("rb") as content:
            self._import(content)

    def provide(self, name: str) -> None:
        """Have an image of `tests.cluster.images.RECIPES` in the cluster."""
        if name not in self._images:
            self._images[name] = self._importers.submit(self._import_named, name)
        self._images[name].result()

    def reach(self, address: str, port: int) -> tuple[str, int]:
        """Return the address itself: all of the cluster's are routed to it."""
        return address, port

    def run(
        self, command: Sequence[str | Path], *, check: bool = True, within: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root on the node: in all the cluster's namespaces, with its KUBECONFIG."""
        return subprocess.run(
            self.command(command),
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=check,
        )

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """Return what, run as root on this machine, runs a command in all the cluster's namespaces."""
        return [*self._enter(), *map(str, command)]

    def programs(self) -> dict[str, int]:
        """Return the node's programs that run, with their process ids inside the cluster."""
        running: dict[str, int] = self._order({"do": "list"})["running"]
        return running

    def signal(self, program: str, number: int) -> None:
        """Send a signal to one of the node's programs (`kube-apiserver`, `kubelet`, `containerd`, ...)."""
        self._order({"do": "signal", "name": program, "signal": number})

    def restart(self, program: str) -> None:
        """Start one of the node's programs again after it ended."""
        (command,) = [c for c in (*node.control_plane(self.plot), *node.node(self.plot)) if c.name == program]
        self._start(command)

    def log(self, program: str) -> str:
        """Return what one of the node's programs logged."""
        path = self.folder / "log" / f"{program}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _start(self, command: node.Command) -> None:
        places = [str(build(name)) for name in ("control", "node")]
        environ = {
            "PATH": os.pathsep.join([*places, os.environ["PATH"], "/usr/sbin", "/sbin"]),
            "PYTHONPATH": str(ROOT),
        }
        self._order({"do": "start", "name": command.name, "argv": command.argv, "env": environ})

    def _seed(self) -> None:
        """Give etcd the CRDs before the API server reads it."""
        argv = [sys.executable, "-m", "tests.cluster.seed", str(seed.definitions()), node.ETCD]
        self._start(node.Command("seed", argv))
        self._await(lambda: "seed" in self._order({"do": "list"})["ended"], "etcd has the definitions")
        if self._order({"do": "list"})["ended"]["seed"]:
            raise ClusterError(f"etcd does not take the definitions:\n{self.log('seed')}\n{self.log('etcd')}")

    def _order(self, order: dict[str, Any]) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.folder / CONTROL))
            with connection.makefile("rwb") as stream:
                stream.write(json.dumps(order).encode() + b"\n")
                stream.flush()
                return json.loads(stream.readline())

    def _enter(self) -> list[str]:
        return [
            "nsenter",
            "-t",
            str(self.pid),
            "--net",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            f"--wd={self.folder}",
            "--",
        ]

    def _ctr(self, *arguments: str, stdin: IO[bytes] | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._enter(), "ctr", "--address", node.CONTAINERD, "--namespace", "k8s.io", *arguments],
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def _wait_containerd(self) -> None:
        self._await(lambda: self._ctr("version").returncode == 0, "containerd is ready")

    def _import_named(self, name: str) -> None:
        with image(name).open("rb") as content:
            self._import(content)

    def _import(self, content: IO[bytes]) -> None:
        finished = self._ctr("images", "import", "--all-platforms", "-", stdin=content)
        if finished.returncode:
            raise ClusterError(f"the image is not taken: {finished.stderr.decode().strip()}")

    def _node_ready(self) -> bool:
        status, body = self.request("GET", f"/api/v1/nodes/{self.plot.name}")
        conditions = json.loads(body).get("status", {}).get("conditions", ()) if status == 200 else ()
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _dns_ready(self) -> bool:
        body = self.request("GET", "/apis/apps/v1/namespaces/kube-system/deployments/coredns")[1]
        return bool(json.loads(body).get("status", {}).get("readyReplicas"))

    def _await(self, check: Any, what: str) -> None:
        try:
            wait_until(check, what=what, within=_READY)
        except (TimeoutError, OSError, KubectlError) as error:
            tails = "".join(f"\n--- {path.name}\n{path.read_text()[-1500:]}" for path in self.folder.glob("log/*.log"))
            raise ClusterError(f"{error}{tails}") from None


@contextlib.contextmanager
def run_local_cluster(images: Iterable[str] = IMAGES, *, seeded: bool = False) -> Iterator[LocalCluster]:
    """Run a local cluster of one's own until the block ends; a seeded one has the Gateway API's and Istio's CRDs."""
    cluster, keeper = start_local_cluster(images, seeded=seeded)
    try:
        yield cluster
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait()


def start_local_cluster(
    images: Iterable[str] = IMAGES, *, seeded: bool = False, detached: bool = False
) -> tuple[LocalCluster, subprocess.Popen[bytes]]:
    """Start a cluster that ends with its keeper's standard input, or, detached, when the keeper gets SIGTERM."""
    if cause := why_not():
        raise ClusterError(cause)
    folder = Path(tempfile.mkdtemp(prefix="meshgw-cluster-"))
    lock, number = _claim()
    with lock:
        cluster = LocalCluster(Plot(number), folder)
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
        lock.truncate(0)
        lock.write(json.dumps({"folder": str(folder), "keeper": keeper.pid}))
        lock.flush()
    try:
        _await_control(cluster, keeper)
        cluster.boot(images, seeded=seeded)
    except BaseException:
        keeper.terminate()
        keeper.wait()
        raise
    return cluster, keeper


def _await_control(cluster: LocalCluster, keeper: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not (cluster.folder / CONTROL).exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise ClusterError(f"no namespaces:\n{cluster.log('keeper')}\n{cluster.log('first')}")
        time.sleep(0.02)


def locks() -> Path:
    """Return the folder of the lock files, one for each cluster that runs or ran since this machine started."""
    folder = Path("/run/meshgw-clusters")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _claim() -> tuple[IO[str], int]:
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
