"""A real API server with its etcd on loopback ports: RBAC, audit log, token signing; no node, no pods that run."""

from __future__ import annotations

import base64
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.cluster import seed
from tests.cluster.access import Access
from tests.cluster.audit import read_audit
from tests.cluster.pki import ClusterAuthority, account_keys, kubeconfig, write_private
from tests.cluster.processes import Process, wait_until
from tests.cluster.programs import executable
from tests.rig.addresses import next_loopback

ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
AUDIT_POLICY: Final = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""
_READY: Final = 60.0


CONTROLLERS: Final = (
    "--kubeconfig=controllers.conf",
    "--root-ca-file=ca.crt",
    "--service-account-private-key-file=sa.key",
    "--cluster-signing-cert-file=ca.crt",
    "--cluster-signing-key-file=ca.key",
    "--use-service-account-credentials",
    "--kube-api-qps=300",
    "--kube-api-burst=600",
    "--leader-elect=false",
    "--secure-port=0",
)
"""Arguments of kube-controller-manager, whose working directory has the files."""


class ApiServer(Access):
    """etcd and kube-apiserver, and kube-controller-manager if asked for; made by `run_apiserver`."""

    def __init__(self, folder: Path, arguments: Sequence[str] = (), *, seeded: bool = False) -> None:
        self.folder = folder
        self.address = next_loopback()
        self.etcd_url = f"http://{self.address}:2379"
        self._seeded = seeded
        self.pki = ClusterAuthority()
        self.audit_log = folder / "audit.log"
        """One JSON event per request, as the server finishes it."""

        _write_files(folder, self.pki, self.address)
        url = f"https://{self.address}:6443"
        admin = self.pki.issue("admin", groups=["system:masters"])
        super().__init__(write_private(folder / "admin.conf", kubeconfig(url, self.pki.pem, admin)))
        self.etcd = Process(_etcd(folder, self.address), folder / "etcd.log", cwd=folder)
        self.server = Process([*_apiserver(self.address), *arguments], folder / "kube-apiserver.log", cwd=folder)
        """kube-apiserver itself: `freeze`, `thaw`, `kill` it, and `start` this object again."""

        self.controllers = Process(
            [str(executable("kube-controller-manager")), *CONTROLLERS],
            folder / "kube-controller-manager.log",
            cwd=folder,
        )

    def start(self) -> None:
        """Start what does not run, and wait until the server is ready."""
        seeding = self._seeded and not self.server.started
        self.etcd.start()
        if seeding:
            seed.store(seed.definitions(), self.etcd_url)
        self.server.start()
        wait_until(self.is_ready, what="the API server is ready", within=_READY, watched=[self.etcd, self.server])
        if seeding:
            self.wait_defined()

    def stop(self) -> None:
        """End everything; `start` brings it back with its data, the controllers excepted."""
        for process in (self.controllers, self.server, self.etcd):
            process.stop()

    def start_controllers(self) -> None:
        """Start kube-controller-manager: default ServiceAccounts, garbage collection, namespace removal, endpoints."""
        self.controllers.start()

        def serves() -> bool:
            return self.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200

        wait_until(serves, what="controllers work", within=_READY, watched=[self.controllers, self.server])

    def user_kubeconfig(self, name: str, path: Path, *, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig of user `name` with a client certificate to `path`, and return it."""
        return write_private(path, kubeconfig(self.url, self.pki.pem, self.pki.issue(name, groups=groups)))

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit events so far."""
        return read_audit(self.audit_log)

    def compact(self) -> int:
        """Forget all revisions in etcd but the newest, and return it: who needs an older one gets 410."""
        told = seed.call_etcd(self.etcd_url, "/v3/kv/range", {"key": base64.b64encode(b"/").decode()})
        revision = int(told["header"]["revision"])
        seed.call_etcd(self.etcd_url, "/v3/kv/compaction", {"revision": revision, "physical": True})
        return revision


@contextlib.contextmanager
def run_apiserver(*arguments: str, seeded: bool = False) -> Iterator[ApiServer]:
    """Run an API server of one's own, with extra command-line arguments, until the block ends. Ready in 4 s.

    A seeded one has the CRDs of the Gateway API and of Istio.
    """
    with tempfile.TemporaryDirectory(prefix="meshgw-apiserver-") as folder:
        server = ApiServer(Path(folder), arguments, seeded=seeded)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _write_files(folder: Path, pki: ClusterAuthority, address: str) -> None:
    pki.write(folder)
    private, public = account_keys()
    write_private(folder / "sa.key", private)
    (folder / "sa.pub").write_bytes(public)
    hosts = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "10.96.0.1", address]
    pki.issue("kube-apiserver", hosts=hosts).write(folder, "apiserver")
    (folder / "audit-policy.yaml").write_text(AUDIT_POLICY)
    manager = pki.issue("system:kube-controller-manager")
    write_private(folder / "controllers.conf", kubeconfig(f"https://{address}:6443", pki.pem, manager))


def _etcd(folder: Path, address: str) -> list[str]:
    client, peer = f"http://{address}:2379", f"http://{address}:2380"
    return [
        str(executable("etcd")),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver(address: str) -> list[str]:
    return [
        str(executable("kube-apiserver")),
        f"--etcd-servers=http://{address}:2379",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        "--secure-port=6443",
        "--endpoint-reconciler-type=none",  # a loopback address is not allowed in an EndpointSlice
        "--service-cluster-ip-range=10.96.0.0/16",
        "--tls-cert-file=apiserver.crt",
        "--tls-private-key-file=apiserver.key",
        "--client-ca-file=ca.crt",
        "--service-account-key-file=sa.pub",
        "--service-account-signing-key-file=sa.key",
        f"--service-account-issuer={ISSUER}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--audit-policy-file=audit-policy.yaml",
        "--audit-log-path=audit.log",
        "--shutdown-delay-duration=0s",
    ]
