"""The image of a kind node without a registry: a Debian, kind's own files, and the programs of `programs.py`.

Kept in `~/.cache/meshgw/kind`, keyed by all that is in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshgw.standalone.envoy import cache_directory
from tests.cluster.archive import Config, Layer, write_archive
from tests.cluster.images import PAUSE, add_program
from tests.cluster.programs import KUBERNETES_VERSION, PROGRAMS, executable, module_folder

PARTS: Final = ("pause", "control", "node", "coredns", "kind")
"""The programs that are in the image, and kind, whose module has the files."""

_SUITE: Final = "bookworm"
_PACKAGES: Final = (
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "ethtool",
    "iproute2",
    "iptables",
    "kmod",
    "mount",
    "nftables",
    "procps",
    "runc",
    "systemd",
)
_OPTIONS: Final = (
    "--variant=minbase",
    "--format=tar",
    '--aptopt=APT::Install-Recommends "false"',
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "info", "locale")),
)
_HOOKS: Final = (
    # A container has no devices, consoles and file systems to look after; kind's units alone start with it.
    (
        'cd "$1" && rm -f lib/systemd/system/multi-user.target.wants/* lib/systemd/system/local-fs.target.wants/*'
        " lib/systemd/system/basic.target.wants/* lib/systemd/system/sockets.target.wants/*udev*"
        " lib/systemd/system/sockets.target.wants/*initctl* etc/systemd/system/*.wants/*"
        " lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service"
    ),
    'rm -rf "$1"/var/cache/* "$1"/usr/lib/modules "$1"/usr/share/i18n; rm -f "$1"/etc/machine-id',
)
_CONTAINERD: Final = f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  tolerate_missing_hugepages_controller = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    discard_unpacked_layers = true
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
"""
_LOADS: Final = """\
[Service]
ExecStartPost=/bin/bash -c 'for image in /kind/images/*.tar; do \
ctr --namespace k8s.io images import "$image" & done; wait'
"""
_WAITS: Final = "[Unit]\nAfter=containerd.service\n"


class NodeImageError(Exception):
    """The image cannot be made; one line with cause and remedy, then what the program said."""


def why_not() -> str | None:
    """Return why no image can be made here, with the remedy; None when it can."""
    missing = [program for program in ("mmdebstrap", "iptables") if shutil.which(program) is None]
    return f"a node image needs more programs: apt-get install {' '.join(missing)}" if missing else None


def name() -> str:
    """Return the name of the image, whose tag says what is in it."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for part in PARTS:
        digest.update(PROGRAMS[part].fingerprint().encode())
    return f"kindest/node:meshgw-{digest.hexdigest()[:16]}"


def path() -> Path:
    """Return where the image's archive is kept, once it is made."""
    return _root() / f"{name().rpartition(':')[2]}.tar"


def node_image() -> Path:
    """Return the image's archive, made if need be: a minute, and more for its programs; raises NodeImageError.

    Call it with `locked`.
    """
    archive = path()
    if not archive.exists():
        programs = {part: executable(part) for part in PARTS}
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".pack-") as scratch:
            layer = _node(Path(scratch), programs)
            config = Config(["/usr/local/bin/entrypoint", "/sbin/init"], environ=["container=docker"])
            write_archive(Path(scratch) / "image.tar", name(), [_debian(), layer], config)
            for former in archive.parent.glob("meshgw-*"):
                if former.stem != archive.stem:
                    shutil.rmtree(former) if former.is_dir() else former.unlink()
            (Path(scratch) / "image.tar").rename(archive)
    return archive


@contextmanager
def locked() -> Iterator[None]:
    """Let no other process make images meanwhile."""
    with (_root() / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _debian() -> Path:
    """Return the tar file of a Debian with what a node needs."""
    recipe = repr((_SUITE, _PACKAGES, _OPTIONS, _HOOKS, platform.machine()))
    path = _root() / f"debian-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.tar"
    if not path.exists():
        sys.stderr.write("tests/cluster: making a Debian for the nodes of kind (about a minute)\n")
        scratch = path.with_suffix(".new")
        hooks = [f"--customize-hook={hook}" for hook in _HOOKS]
        command = ["mmdebstrap", *_OPTIONS, f"--include={','.join(_PACKAGES)}", *hooks, _SUITE, str(scratch)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            said = "\n".join(finished.stderr.splitlines()[-20:])
            raise NodeImageError(f"mmdebstrap failed; see that a Debian archive can be reached\n{said}")
        scratch.rename(path)
    return path


def _node(scratch: Path, programs: dict[str, Path]) -> Layer:
    """Return what makes a Debian a node."""
    made = Layer()
    _add_kind(made)
    made.add(_CONTAINERD.encode(), "/etc/containerd/config.toml")
    made.link("/opt/cni/bin", "/usr/lib/cni")
    made.link("/usr/sbin/init", "/usr/lib/systemd/systemd")
    for program in ("containerd", "containerd-shim-runc-v2", "ctr"):
        made.link(f"/usr/local/bin/{program}", f"/usr/bin/{program}")
    for unit in ("containerd", "kubelet", "undo-mount-hacks"):
        made.link(f"/etc/systemd/system/multi-user.target.wants/{unit}.service", f"../{unit}.service")
    made.link("/etc/systemd/system/systemd-binfmt.service", "/dev/null")
    made.link("/etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target")
    made.add(b"[Journal]\nReadKMsg=no\n", "/etc/systemd/journald.conf.d/10-kind.conf")
    made.add(_LOADS.encode(), "/etc/systemd/system/containerd.service.d/10-images.conf")
    made.add(_WAITS.encode(), "/etc/systemd/system/kubelet.service.d/10-images.conf")
    made.add(f"{KUBERNETES_VERSION}\n".encode(), "/kind/version")
    made.folder("/etc/kubernetes/manifests")
    made.folder("/kind/manifests")
    made.add(programs["node"], "/usr/bin/kubenode", mode=0o755)
    made.add(programs["control"], "/usr/bin/kubecontrol", mode=0o755)
    made.link("/usr/bin/kubelet", "kubenode")
    made.link("/usr/bin/kubeadm", "kubenode")
    made.link("/usr/bin/kubectl", "kubecontrol")
    for archive in _images(scratch, programs):
        made.add(archive, f"/kind/images/{archive.name}")
    return made


def _add_kind(made: Layer) -> None:
    """Put the files of kind's base image, but for containerd's configuration."""
    folder = module_folder("kind", "sigs.k8s.io/kind") / "images" / "base" / "files"
    for path in sorted(folder.rglob("*")):
        target = path.relative_to(folder)
        if path.is_file() and target.parts[0] in ("etc", "kind", "usr"):
            is_program = "bin" in target.parts
            made.add(path, f"/{target}", mode=0o755 if is_program else 0o644)


def _images(scratch: Path, programs: dict[str, Path]) -> Iterator[Path]:
    """Yield archives of the images that kubeadm asks for, under the names it asks for."""
    command = [str(executable("kubeadm")), "config", "images", "list", f"--kubernetes-version={KUBERNETES_VERSION}"]
    wanted = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    contents = {
        "control": ("kube-apiserver", "kube-controller-manager", "etcd"),
        "node": ("kube-scheduler", "kube-proxy"),
        "coredns": ("coredns",),
        "pause": ("pause",),
    }
    for program, calls in contents.items():
        layer = Layer()
        layer.add(programs[program], f"/usr/local/bin/{program}", mode=0o755)
        for call in calls:
            if call != program:
                layer.link(f"/usr/local/bin/{call}", program)
        if program == "node":
            _add_iptables(layer)
        names = [image for image in wanted if image.rpartition("/")[2].rpartition(":")[0] in calls]
        if len(names) != len(calls):
            raise NodeImageError(f"kubeadm asks for {wanted}, of which {calls} are not known")
        path = scratch / f"{program}.tar"
        config = Config([f"/usr/local/bin/{program}"]) if len(calls) == 1 else Config()
        write_archive(path, names, [layer], config)
        yield path


def _add_iptables(layer: Layer) -> None:
    """Put what kube-proxy calls."""
    multi = Path(shutil.which("iptables") or "iptables").resolve().with_name("xtables-nft-multi")
    add_program(layer, multi, "/usr/sbin/xtables-nft-multi")
    for family in ("iptables", "ip6tables"):
        for call in ("", "-save", "-restore"):
            layer.link(f"/usr/sbin/{family}{call}", "xtables-nft-multi")
    extensions = Path(os.path.realpath(_libraries(multi)["libxtables"])).parent / "xtables"
    layer.add_tree(extensions, str(extensions))
    for library in _libraries(*sorted(extensions.glob("*.so"))).values():
        layer.add(Path(library), library, mode=0o755)


def _libraries(*programs: Path) -> dict[str, str]:
    """Return the paths of the libraries that programs load, by their names without a version."""
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=True).stdout
    return {Path(library).name.partition(".")[0]: library for library in re.findall(r"(?:=> )?(/\S+) \(0x", said)}


def _root() -> Path:
    root = cache_directory() / "kind"
    root.mkdir(parents=True, exist_ok=True)
    return root
