"""The image that clusters of tests run starts, holds all it needs, and is what `Containerfile` describes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshgw
from tests.cluster import controller_image
from tests.cluster.archive import write_archive

CONTAINERFILE = (Path(__file__).parents[2] / "Containerfile").read_text()

LOAD_ALL = """
import importlib, pkgutil, ssl, meshgw
for module in pkgutil.walk_packages(meshgw.__path__, "meshgw."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name in ("kubernetes.aio.config.kube_config", "kubernetes.aio.config.incluster_config", "grpc.aio", "re2",
             "envoy.service.discovery.v3.discovery_pb2", "cryptography.x509", "aiohttp", "uuid", "sqlite3"):
    importlib.import_module(name)
ssl.create_default_context()
print("loaded")
"""

CONNECT = """
import asyncio
from meshgw.kube.client import KubeSettings, UnreachableError, connect
async def main():
    async with connect(KubeSettings(kubeconfig="/tmp/kubeconfig")) as client:
        try:
            await client.request("GET", "/version", timeout=5)
        except UnreachableError:
            print("tried")
asyncio.run(main())
"""

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: x
contexts: [{name: x, context: {cluster: x, user: x}}]
clusters: [{name: x, cluster: {server: "https://127.0.0.1:9"}}]
users: [{name: x, user: {token: t}}]
"""


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The unpacked file system of the image; hundreds of megabytes, so not in a folder that pytest keeps."""
    with tempfile.TemporaryDirectory(prefix="mgw-image-") as scratch:
        archive = Path(scratch) / "image.tar"
        write_archive(archive, controller_image.NAME, [controller_image.layer()], controller_image.CONFIG)
        yield _unpacked(archive, Path(scratch) / "root")


def _unpacked(archive: Path, target: Path) -> Path:
    with tarfile.open(archive) as image:
        (described,) = json.load(image.extractfile("manifest.json") or pytest.fail("no manifest"))
        (name,) = described["Layers"]
        with tarfile.open(fileobj=image.extractfile(name)) as layer:
            layer.extractall(target, filter="tar")
    (target / "tmp" / "kubeconfig").write_text(KUBECONFIG)
    return target


def run(root: Path, *command: str) -> str:
    """Run a program of the image, with nothing of this machine in sight but its kernel, as the user of the image."""
    chroot = shutil.which("chroot", path=f"{os.defpath}:/usr/sbin:/sbin") or "chroot"
    if os.geteuid() == 0:
        enter = [chroot, f"--userspec={controller_image.CONFIG.user}", str(root)]
    else:
        enter = ["unshare", "--user", "--map-root-user", chroot, str(root)]
    finished = subprocess.run(
        [*enter, *command], env=controller_image.environment(), capture_output=True, text=True, check=False, timeout=100
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_command_runs(root: Path) -> None:
    versions = json.loads(run(root, *controller_image.CONFIG.entrypoint, "version", "-o", "json"))
    assert versions["meshgw"] == meshgw.__version__
    assert "not installed" not in versions.values()


def test_everything_can_be_imported(root: Path) -> None:
    assert run(root, "/usr/bin/python3", "-c", LOAD_ALL) == "loaded\n"


def test_an_api_server_can_be_asked_without_the_generated_models(root: Path) -> None:
    assert run(root, "/usr/bin/python3", "-c", CONNECT) == "tried\n"


def test_nothing_of_this_machine_is_in_it(root: Path) -> None:
    """No paths of the one who built it, and nothing that only tests need."""
    assert {path.name for path in root.iterdir()} <= {"app", "etc", "lib", "lib64", "tmp", "usr"}
    assert not (root / "app" / "pytest").exists()
    assert not (root / "app" / "tests").exists()
    assert list((root / "app").glob("*.dist-info/RECORD")) == []


def test_the_same_parts_make_the_same_image(tmp_path: Path) -> None:
    digests = set()
    for number, layer in enumerate([controller_image.layer(), controller_image.layer()]):
        path = tmp_path / f"{number}.tar"
        write_archive(path, controller_image.NAME, [layer], controller_image.CONFIG)
        digests.add(_digest(path))
        path.unlink()
    assert len(digests) == 1


def _digest(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def test_containerfile_makes_the_same_image() -> None:
    config = controller_image.CONFIG
    final = CONTAINERFILE.rpartition("FROM ")[2]
    assert json.loads(_instruction(final, "ENTRYPOINT")) == list(config.entrypoint)
    assert _instruction(final, "USER") == config.user
    assert _instruction(final, "ENV").split() == list(config.environ)
    script = " ".join(f"'{line}'" for line in controller_image.SCRIPT.decode().splitlines())
    assert f"printf '%s\\n' {script} > /meshgw" in CONTAINERFILE
    for folder in ("kubernetes/client", "kubernetes/aio/client"):
        assert f"/app/{folder}/api" in CONTAINERFILE
        assert f"/app/{folder}/models" in CONTAINERFILE
    assert f"ARG VERSION={meshgw.__version__}" in final


def _instruction(text: str, word: str) -> str:
    found = re.search(rf"^{word} (.*)$", text, re.MULTILINE)
    assert found is not None
    return found[1]
