"""Configurations of kind clusters: the shapes in `kind-configs`, and what the tests need of every one of them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.cluster import node
from tests.cluster.keeper import Plot

SHAPES: Final = Path(__file__).parents[2] / "kind-configs"
_KUBELET: Final = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "failCgroupV1": False,
}
_PROXY: Final = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "iptables": {"minSyncPeriod": "0s"},  # kind's second is one in which a ready pod is not reached
}
_CONTROL_PLANE: Final = {
    "kind": "ClusterConfiguration",
    "controllerManager": {"extraArgs": {"allocate-node-cidrs": "false"}},
    "etcd": {"local": {"extraArgs": {"unsafe-no-fsync": "true"}}},
}


class Node(NamedTuple):
    """One node: its container, and the addresses of its pods where we give them."""

    name: str
    role: str
    pods: tuple[str, ...] = ()


def shapes() -> list[str]:
    """Return the names of all shapes."""
    return sorted(path.stem for path in SHAPES.glob("*.yaml"))


def read_shape(shape: str) -> dict[str, Any]:
    """Return the document of a shape."""
    document: dict[str, Any] = yaml.safe_load((SHAPES / f"{shape}.yaml").read_text())
    return document


def is_dual(shape: Mapping[str, Any]) -> bool:
    """Whether the cluster has addresses of both families."""
    return bool(shape.get("networking", {}).get("ipFamily") == "dual")


def list_nodes(shape: Mapping[str, Any], plot: Plot) -> list[Node]:
    """Return the nodes of a cluster in kind's order, with kind's names, and a share of the pods' addresses each."""
    shares = [islice(_split(network), len(shape["nodes"])) for network in _pods(shape, plot)]
    counts: dict[str, int] = {}
    found = []
    for row, pods in zip(shape["nodes"], zip(*shares, strict=True), strict=True):
        count = counts[row["role"]] = counts.get(row["role"], 0) + 1
        found.append(Node(f"{plot.name}-{row['role']}{count if count > 1 else ''}", row["role"], tuple(map(str, pods))))
    return found


def configure(
    shape: Mapping[str, Any], plot: Plot, *, image: str = "", folder: Path, cgroup_v1: bool
) -> dict[str, Any]:
    """Return the configuration of one cluster, with nodes of our own image if one is named.

    Such nodes have no network plugin of kind's: each finds its CNI configuration, written to `folder`, in its place.
    """
    networking = {
        **shape.get("networking", {}),
        "podSubnet": ",".join(map(str, _pods(shape, plot))),
        "serviceSubnet": ",".join(_services(shape, plot)),
    }
    patches: list[Mapping[str, Any]] = [_PROXY, *([_KUBELET] if cgroup_v1 else [])]
    nodes = [dict(row) for row in shape["nodes"]]
    if image:
        networking["disableDefaultCNI"] = True
        patches.append(_CONTROL_PLANE)
        for row, described in zip(nodes, list_nodes(shape, plot), strict=True):
            path = folder / f"{described.name}.conflist"
            path.write_text(json.dumps(node.network(described.pods)))
            row["image"] = image
            mount = {"hostPath": str(path), "containerPath": "/etc/cni/net.d/10-ptp.conflist", "readOnly": True}
            row["extraMounts"] = [*row.get("extraMounts", ()), mount]
    return {
        **shape,
        "name": plot.name,
        "networking": networking,
        "kubeadmConfigPatches": [
            *shape.get("kubeadmConfigPatches", ()),
            *(yaml.safe_dump(patch) for patch in patches),
        ],
        "nodes": nodes,
    }


def _pods(shape: Mapping[str, Any], plot: Plot) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    six = [f"fd00:{plot.number:x}:1::/48"] if is_dual(shape) else []
    return [ipaddress.ip_network(network) for network in (plot.pods, *six)]


def _services(shape: Mapping[str, Any], plot: Plot) -> Sequence[str]:
    return [plot.services, *([f"fd00:{plot.number:x}:2::/112"] if is_dual(shape) else [])]


def _split(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Any:
    """Return the shares of nodes, as large as Kubernetes makes them."""
    return network.subnets(new_prefix=24 if network.version == 4 else 64)
