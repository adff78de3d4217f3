"""Somebody else's cluster, named by KUBECONFIG: one to be thrown away, as tests install CRDs and istiod in it.

Its pod, Service and load balancer addresses must be routed to this machine, as those of k3s and minikube can be.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.cluster.access import KubectlError
from tests.cluster.cluster import Cluster
from tests.cluster.pki import write_private
from tests.cluster.programs import executable

LOADER: Final = "MESHGW_LOAD_IMAGE"
"""The variable with the command that brings an image archive, its last argument, to the cluster's nodes."""


def why_not(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return why there is no such cluster, with the remedy; None when there is."""
    if not environ.get("KUBECONFIG"):
        return "--cluster existing needs KUBECONFIG, the path of the configuration of a cluster to be thrown away"
    if not environ.get(LOADER):
        return f"--cluster existing needs {LOADER}, a command such as `minikube image load` or `k3s ctr images import`"
    return None


class ExistingCluster(Cluster):
    """A cluster of which no more is known than its kubeconfig and how it takes images."""

    def __init__(self, kubeconfig: Path, loader: str) -> None:
        super().__init__(kubeconfig)
        self._loader = shlex.split(loader)

    @property
    def host(self) -> str:
        """The address of this machine on the way to the API server, at which pods should reach it too."""
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=5) as connection:
            address: str = connection.getsockname()[0]
            return address

    def load_image(self, archive: Path) -> None:
        """Run the loader; raises KubectlError when it fails."""
        finished = subprocess.run(
            [*self._loader, archive], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=120
        )
        if finished.returncode:
            raise KubectlError(f"{shlex.join(self._loader)} {archive}: {finished.stderr.strip() or finished.stdout}")


@contextmanager
def use_existing_cluster(environ: Mapping[str, str] = os.environ) -> Iterator[ExistingCluster]:
    """Use the cluster of the current context of KUBECONFIG; what is in it when the block ends stays."""
    with tempfile.TemporaryDirectory(prefix="meshgw-existing-") as folder:
        view = [executable("kubectl"), "config", "view", "--minify", "--flatten", "--raw"]
        document = subprocess.run(view, env=dict(environ), capture_output=True, check=True).stdout
        yield ExistingCluster(write_private(Path(folder) / "kubeconfig", document), environ[LOADER])
