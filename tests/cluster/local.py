"""A real one-node cluster on this machine, in namespaces of its own; nothing of it outlives its first process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import string
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final

from tests.cluster import node, seed
from tests.cluster.access import KubectlError
from tests.cluster.cluster import Cluster
from tests.cluster.images import COREDNS, ECHO, ENVOY, PAUSE, image
from tests.cluster.namespaces import ROOT, ClusterError, Namespaces, start_namespaces
from tests.cluster.pki import ClusterAuthority
from tests.cluster.processes import wait_until
from tests.cluster.programs import build

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
_READY: Final = 90.0


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

    def __init__(self, namespaces: Namespaces) -> None:
        self.namespaces = namespaces
        self.plot = namespaces.plot
        """The addresses and names that are this cluster's; `plot.host` is where its pods reach this machine."""

        self.folder = namespaces.folder
        """Holds `log/*.log`, `audit.log` and all the cluster's data; goes with the cluster."""

        self.pki = ClusterAuthority()
        node.write_files(self.folder, self.plot, self.pki)
        super().__init__(self.folder / "admin.conf")
        self._images: dict[str, Future[None]] = {}
        self._importers = ThreadPoolExecutor(2, "import")

    @property
    def pid(self) -> int:
        """The cluster's first process, as this machine numbers it: when it ends, all ends."""
        return self.namespaces.pid

    @property
    def host(self) -> str:
        """The address of this machine at which pods can reach what the tests serve."""
        return self.plot.host

    def boot(self, images: Iterable[str], *, seeded: bool) -> None:
        """Start all programs in the fresh namespaces, and wait until pods can run with the images there."""
        *stores, server = node.control_plane(self.plot)
        for command in stores:
            self.start(command)
        if seeded:
            self._seed()
        self.start(server)
        self._importers.submit(self._wait_containerd).result()
        for name in images:
            self._images[name] = self._importers.submit(self._import_named, name)
        self._await(self.is_ready, "the API server is ready")
        for command in node.node(self.plot):
            self.start(command)
        balancing = [sys.executable, "-m", "tests.cluster.loadbalancers", "admin.conf", self.plot.load_balancers]
        self.start(node.Command("load-balancers", balancing))
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
        return self.namespaces.command(command)

    def programs(self) -> dict[str, int]:
        """Return the node's programs that run, with their process ids inside the cluster."""
        return self.namespaces.running()

    def signal(self, program: str, number: int) -> None:
        """Send a signal to one of the node's programs (`kube-apiserver`, `kubelet`, `containerd`, ...)."""
        self.namespaces.signal(program, number)

    def restart(self, program: str) -> None:
        """Start one of the node's programs again after it ended."""
        (command,) = [c for c in (*node.control_plane(self.plot), *node.node(self.plot)) if c.name == program]
        self.start(command)

    def log(self, program: str) -> str:
        """Return what one of the node's programs logged."""
        return self.namespaces.log(program)

    def start(self, command: node.Command) -> None:
        """Start a program on the node."""
        places = [str(build(name)) for name in ("control", "node")]
        environ = {
            "PATH": os.pathsep.join([*places, os.environ["PATH"], "/usr/sbin", "/sbin"]),
            "PYTHONPATH": str(ROOT),
        }
        self.namespaces.start(command.name, command.argv, environ)

    def _seed(self) -> None:
        """Give etcd the CRDs before the API server reads it."""
        argv = [sys.executable, "-m", "tests.cluster.seed", str(seed.definitions()), node.ETCD]
        self.start(node.Command("seed", argv))
        self._await(lambda: "seed" in self.namespaces.ended(), "etcd has the definitions")
        if self.namespaces.ended()["seed"]:
            raise ClusterError(f"etcd does not take the definitions:\n{self.log('seed')}\n{self.log('etcd')}")

    def _ctr(self, *arguments: str, stdin: IO[bytes] | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(["ctr", "--address", node.CONTAINERD, "--namespace", "k8s.io", *arguments]),
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
        """Whether DNS answers here: that its pod is ready does not say that kube-proxy leads to it."""
        with contextlib.suppress(OSError, LookupError, struct.error):
            return self.resolve(f"kubernetes.default.svc.{node.DOMAIN}") == self.plot.api
        return False

    def _await(self, check: Any, what: str) -> None:
        try:
            wait_until(check, what=what, within=_READY)
        except (TimeoutError, OSError, KubectlError) as error:
            raise ClusterError(f"{error}{self.namespaces.tails()}") from None


@contextlib.contextmanager
def run_local_cluster(images: Iterable[str] = IMAGES, *, seeded: bool = False) -> Iterator[LocalCluster]:
    """Run a local cluster of one's own until the block ends; a seeded one has the Gateway API's and Istio's CRDs."""
    cluster = start_local_cluster(images, seeded=seeded)
    try:
        yield cluster
    finally:
        cluster.namespaces.end()


def start_local_cluster(
    images: Iterable[str] = IMAGES, *, seeded: bool = False, detached: bool = False
) -> LocalCluster:
    """Start a cluster that ends with its keeper's standard input, or, detached, when the keeper gets SIGTERM."""
    if cause := why_not():
        raise ClusterError(cause)
    namespaces = start_namespaces(detached=detached)
    try:
        cluster = LocalCluster(namespaces)
        cluster.boot(images, seeded=seeded)
    except BaseException:
        namespaces.end()
        raise
    return cluster
