"""The node proxy in a test cluster: started and ended, and waited for."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Final

from tests.cluster.local import LocalCluster
from tests.cluster.node import Command
from tests.cluster.processes import wait_until
from tests.mesh.pods import CAPTURED

PROGRAM: Final = "node-proxy"


def start_node_proxy(cluster: LocalCluster) -> None:
    """Capture the pods of the node that are in the mesh, from now on; ends with the cluster."""
    cluster.start(Command(PROGRAM, [sys.executable, "-m", "tests.mesh", "admin.conf", cluster.plot.name]))


def stop_node_proxy(cluster: LocalCluster) -> None:
    """Let all pods go."""
    cluster.signal(PROGRAM, signal.SIGTERM)
    wait_until(lambda: PROGRAM not in cluster.programs(), what="the node proxy ends", within=30)


@contextlib.contextmanager
def run_node_proxy(cluster: LocalCluster) -> Iterator[None]:
    """Capture pods until the block ends."""
    start_node_proxy(cluster)
    try:
        yield
    finally:
        stop_node_proxy(cluster)


def wait_captured(cluster: LocalCluster, namespace: str, *apps: str, within: float = 60) -> None:
    """Wait until every pod of these applications is captured, and istiod may know."""

    def are_captured() -> bool:
        pods = cluster.get("-n", namespace, "pods", "-l", f"app in ({','.join(apps)})")["items"]
        captured = {pod["metadata"]["labels"]["app"] for pod in pods if _is_captured(pod)}
        return captured >= set(apps) and all(map(_is_captured, pods))

    try:
        wait_until(are_captured, what=f"{apps} are captured", within=within)
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{cluster.log(PROGRAM)[-3000:]}") from None


def proxy_log(cluster: LocalCluster, namespace: str, pod: str) -> str:
    """Return what the Envoy of a pod has logged: its connections, a line each."""
    path = cluster.folder / "mesh" / f"{namespace}.{pod}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def _is_captured(pod: dict[str, dict[str, dict[str, str]]]) -> bool:
    return pod["metadata"].get("annotations", {}).get(CAPTURED) == "enabled"
