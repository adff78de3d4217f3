"""What the operator of a standalone instance decides: the flags of `meshgw run`."""

from __future__ import annotations

from pathlib import Path

import msgspec


class MeshSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where mesh certificates come from; without an address the embedded CA signs them, on loopback, for this run."""

    trust_domain: str = "cluster.local"
    ca_address: str = ""
    """host:port of an istiod (15012)."""
    ca_roots: Path | None = None
    """PEM file that verifies that istiod; re-read at each use."""
    token: Path | None = None
    """File with a token of audience istio-ca; re-read at each use."""
    cluster_id: str = "Kubernetes"
    lifetime: float = 0.0
    """Seconds asked for each certificate; 0 leaves it to the CA."""


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One standalone instance."""

    paths: tuple[str, ...]
    envoy: Path | None = None
    runtime_dir: Path | None = None
    port_offset: int | None = None
    """Added to ports below 1024; None decides by privilege."""
    concurrency: int | None = None
    """Worker threads of each Envoy; None is one per core."""
    detach: bool = False
    """Envoys outlive the controller, and the next run of the same files adopts them."""
    mesh: MeshSettings | None = None
    metrics_port: int | None = 9970
    """Loopback port of the metrics; None serves none, 0 takes a free one."""
    poll: float = 0.05
    """Seconds between looks at the files."""
    incremental: bool = True
    """False recomputes everything at each commit: slow, for incidents."""
    all_stats: bool = False
