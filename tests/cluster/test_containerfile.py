"""The image that `Containerfile` makes: what clusters of tests run, on other bases, and a controller."""

from __future__ import annotations

import hashlib
import json
import marshal
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement

import meshgw
from tests.cluster import containerfile, controller_image
from tests.cluster.apiserver import ApiServer
from tests.cluster.controllers import Controller

pytestmark = [
    pytest.mark.skipif(containerfile.why_not() is not None, reason=containerfile.why_not() or ""),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("containerfile"),
]

NAME = "ghcr.io/meshgw/meshgw:built"
CONTAINED = (
    'mount --bind "$0" "$0" && mount --bind /dev "$0/dev" && mount -t proc proc "$0/proc" '
    '&& mount -o remount,bind,ro "$0" && exec chroot --userspec="$1" "$0" "${@:2}"'
)
"""How a program runs with the image as its read-only root, in mounts of its own."""

NOTES = {"RECORD", "INSTALLER", "REQUESTED"}
"""What an installer leaves in the folder of a distribution; the image of tests is without."""


class Image(NamedTuple):
    config: dict[str, Any]
    root: Path

    def command(self, *command: str, environ: Iterable[str] = ()) -> list[str]:
        """Return what runs a program of the image as the image says: its user, its environment, a read-only root."""
        environ = ["env", "-i", *self.config["Env"], *environ]
        return ["unshare", "--mount", *environ, "/bin/bash", "-c", CONTAINED, str(self.root), self.user, *command]

    @property
    def user(self) -> str:
        return str(self.config["User"])


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(prefix="mgw-built-") as scratch:
        folder = Path(scratch)
        try:
            with containerfile.build(NAME, folder) as archive:
                config = _unpack(archive, folder / "root")
        except containerfile.UnavailableError as error:
            pytest.skip(str(error))
        yield Image(config, folder / "root")


def _unpack(archive: Path, target: Path) -> dict[str, Any]:
    with tarfile.open(archive) as packed:

        def read(name: str) -> Any:
            return packed.extractfile(name) or pytest.fail(f"no {name}")

        (described,) = json.load(read("manifest.json"))
        assert NAME in described["RepoTags"]
        for name in described["Layers"]:
            with tarfile.open(fileobj=read(name)) as layer:
                layer.extractall(target, filter="tar")
        config: dict[str, Any] = json.load(read(described["Config"]))["config"]
        return config


def distributions(app: Path) -> set[str]:
    """Names and versions of what is installed in a folder."""
    found = (path.name.removesuffix(".dist-info").rpartition("-") for path in app.glob("*.dist-info"))
    return {f"{re.sub('[-_.]+', '-', name).lower()}=={version}" for name, _, version in found}


def locked() -> set[str]:
    """What the lock file names for this platform, without what only tests need."""
    uv = shutil.which("uv") or "uv"
    command = [uv, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "--no-annotate"]
    said = subprocess.run(command, cwd=containerfile.ROOT, capture_output=True, text=True, check=True).stdout
    wanted = map(Requirement, (line for line in said.splitlines() if not line.startswith("#")))
    here = {"python_version": "3.11", "python_full_version": "3.11.2"}
    return {f"{found.name}{found.specifier}" for found in wanted if not found.marker or found.marker.evaluate(here)}


def test_it_starts_as_clusters_of_tests_start_theirs(image: Image) -> None:
    expected = controller_image.CONFIG
    assert (image.config["Entrypoint"], image.user) == (list(expected.entrypoint), expected.user)
    assert set(expected.environ) <= set(image.config["Env"])
    assert not image.config.get("Cmd")
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == meshgw.__version__
    assert (image.root / "usr/bin/meshgw").read_bytes() == controller_image.SCRIPT


def test_what_is_installed_is_what_is_locked(image: Image) -> None:
    installed = distributions(image.root / "app")
    assert installed == locked() | {f"meshgw=={meshgw.__version__}"}
    assert installed == distributions(controller_image.install() / "app") | {f"meshgw=={meshgw.__version__}"}


def test_nothing_of_the_build_is_in_it(image: Image) -> None:
    assert sorted(path.name for path in (image.root / "usr/bin").iterdir()) == ["meshgw", "python3", "python3.11"]
    assert not [path for name in ("bin", "sbin", "usr/sbin") for path in (image.root / name).glob("*sh")]
    app = image.root / "app"
    assert not (app / "bin").exists()
    assert [path for path in app.rglob("*") if path.name in {".lock", "direct_url.json", "uv_cache.json"}] == []
    assert [path for path in app.rglob("*") if b"file:///src" in _head(path)] == []


def _head(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and path.parent.name.endswith(".dist-info") else b""


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the image of tests has the Python of this machine")
def test_its_files_are_those_of_the_image_of_tests(image: Image) -> None:
    def digests(files: Iterator[tuple[str, Path]]) -> dict[str, str]:
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in files
            if name.startswith("app/")
            and not name.endswith(".pyc")
            and path.name not in NOTES
            and "meshgw-" not in name
        }

    built = ((str(path.relative_to(image.root)), path) for path in image.root.rglob("app/**/*") if path.is_file())
    assert digests(built) == digests(iter(controller_image.layer().sources()))


def test_its_modules_are_compiled_for_good(image: Image) -> None:
    """By the hash of the source and unchecked (PEP 552), so that no layer's time stamps slow down a start."""
    source = image.root / "app" / "meshgw" / "pipeline.py"
    compiled = (source.parent / "__pycache__" / "pipeline.cpython-311.pyc").read_bytes()
    assert int.from_bytes(compiled[4:8], "little") == 0b01
    if sys.version_info[:2] == (3, 11):
        assert "/app/meshgw/pipeline.py" in repr(marshal.loads(compiled[16:]).co_filename)


def test_it_reads_and_writes_nothing_but_itself(image: Image) -> None:
    command = image.command("/usr/bin/meshgw", "version", "-o", "json")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    versions = json.loads(done.stdout)
    assert versions["meshgw"] == meshgw.__version__
    assert "not installed" not in versions.values()
    tried = image.command("/usr/bin/python3", "-c", "import os; print(os.getuid()); open('/tmp/x', 'w')")
    refused = subprocess.run(tried, capture_output=True, text=True, check=False, timeout=100)
    assert refused.stdout == "65532\n"
    assert "Read-only file system" in refused.stderr


async def test_it_is_a_controller(image: Image, apiserver: ApiServer, tmp_path: Path) -> None:
    """As in a pod: by the files of its ServiceAccount, without a file system that it may write."""
    where = urlsplit(apiserver.url)
    environ = (f"KUBERNETES_SERVICE_HOST={where.hostname}", f"KUBERNETES_SERVICE_PORT={where.port}")
    program = image.command(*image.config["Entrypoint"], environ=environ)
    controller = Controller(apiserver, tmp_path, "built", program=program)
    controller.prepare()
    for command in (
        ("create", "serviceaccount", "built", "-n", "built"),
        ("create", "clusterrolebinding", "built", "--clusterrole=cluster-admin", "--serviceaccount=built:built"),
    ):
        apiserver.kubectl(*command)
    account = image.root / "var/run/secrets/kubernetes.io/serviceaccount"
    account.mkdir(parents=True)
    (account / "token").write_text(apiserver.token("built", "built"))
    (account / "ca.crt").write_bytes(apiserver.authority)
    await controller.start("--no-mesh", "--kubeconfig", "")
    try:
        await controller.ready()
        assert "meshgw_leader" in (await controller.ask("/metrics", controller.metrics))[1]
    finally:
        code = await controller.end(signal.SIGTERM)
        apiserver.kubectl("delete", "clusterrolebinding", "built")
    assert code == 0, controller.log()[-4000:]
