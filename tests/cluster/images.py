"""The images that test clusters run, packed from programs of this machine and kept in `~/.cache/meshgw/images`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from meshgw.standalone.envoy import cache_directory, find_envoy
from meshgw.standalone.wheels import ENVOY_VERSION
from tests.cluster import archive, controller_image
from tests.cluster.archive import Config, Layer
from tests.cluster.programs import executable

PAUSE: Final = "registry.k8s.io/pause:3.10.1"
COREDNS: Final = "registry.k8s.io/coredns/coredns:v1.14.7"
ENVOY: Final = f"docker.io/envoyproxy/envoy:distroless-v{ENVOY_VERSION}"
ECHO: Final = "gcr.io/istio-testing/app:latest"
"""Istio's echo: `/usr/local/bin/server` and `/usr/local/bin/client`."""

PILOT: Final = "docker.io/istio/pilot:1.31"
_NOBODY: Final = "65532:65532"


class Recipe(NamedTuple):
    """How one image is made: its programs, and what makes the layer of them."""

    programs: tuple[str, ...]
    layer: Callable[[], Layer]
    config: Config


def image(name: str) -> Path:
    """Return the archive of an image of `RECIPES`, packed if need be; blocks for seconds, minutes with its programs."""
    return pack(name, RECIPES[name])


def pack(name: str, recipe: Recipe) -> Path:
    """Return the archive of an image, packed if need be."""
    layer = recipe.layer()
    root = cache_directory() / "images"
    path = root / f"{re.sub('[^a-z0-9.]+', '-', name)}-{_fingerprint(recipe, layer)}.tar"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                with tempfile.TemporaryDirectory(dir=root, prefix=".pack-") as scratch:
                    archive.write_archive(Path(scratch) / "image.tar", name, [layer], recipe.config)
                    (Path(scratch) / "image.tar").rename(path)
                _forget_older(path)
    return path


def _forget_older(path: Path) -> None:
    """Delete former archives of the same image but the latest two, which another run may be reading."""
    former = path.name.rpartition("-")[0]
    others = [other for other in path.parent.glob(f"{former}-*.tar") if other != path]
    for other in sorted(others, key=lambda other: other.stat().st_mtime)[:-2]:
        other.unlink(missing_ok=True)


def add_program(layer: Layer, program: Path, target: str) -> None:
    """Put a dynamically linked program at `target`, with its loader and libraries where it looks for them."""
    layer.add(program, target, mode=0o755)
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(?:=> )?(/\S+) \(0x", said):
        layer.add(Path(library), library, mode=0o755)


def _fingerprint(recipe: Recipe, layer: Layer) -> str:
    """Return a hash of what the image is made of; programs are told by path, size and time, as reading is slow."""
    digest = hashlib.sha256(repr((recipe.config, archive.ARCHITECTURE)).encode())
    for target, source in layer.sources():
        status = source.stat()
        digest.update(f"\0{target} {source} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _binaries(**targets: str) -> Callable[[], Layer]:
    """Return what makes a layer of static programs, each at its target."""

    def layer() -> Layer:
        made = Layer()
        for name, target in targets.items():
            made.add(executable(name.replace("_", "-")), target, mode=0o755)
        return made

    return layer


def add_envoy(layer: Layer) -> None:
    """Put Envoy, with its libraries."""
    add_program(layer, find_envoy(os.environ.get("MESHGW_TEST_ENVOY")).path, "/usr/local/bin/envoy")


def _envoy() -> Layer:
    made = Layer()
    add_envoy(made)
    made.folder("/tmp", mode=0o1777)
    made.folder("/etc/envoy")
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        made.add(bundle, str(bundle))
    return made


RECIPES: Final[Mapping[str, Recipe]] = {
    PAUSE: Recipe(("pause",), _binaries(pause="/pause"), Config(["/pause"], user="65535:65535")),
    COREDNS: Recipe(("coredns",), _binaries(coredns="/coredns"), Config(["/coredns"])),
    ENVOY: Recipe((), _envoy, Config(["/usr/local/bin/envoy"], ["-c", "/etc/envoy/envoy.yaml"], _NOBODY)),
    ECHO: Recipe(
        ("echo-server", "echo-client"),
        _binaries(echo_server="/usr/local/bin/server", echo_client="/usr/local/bin/client"),
        Config(["/usr/local/bin/server"]),
    ),
    PILOT: Recipe(
        ("pilot-discovery",),
        _binaries(pilot_discovery="/usr/local/bin/pilot-discovery"),
        Config(["/usr/local/bin/pilot-discovery"], user="1337:1337"),
    ),
    controller_image.NAME: Recipe((), controller_image.layer, controller_image.CONFIG),
}
