"""What the operator decides: the flags of `meshgw run` and of `meshgw controller`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from meshgw import names


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


class IstioSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The mesh that Gateways of a cluster are part of."""

    istiod: str = ""
    """host:port; "" is `istiod[-<revision>].<root namespace>.svc:15012`."""
    revision: str = ""
    root_namespace: str = names.DEFAULT_ROOT_NAMESPACE
    cluster_id: str = "Kubernetes"
    network: str = ""
    """What Istio calls the network of this cluster's pods; "" leaves that to Istio."""
    trust_domain: str = ""
    """"" is what Istio's mesh configuration says."""
    trust_domain_aliases: tuple[str, ...] = ()
    """Besides those of Istio's mesh configuration."""
    lifetime: float = 0.0
    """Seconds asked for each certificate; 0 leaves it to istiod."""

    @property
    def address(self) -> str:
        """Where istiod's CA is."""
        name = f"istiod-{self.revision}" if self.revision and self.revision != "default" else "istiod"
        return self.istiod or f"{name}.{self.root_namespace}.svc:15012"


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of the controller in a cluster."""

    kubeconfig: str = ""
    context: str = ""
    namespaces: tuple[str, ...] = ()
    """Those that are served; none means all, or those of the selector."""
    namespace_selector: str = ""
    controller_name: str = names.CONTROLLER_NAME
    home: str = "meshgw-system"
    """The controller's own namespace: of its Lease, and of the Secret of its CA."""
    instance: str = ""
    """The name of this replica, its pod's."""
    cluster_domain: str = names.DEFAULT_CLUSTER_DOMAIN
    istio: IstioSettings | None = IstioSettings()
    """None: Gateways are part of no mesh."""
    proxy_image: str = names.PROXY_IMAGE
    dual_stack: bool = False
    """Whether pods have IPv6 addresses, alone or beside IPv4."""
    own_parameters: str = "any"
    """What Gateways may say by GatewayParameters of their own: any, safe or none."""
    xds_listen: str = "0.0.0.0:18000"
    xds_address: str = ""
    """host:port that proxies dial; "" is the Service `meshgw` in the own namespace."""
    xds_secret: str = ""
    """A Secret in the own namespace in which others keep the server's certificate; "" is a CA of our own."""
    health_listen: str = "0.0.0.0:8081"
    metrics_listen: str = "0.0.0.0:9090"
    proxies_listen: str = "127.0.0.1:8082"
    """Where this replica tells of its proxies: to who may forward ports of its pod, and to nobody else."""
    leader_election: bool = True
    lease_name: str = "meshgw"
    shutdown_delay: float = 5.0
    """Seconds from SIGTERM on for which proxies are still served, until the last of them knows of another replica."""
    incremental: bool = True
    """False recomputes everything at each commit: slow, for incidents."""

    @property
    def dialled(self) -> str:
        """host:port that proxies dial."""
        return self.xds_address or f"meshgw.{self.home}.svc:18000"
