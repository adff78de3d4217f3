"""How the programs of a one-node cluster are called and configured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.cluster.apiserver import AUDIT_POLICY, CONTROLLERS, ISSUER
from tests.cluster.images import PAUSE
from tests.cluster.keeper import Plot
from tests.cluster.pki import ClusterAuthority, account_keys, kubeconfig, write_private
from tests.cluster.programs import executable

CONTAINERD: Final = "/run/containerd/containerd.sock"
ETCD: Final = "http://127.0.0.1:2379"
DOMAIN: Final = "cluster.local"
_PLUGINS: Final = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")


class Command(NamedTuple):
    """One program of the cluster, with its name in logs."""

    name: str
    argv: Sequence[str]


def plugins() -> str | None:
    """Return the folder that holds the CNI plugins on this machine."""
    wanted = ("ptp", "host-local", "portmap", "loopback")
    return next((place for place in _PLUGINS if all((Path(place) / name).exists() for name in wanted)), None)


def write_files(folder: Path, plot: Plot, pki: ClusterAuthority) -> None:
    """Write keys, kubeconfigs and configurations; the folder is then the working directory of every program."""
    pki.write(folder)
    private, public = account_keys()
    write_private(folder / "sa.key", private)
    (folder / "sa.pub").write_bytes(public)
    service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}"]
    pki.issue("kube-apiserver", hosts=[*service, "localhost", "127.0.0.1", plot.api, plot.node]).write(
        folder, "apiserver"
    )
    pki.issue("kube-apiserver-kubelet-client", groups=["system:masters"]).write(folder, "apiserver-kubelet")
    kubelet = pki.issue(f"system:node:{plot.name}", groups=["system:nodes"], hosts=[plot.name, plot.node])
    kubelet.write(folder, "kubelet")
    users = {
        "controllers": pki.issue("system:kube-controller-manager"),
        "scheduler": pki.issue("system:kube-scheduler"),
        "kubelet": kubelet,
        "proxy": pki.issue("system:kube-proxy"),
        "admin": pki.issue("admin", groups=["system:masters"]),
    }
    for name, user in users.items():
        write_private(folder / f"{name}.conf", kubeconfig(f"https://{plot.node}:6443", pki.pem, user))
    (folder / "audit-policy.yaml").write_text(AUDIT_POLICY)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    (folder / "containerd.toml").write_text(_containerd(folder))
    for place, name, document in (
        ("cni", "10-ptp.conflist", network([plot.pods])),
        ("", "kubelet.yaml", _kubelet(folder, plot)),
        ("", "proxy.yaml", _proxy(plot)),
    ):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / name).write_text(json.dumps(document))


def control_plane(plot: Plot) -> list[Command]:
    """Return what starts first, the API server last."""
    etcd = [
        "--data-dir=etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    apiserver = [
        f"--etcd-servers={ETCD}",
        f"--advertise-address={plot.node}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={plot.services}",
        "--tls-cert-file=apiserver.crt",
        "--tls-private-key-file=apiserver.key",
        "--client-ca-file=ca.crt",
        "--service-account-key-file=sa.pub",
        "--service-account-signing-key-file=sa.key",
        f"--service-account-issuer={ISSUER}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-client-certificate=apiserver-kubelet.crt",
        "--kubelet-client-key=apiserver-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--audit-policy-file=audit-policy.yaml",
        "--audit-log-path=audit.log",
    ]
    return [
        Command("containerd", [shutil.which("containerd") or "containerd", "--config", "containerd.toml"]),
        Command("etcd", [str(executable("etcd")), *etcd]),
        Command("kube-apiserver", [str(executable("kube-apiserver")), *apiserver]),
    ]


def node(plot: Plot) -> list[Command]:
    """Return what starts once the API server is ready: before that it would only wait, and back off."""
    kubelet = [
        "--config=kubelet.yaml",
        "--kubeconfig=kubelet.conf",
        f"--hostname-override={plot.name}",
        f"--node-ip={plot.node}",
        "--v=2",
    ]
    return [
        Command("kubelet", [str(executable("kubelet")), *kubelet]),
        Command("kube-controller-manager", [str(executable("kube-controller-manager")), *CONTROLLERS]),
        Command(
            "kube-scheduler",
            [
                str(executable("kube-scheduler")),
                "--kubeconfig=scheduler.conf",
                "--leader-elect=false",
                "--secure-port=0",
            ],
        ),
        Command("kube-proxy", [str(executable("kube-proxy")), "--config=proxy.yaml"]),
    ]


def _containerd(folder: Path) -> str:
    """Return containerd's configuration in the version that 1.6 and all later ones read."""
    return f"""\
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true  # lowering it takes CAP_SYS_RESOURCE, which a container host may lack
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins()}"
    conf_dir = "{folder}/cni"
"""


def network(pods: Sequence[str]) -> Mapping[str, Any]:
    """Return the CNI configuration of a node with these addresses for pods: a range of IPv4, of IPv6, or both."""
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,  # what pods call outside sees who calls
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni",
                    "ranges": [[{"subnet": subnet}] for subnet in pods],
                    "routes": [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in pods],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _kubelet(folder: Path, plot: Plot) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{plot.name}",
        "failSwapOn": False,
        "oomScoreAdj": 0,  # the default is below 0, which takes CAP_SYS_RESOURCE
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "clusterDNS": [plot.dns],
        "clusterDomain": DOMAIN,
        "resolvConf": str(folder / "resolv.conf"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(folder / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(folder / "kubelet.crt"),
        "tlsPrivateKeyFile": str(folder / "kubelet.key"),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "imagefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "10s",
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        "allowedUnsafeSysctls": [],
    }


def _proxy(plot: Plot) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "oomScoreAdj": 0,
        "hostnameOverride": plot.name,
        "clusterCIDR": plot.pods,
        "clientConnection": {"kubeconfig": "proxy.conf"},
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    }
