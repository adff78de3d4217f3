"""A real istiod in a test cluster: installed, configured anew, stopped, and given another root to sign with."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.cluster.cluster import DOMAIN, Cluster
from tests.cluster.images import PILOT
from tests.cluster.processes import wait_until
from tests.rig.certs import CertificateAuthority, key_pem

NAMESPACE: Final = "istio-system"
ROOT_CONFIG_MAP: Final = "istio-ca-root-cert"
CLUSTER_ID: Final = "Kubernetes"

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PILOT_ENABLE_AMBIENT": "true",
    "CA_TRUSTED_NODE_ACCOUNTS": f"{NAMESPACE}/ztunnel",
    "INJECT_ENABLED": "false",
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
    "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER": "false",
    "ENABLE_LEADER_ELECTION": "false",
    "ROOT_CA_DIR": "/etc/cacerts",
    "CLUSTER_ID": CLUSTER_ID,
}
"""What istiod runs with unless a test says otherwise."""


class Istiod:
    """The istiod of one cluster, reached at `istiod.istio-system.svc:15012` by pods and at `address` from here."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._mesh: Mapping[str, Any] = {}
        self._environ: Mapping[str, str] = {}

    @property
    def address(self) -> str:
        """`host:port` of its secure port, from here; its certificate is for `istiod.istio-system.svc`."""
        service = self.cluster.get("-n", NAMESPACE, "service", "istiod")["spec"]["clusterIP"]
        host, port = self.cluster.reach(service, 15012)
        return f"{host}:{port}"

    def install(self) -> None:
        """Install it, and wait until it is ready and its root is in every namespace."""
        self.cluster.provide(PILOT)
        self.configure()

    def configure(self, *, mesh: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> None:
        """Run it with this mesh configuration and these environment variables over the usual ones, nothing else."""
        self._mesh, self._environ = mesh or {}, environ or {}
        own = [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{field}"}}}
            for name, field in (("POD_NAME", "name"), ("POD_NAMESPACE", "namespace"))
        ]
        variables = [{"name": name, "value": value} for name, value in {**ENVIRONMENT, **self._environ}.items()]
        # The mesh configuration is not in the pod's template: its change alone would not restart anything.
        told = {"name": "MESH_CONFIGURATION", "value": json.dumps(self._mesh, sort_keys=True)}
        manifest = string.Template((Path(__file__).parent / "istiod.yaml").read_text()).substitute(
            image=PILOT,
            mesh=json.dumps(json.dumps(self._mesh)),
            environment=json.dumps([*own, *variables, told]),
        )
        self.cluster.apply(manifest)
        self._wait()

    def restart(self) -> None:
        """Replace its pod, and wait until the new one is ready."""
        self.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/istiod")
        self._wait()

    def stop(self) -> None:
        """Have no istiod, until `start`."""
        self.cluster.kubectl("-n", NAMESPACE, "scale", "deployment/istiod", "--replicas=0")
        self.cluster.kubectl("-n", NAMESPACE, "wait", "pod", "-l=app=istiod", "--for=delete", "--timeout=30s")

    def start(self) -> None:
        """Have one again after `stop`."""
        self.cluster.kubectl("-n", NAMESPACE, "scale", "deployment/istiod", "--replicas=1")
        self._wait()

    def sign_with(self, authority: CertificateAuthority, *others: CertificateAuthority) -> None:
        """Sign with `authority` from now on (Secret `cacerts`, then a restart); the mesh trusts `others` too."""
        files = {
            "ca-cert.pem": authority.pem,
            "ca-key.pem": key_pem(authority.key),
            "cert-chain.pem": authority.pem,
            "root-cert.pem": b"".join(trusted.root for trusted in (authority, *others)),
        }
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "cacerts", "namespace": NAMESPACE},
                "data": {name: base64.b64encode(content).decode() for name, content in files.items()},
            }
        )
        self.restart()
        wanted = files["root-cert.pem"].strip()
        wait_until(lambda: self.roots().strip() == wanted, what="the roots are published", within=30)

    def sign_with_its_own(self) -> None:
        """Sign with the root that istiod made itself, as it does unless told otherwise."""
        self.cluster.kubectl("-n", NAMESPACE, "delete", "secret", "cacerts", "--ignore-not-found")
        self.restart()

    def roots(self, namespace: str = "default") -> bytes:
        """Return the PEM bundle that istiod published in a namespace, empty if it has not yet."""
        status, body = self.cluster.request("GET", f"/api/v1/namespaces/{namespace}/configmaps/{ROOT_CONFIG_MAP}")
        if status == 404:
            return b""
        bundle: str = json.loads(body)["data"]["root-cert.pem"]
        return bundle.encode()

    def logs(self) -> str:
        """Return what it logged since it started."""
        return self.cluster.kubectl("-n", NAMESPACE, "logs", "deployment/istiod")

    def _wait(self) -> None:
        self.cluster.wait_deployed(NAMESPACE, "istiod")
        wait_until(lambda: self.roots() != b"", what=f"istiod publishes {ROOT_CONFIG_MAP}", within=30)
        name = f"istiod.{NAMESPACE}.svc.{DOMAIN}"
        service = self.cluster.get("-n", NAMESPACE, "service", "istiod")["spec"]["clusterIP"]
        wait_until(lambda: self.cluster.resolve(name) == service, what=f"{name} resolves", within=10)
