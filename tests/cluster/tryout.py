"""What `make cluster` puts into a cluster for a person: istiod, a node proxy, meshgw, and the examples for clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.cluster import controller_image
from tests.cluster.istiod import Istiod
from tests.cluster.local import LocalCluster
from tests.mesh.running import start_node_proxy, wait_captured

MANIFESTS: Final = Path(__file__).parents[2] / "manifests"
EXAMPLES: Final = (MANIFESTS / "examples" / "store", MANIFESTS / "examples" / "walk" / "shop.yaml")
"""The README's walk goes on from its application, which is all of it that is loaded."""

_HOME: Final = "meshgw-system"
_PATIENCE: Final = 120


def furnish(cluster: LocalCluster, say: Callable[[str], None]) -> None:
    """Install and load everything, saying what comes next; objects are applied as the README says."""
    say("installing istiod")
    Istiod(cluster).install()
    start_node_proxy(cluster)
    say("installing meshgw")
    cluster.provide(controller_image.NAME)
    cluster.kubectl("apply", "--server-side", "-k", MANIFESTS / "overlays" / "kind")
    cluster.wait_deployed(_HOME, "meshgw", within=_PATIENCE)
    for example in EXAMPLES:
        say(f"loading {example.relative_to(MANIFESTS.parent)}")
        cluster.kubectl("apply", "-f", example)
    programmed = ("wait", "gateway/store", "--for=condition=Programmed", f"--timeout={_PATIENCE}s")
    cluster.kubectl("-n", "store", *programmed, within=_PATIENCE + 10)
    say("waiting until their pods are in the mesh")
    wait_captured(cluster, "shop", "shop", "frontend", "stranger", within=_PATIENCE)
    wait_captured(cluster, "store", "store", within=_PATIENCE)
    say(f"http://{cluster.load_balancer('store', 'store-meshgw')}/ is the store, for the host store.example.com")
