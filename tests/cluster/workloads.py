"""Workloads for tests: Istio's echo server, in plain HTTP and behind HBONE with a certificate of the mesh."""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Mapping
from typing import Any, Final

from tests.cluster.cluster import Cluster
from tests.cluster.images import ECHO
from tests.cluster.processes import wait_until

HTTP: Final = 8080
HBONE: Final = 15008
_CERTIFICATES: Final = "/etc/mesh"


class Echo:
    """A Deployment of echo servers with its ServiceAccount and Service (port 80), all of one name.

    With `identity`, a chain and a key in PEM, it also terminates HBONE on port 15008, and its pods say so in the way
    that istiod understands.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        *,
        replicas: int = 1,
        version: str = "v1",
        identity: tuple[bytes, bytes] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.name = name
        self._version = version
        self._replicas = replicas
        self._identity = identity
        self._labels = {"app": name, "version": version, **(labels or {})}

    def deploy(self) -> None:
        """Create it, or change it, and wait until it is ready and its Service leads to it."""
        self.cluster.apply(*self._objects())
        self.cluster.wait_deployed(self.namespace, self.name)
        address = self.cluster.get("-n", self.namespace, "service", self.name)["spec"]["clusterIP"]
        wait_until(lambda: self._accepts(address), what=f"kube-proxy leads to {self.host}", within=15)

    @property
    def host(self) -> str:
        """The Service's full name."""
        return f"{self.name}.{self.namespace}.svc.cluster.local"

    def pods(self) -> dict[str, str]:
        """Return the addresses of its ready pods by name."""
        found = self.cluster.get("-n", self.namespace, "pods", "-l", f"app={self.name},version={self._version}")[
            "items"
        ]
        return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in found if _is_ready(pod)}

    def call(self, *arguments: str, within: float = 30.0) -> str:
        """Return what Istio's echo client says when one of the pods runs it; raises KubectlError when a call fails."""
        client = ["exec", f"deployment/{self.name}", "--", "/usr/local/bin/client"]
        return self.cluster.kubectl("-n", self.namespace, *client, *arguments, within=within)

    def call_through_tunnel(self, waypoint: str, target: str, url: str, *arguments: str) -> str:
        """Return the same through an HBONE tunnel to `target` (`ip:port`) at `waypoint` (`ip:port`), as this identity.

        The tunnel's server certificate is not verified: that is the business of what is being tested.
        """
        return self.call(
            f"--hbone={waypoint}",
            f"--hbone-client-cert={_CERTIFICATES}/tls.crt",
            f"--hbone-client-key={_CERTIFICATES}/tls.key",
            "--hbone-insecure-skip-verify",
            f"--hbone-header=Host:{target}",
            *arguments,
            url,
        )

    def _accepts(self, address: str) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self.cluster.reach(address, 80), timeout=1):
            return True
        return False

    def _objects(self) -> list[Mapping[str, Any]]:
        meta = {"name": self.name, "namespace": self.namespace}
        arguments = [f"--port={HTTP}", f"--version={self._version}", "--tcp=9090", "--grpc=7070"]
        container: dict[str, Any] = {
            "name": "echo",
            "image": ECHO,
            "imagePullPolicy": "Never",
            "args": arguments,
            "env": [{"name": "INSTANCE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "readinessProbe": {"httpGet": {"path": "/", "port": HTTP}, "periodSeconds": 1},
        }
        spec: dict[str, Any] = {
            "serviceAccountName": self.name,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        }
        ports = [
            {"name": "http", "port": 80, "targetPort": HTTP},
            {"name": "tcp", "port": 9090},
            {"name": "grpc", "port": 7070},
        ]
        template = {"metadata": {"labels": dict(self._labels)}, "spec": spec}
        objects: list[Mapping[str, Any]] = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta,
                "spec": {"selector": {"app": self.name}, "ports": ports},
            },
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {**meta, "name": self.name},
                "spec": {
                    "replicas": self._replicas,
                    "selector": {"matchLabels": {"app": self.name, "version": self._version}},
                    "template": template,
                },
            },
        ]
        if self._identity is not None:
            chain, key = self._identity
            template["metadata"]["labels"]["networking.istio.io/tunnel"] = "http"
            files = {"tls.crt": chain, "tls.key": key}
            objects.insert(
                0,
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {**meta, "name": f"{self.name}-mesh"},
                    "type": "kubernetes.io/tls",
                    "data": {name: base64.b64encode(content).decode() for name, content in files.items()},
                },
            )
            arguments += [
                f"--hbone={HBONE}",
                f"--tls={HBONE}",
                f"--crt={_CERTIFICATES}/tls.crt",
                f"--key={_CERTIFICATES}/tls.key",
            ]
            container["volumeMounts"] = [{"name": "mesh", "mountPath": _CERTIFICATES, "readOnly": True}]
            spec["volumes"] = [{"name": "mesh", "secret": {"secretName": f"{self.name}-mesh"}}]
        return objects


def _is_ready(pod: Mapping[str, Any]) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod["status"].get("conditions", ())
    )


def lines_of(said: str, field: str) -> list[str]:
    """Return the values of one field (`Hostname`, `StatusCode`, ...) in what the echo client said."""
    marker = f"{field}="
    return [line.partition(marker)[2].strip() for line in said.splitlines() if marker in line]
