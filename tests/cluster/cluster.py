"""What tests may ask of a cluster whose nodes run pods, whoever provides it."""

from __future__ import annotations

import json
import secrets
import socket
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from tests.cluster.access import Access
from tests.cluster.images import image
from tests.cluster.processes import wait_until

DOMAIN: Final = "cluster.local"
_DNS: Final = "/api/v1/namespaces/kube-system/services/kube-dns"


class Cluster(Access, ABC):
    """An `Access` to a cluster with nodes. Pod, Service and load balancer addresses can be dialled as `reach` says."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(kubeconfig)
        self._provided: set[str] = set()

    @property
    @abstractmethod
    def host(self) -> str:
        """The address of this machine at which pods can reach what the tests serve."""

    @abstractmethod
    def load_image(self, archive: Path) -> None:
        """Import an image archive (OCI or Docker) on every node; its name in the cluster is the one in the archive."""

    def reach(self, address: str, port: int) -> tuple[str, int]:
        """Return what to dial here to reach a TCP port of a pod, a Service or a load balancer: all are routed."""
        return address, port

    def provide(self, name: str) -> None:
        """Have an image of `tests.cluster.images.RECIPES` in the cluster."""
        if name not in self._provided:
            self.load_image(image(name))
            self._provided.add(name)

    def resolve(self, name: str) -> str:
        """Return the IPv4 address that the cluster's DNS has for a full name; raises LookupError."""
        document = json.loads(self.request("GET", _DNS)[1])
        question = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"
        identifier = secrets.randbits(16)
        query = struct.pack(">HHHHHH", identifier, 0x0100, 1, 0, 0, 0) + question + struct.pack(">HH", 1, 1)
        address, port = self.reach(document["spec"]["clusterIP"], 53)
        with socket.create_connection((address, port), timeout=5) as connection, connection.makefile("rb") as stream:
            connection.sendall(struct.pack(">H", len(query)) + query)
            answer = stream.read(struct.unpack(">H", stream.read(2))[0])
        _, flags, _, count, _, _ = struct.unpack(">HHHHHH", answer[:12])
        if flags & 0xF or not count:
            raise LookupError(f"{name}: DNS answers {flags & 0xF} with {count} records")
        return _first_address(answer, len(query), count)

    def wait_deployed(self, namespace: str, deployment: str, *, within: int = 60) -> None:
        """Wait until all pods of a Deployment are those of its last change, and ready."""
        self.kubectl(
            "-n", namespace, "rollout", "status", f"deployment/{deployment}", f"--timeout={within}s", within=within + 10
        )

    def load_balancer(self, namespace: str, service: str, *, within: float = 15) -> str:
        """Return the load balancer address of a Service, once it has one."""
        found: list[str] = []

        def has_address() -> bool:
            status, body = self.request("GET", f"/api/v1/namespaces/{namespace}/services/{service}/status")
            entries = json.loads(body)["status"]["loadBalancer"].get("ingress", ()) if status == 200 else ()
            found[:] = [entry["ip"] for entry in entries]
            return bool(found)

        wait_until(has_address, what=f"{namespace}/{service} has an address", within=within)
        return found[0]


def _first_address(answer: bytes, at: int, count: int) -> str:
    """Return the first A record (RFC 1035) among `count` records that start at `at`."""
    for _ in range(count):
        while answer[at] and answer[at] < 0xC0:
            at += 1 + answer[at]
        at += 2 if answer[at] else 1
        kind, _, _, length = struct.unpack(">HHIH", answer[at : at + 10])
        if kind == 1:
            return socket.inet_ntoa(answer[at + 10 : at + 14])
        at += 10 + length
    raise LookupError("no address among the records")
