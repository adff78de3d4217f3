"""A kind cluster of one of the shapes in `kind-configs`, with the machine's Docker or a private one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import yaml

from tests.cluster import cgroups, docker, kind_config, node_image
from tests.cluster.balancer_image import balancer_image
from tests.cluster.cluster import DOMAIN, Cluster
from tests.cluster.docker import Docker, run_private_docker, use_ordinary_docker
from tests.cluster.kind_config import Node
from tests.cluster.namespaces import ROOT, ClusterError
from tests.cluster.pki import write_private
from tests.cluster.processes import Process, wait_until
from tests.cluster.programs import module_folder

_CREATED: Final = 300
_READY: Final = 120
_DNS: Final = {
    "spec": {
        "replicas": 1,
        "template": {"spec": {"containers": [{"name": "coredns", "readinessProbe": {"periodSeconds": 1}}]}},
    }
}
"""What kubeadm's DNS lacks to be ready in seconds."""


def why_not() -> str | None:
    """Return why no kind cluster can run here, with the remedy; None when it can."""
    if sys.platform != "linux":
        return "a kind cluster whose addresses can be dialled needs Linux; name another one with --cluster"
    if os.geteuid() != 0:
        return "a kind cluster needs root here, to lead to the addresses of its pods"
    if docker.is_running():
        return None
    causes = [cause for cause in (docker.why_not(), node_image.why_not()) if cause]
    return f"no Docker daemon answers, and {'; '.join(causes)}" if causes else None


class KindCluster(Cluster):
    """A running kind cluster, whose pods, Services and load balancers can be reached from this machine.

    Made by `run_kind_cluster`.
    """

    def __init__(self, kubeconfig: Path, daemon: Docker, nodes: Sequence[Node]) -> None:
        super().__init__(kubeconfig)
        self.docker = daemon
        self.nodes = nodes
        """Its nodes; the name of each is that of its container."""

        self._host = daemon.host()

    @property
    def host(self) -> str:
        """The address of this machine at which pods can reach what the tests serve."""
        return self._host

    def load_image(self, archive: Path) -> None:
        """Import an image archive (OCI or Docker) on every node; its name in the cluster is the one in the archive."""
        command = ["ctr", "--namespace", "k8s.io", "images", "import", "--all-platforms", "-"]

        def load(node: Node) -> None:
            with archive.open("rb") as content:
                self.docker.run("exec", "--interactive", node.name, *command, stdin=content)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(load, self.nodes))

    def dns_answers(self) -> bool:
        """Whether names of the cluster are resolved."""
        with contextlib.suppress(OSError, LookupError, ValueError):
            return bool(self.resolve(f"kubernetes.default.svc.{DOMAIN}"))
        return False


@contextlib.contextmanager
def run_kind_cluster(shape: str = "single", images: Sequence[str] = ()) -> Iterator[KindCluster]:
    """Run a kind cluster of a shape until the block ends; nothing of it outlives this process."""
    if cause := why_not():
        raise ClusterError(cause)
    document = kind_config.read_shape(shape)
    with _docker(ipv6=kind_config.is_dual(document)) as daemon:
        own = _node_image(daemon)
        if own and sum(row["role"] == "control-plane" for row in document["nodes"]) > 1:
            with balancer_image().open("rb") as archive:
                daemon.run("load", stdin=archive)
        config = kind_config.configure(
            document, daemon.plot, image=own, folder=daemon.folder, cgroup_v1=bool(cgroups.hierarchies())
        )
        (daemon.folder / "kind.yaml").write_text(yaml.safe_dump(config))
        nodes = kind_config.list_nodes(document, daemon.plot)
        kubeconfig = _create(daemon, nodes[0], own=bool(own))
        cluster = KindCluster(kubeconfig, daemon, nodes)
        _connect(cluster, own=bool(own))
        log = daemon.folder / "load-balancers.log"
        command = [sys.executable, "-m", "tests.cluster.loadbalancers", str(kubeconfig), daemon.plot.load_balancers]
        balancing = Process(command, log, environ={"PYTHONPATH": str(ROOT)}, cwd=ROOT)
        balancing.start()
        try:
            cluster.kubectl("-n", "kube-system", "patch", "deployment", "coredns", "--patch", json.dumps(_DNS))
            for name in images:
                cluster.provide(name)
            waiting = ["wait", "nodes", "--all", "--for=condition=Ready", f"--timeout={_READY}s"]
            cluster.kubectl(*waiting, within=_READY + 10)
            wait_until(cluster.dns_answers, what="DNS answers", within=_READY)
            yield cluster
        finally:
            balancing.stop()


def prepare() -> None:
    """Make or fetch what a cluster needs and takes long to get."""
    docker.kind()
    if not docker.is_running():
        _loaded()
    elif not _has_published(dict(os.environ)):
        with node_image.locked():
            node_image.node_image()


def _docker(*, ipv6: bool) -> AbstractContextManager[Docker]:
    """Return what runs the machine's daemon, else one of our own that has our node image."""
    return use_ordinary_docker() if docker.is_running() else run_private_docker(images=_loaded(), ipv6=ipv6)


def _loaded() -> Path:
    """Return the folder of a private daemon's images with our node image: loading it anew would take ten seconds."""
    archive = node_image.path()
    kept = archive.with_suffix("")
    with node_image.locked():
        if not kept.exists():
            node_image.node_image()
            sys.stderr.write("tests/cluster: loading the node image of kind\n")
            with run_private_docker() as daemon, tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                with archive.open("rb") as content:
                    daemon.run("load", stdin=content)
                daemon.keep_images(Path(scratch) / "images")
                (Path(scratch) / "images").rename(kept)
            archive.unlink()
    return kept


def _node_image(daemon: Docker) -> str:
    """Return the name of our own node image, which the daemon then has; empty where kind's is to be had."""
    if not daemon.is_private and _has_published(daemon.environ):
        return ""
    name = node_image.name()
    if not daemon.has(name):
        with node_image.locked(), node_image.node_image().open("rb") as archive:
            daemon.run("load", stdin=archive)
    return name


def _has_published(environ: Mapping[str, str]) -> bool:
    """Whether the daemon has, or gets, the node image that the pinned kind takes."""
    for command in (["image", "inspect"], ["pull"]):
        arguments = ["docker", *command, published()]
        if subprocess.run(arguments, env=environ, capture_output=True, check=False, timeout=600).returncode == 0:
            return True
    return False


def published() -> str:
    """Return the name of the node image that is published with the pinned kind."""
    source = module_folder("kind", "sigs.k8s.io/kind") / "pkg" / "apis" / "config" / "defaults" / "image.go"
    found = re.search(r'const Image = "(\S+)"', source.read_text())
    if found is None:
        raise ClusterError(f"{source} names no node image")
    return found[1]


def _create(daemon: Docker, first: Node, *, own: bool) -> Path:
    """Create the cluster, and return a kubeconfig that leads to its first node."""
    made = daemon.folder / "kind.conf"
    command = [docker.kind(), "create", "cluster", "--config", daemon.folder / "kind.yaml", "--kubeconfig", made]
    finished = subprocess.run(
        [*map(str, command), *([] if own else ["--image", published()]), "--retain"],
        env=daemon.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_CREATED,
    )
    if finished.returncode:
        raise ClusterError(f"kind create cluster: {finished.stderr[-6000:]}")
    document = yaml.safe_load(made.read_text())
    for row in document["clusters"]:
        row["cluster"]["server"] = f"https://{daemon.address(first.name)}:6443"
    return write_private(daemon.folder / "kubeconfig", yaml.safe_dump(document))


def _connect(cluster: KindCluster, *, own: bool) -> None:
    """Lead to pods, Services and load balancers from here, and on nodes of our own from each to the pods of others."""
    daemon, plot = cluster.docker, cluster.docker.plot
    addresses = {node.name: daemon.address(node.name) for node in cluster.nodes}
    first = addresses[cluster.nodes[0].name]
    daemon.route(plot.services, first)
    daemon.route(plot.load_balancers, first)
    if own:
        ranges = {node.name: node.pods for node in cluster.nodes}
    else:
        found = cluster.get("nodes")["items"]
        ranges = {row["metadata"]["name"]: tuple(row["spec"]["podCIDRs"]) for row in found}
    for name, pods in ranges.items():
        for network in pods:
            if ":" in network:
                continue
            daemon.route(network, addresses[name])
            for other in cluster.nodes:
                if own and other.name != name:
                    daemon.run("exec", other.name, "ip", "route", "replace", network, "via", addresses[name])
