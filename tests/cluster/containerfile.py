"""What `Containerfile` makes, built by buildah on a machine that reaches no image registry.

Both bases are put together from Debian's packages under the names that the file gives them: the one to run on from the
packages that make up distroless' image for Python, the one to build on from the same and a shell, tools and pip.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from meshgw.standalone.envoy import cache_directory

ROOT: Final = Path(__file__).parents[2]
CONTAINERFILE: Final = ROOT / "Containerfile"

_SUITE: Final = "bookworm"
_RUN: Final = """
    base-files netbase tzdata media-types libc6 libssl3 libgomp1 libstdc++6 libgcc-s1 gcc-12-base
    libbz2-1.0 libdb5.3 libexpat1 liblzma5 libsqlite3-0 libuuid1 libncursesw6 libtinfo6 zlib1g libcom-err2 libcrypt1
    libgssapi-krb5-2 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0 libnsl2 libreadline8 libtirpc3 libffi8
    python3-distutils libpython3.11-minimal libpython3.11-stdlib python3.11-minimal
"""
_BUILD: Final = """
    dash coreutils findutils libselinux1 libpcre2-8-0 libacl1 libattr1 libgmp10
    python3-pip python3-setuptools python3-pkg-resources python3-wheel
"""
_ACCOUNTS: Final = "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"


class UnavailableError(Exception):
    """The engine does not run here, or Debian's packages cannot be had now."""


def why_not() -> str | None:
    """Return why this machine cannot build it, None if it can."""
    missing = [program for program in ("buildah", "apt-get", "dpkg") if shutil.which(program) is None]
    if missing:
        return f"building an image needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "building an image without a registry needs root"
    if _suite() != _SUITE:
        return f"the bases of the image are put together from packages of Debian {_SUITE}, which this machine is not"
    return None


def _suite() -> str:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def base_names() -> Mapping[str, str]:
    """Return the names of the file's bases by their argument: `BUILD` and `BASE`."""
    return dict(re.findall(r"^ARG (BUILD|BASE)=(\S+)$", CONTAINERFILE.read_text(), re.MULTILINE))


@contextlib.contextmanager
def build(name: str, folder: Path) -> Iterator[Path]:
    """Build the image and yield it as an archive, which names it `name`; the engine's own files go with the block.

    Raises UnavailableError where that cannot be.
    """
    names = base_names()
    with tempfile.TemporaryDirectory(dir=folder, prefix="engine-") as scratch:
        engine = _Engine(Path(scratch))
        engine.check()
        try:
            trusted = {"SSL_CERT_FILE": _AUTHORITIES, "PIP_CERT": _AUTHORITIES}
            engine.make_base(names["BASE"], [_unpacked("run", _RUN)], {})
            engine.make_base(names["BUILD"], [_unpacked("build", _RUN + _BUILD)], trusted)
            engine("build", "--isolation", "chroot", "--pull=never", "--file", str(CONTAINERFILE), "--tag", name, ROOT)
            archive = folder / "built.tar"
            engine("push", "--quiet", name, f"docker-archive:{archive}:{name}")
            yield archive
            archive.unlink()
        finally:
            engine("rmi", "--all", "--force")


class _Engine:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._options: list[str | Path] = [
            "--root",
            folder / "store",
            "--runroot",
            folder / "run",
            "--storage-driver",
            "overlay",
        ]
        self._policy = folder / "policy.json"
        self._policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

    def __call__(self, verb: str, *arguments: str | Path) -> str:
        """Return what a command says; what it says when it fails is in the error."""
        policy = ["--signature-policy", self._policy] if verb in {"build", "commit", "push"} else []
        command = ["buildah", *self._options, verb, *policy, *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"buildah {verb} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            )
        return done.stdout.strip()

    def check(self) -> None:
        """Raise UnavailableError if it cannot keep images, as on some file systems."""
        try:
            self("images")
        except RuntimeError as error:
            raise UnavailableError(str(error)) from None

    def make_base(self, name: str, trees: Iterable[Path], environ: Mapping[str, str]) -> None:
        """Make an image of folders."""
        container = self("from", "scratch")
        for tree in trees:
            self("add", "--quiet", container, tree, "/")
        variables = [part for key, value in environ.items() for part in ("--env", f"{key}={value}")]
        self("config", "--user", "0:0", *variables, container)
        self("commit", "--quiet", "--rm", container, name)


def _unpacked(name: str, packages: str) -> Path:
    """Return a folder with Debian's packages in it, made once and kept."""
    wanted = sorted(packages.split())
    recipe = Path(__file__).read_bytes() + " ".join(wanted).encode()
    root = cache_directory() / "images"
    target = root / f"debian-{name}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".debian.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=root, prefix=".debian-") as scratch:
                fetched, tree = Path(scratch, "packages"), Path(scratch, "tree")
                fetched.mkdir()
                _fetch(wanted, fetched)
                for package in sorted(fetched.glob("*.deb")):
                    subprocess.run(["dpkg", "-x", package, tree], check=True, capture_output=True)
                _complete(tree)
                tree.rename(target)
            former = [path for path in root.glob(f"debian-{name}-*") if path != target]
            for path in sorted(former, key=lambda path: path.stat().st_mtime)[:-1]:  # another run may read the latest
                shutil.rmtree(path, ignore_errors=True)
    return target


def _fetch(packages: list[str], folder: Path) -> None:
    # The user that apt would download as may not write here.
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *packages]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"apt-get download ended with {done.returncode}:\n{done.stderr[-2000:]}")


def _complete(tree: Path) -> None:
    """Add what packages do when they are installed, and whom this machine trusts: it may be behind a proxy."""
    (tree / "usr" / "bin" / "python3").unlink(missing_ok=True)
    (tree / "usr" / "bin" / "python3").symlink_to("python3.11")
    if (tree / "bin" / "dash").exists():
        (tree / "bin" / "sh").unlink(missing_ok=True)
        (tree / "bin" / "sh").symlink_to("dash")
    # Python of the base to build on is not Debian's, and takes packages.
    (tree / "usr" / "lib" / "python3.11" / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
    (tree / "etc" / "passwd").write_text(_ACCOUNTS)
    (tree / "etc" / "group").write_text("root:x:0:\nnonroot:x:65532:\n")
    authorities = tree / _AUTHORITIES.lstrip("/")
    authorities.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_AUTHORITIES, authorities)
    (tree / "tmp").mkdir(exist_ok=True)
    (tree / "tmp").chmod(0o1777)
