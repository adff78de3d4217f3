"""The controller's image without Docker: what `Containerfile` makes, from this machine's Python and libraries.

Dependencies are those of `uv.lock`, installed once into `~/.cache/meshgw`; the package itself is taken as it stands.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import meshgw
from meshgw.standalone.envoy import cache_directory
from tests.cluster.archive import Config, Layer

NAME: Final = f"ghcr.io/meshgw/meshgw:{meshgw.__version__}"
CONFIG: Final = Config(
    ["/usr/bin/meshgw"],
    user="65532:65532",
    environ=["PYTHONPATH=/app", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"],
)
SCRIPT: Final = b"#!/usr/bin/python3\nfrom meshgw.cli.main import main\nmain()\n"

_ROOT: Final = Path(__file__).parents[2]
_PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
_ACCOUNTS: Final = b"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
_UNUSED: Final = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter",
                            "turtledemo", "ensurepip", "lib2to3"})  # fmt: skip
_PRUNED: Final = (("kubernetes", "client"), ("kubernetes", "aio", "client"))
"""Generated API calls and models of a library that is used for configuration and authentication only."""


def layer() -> Layer:
    """Return everything the image holds: Python, libraries, dependencies, the package. Installs what is missing."""
    made = Layer()
    home = install()
    made.add(_interpreter(), f"/usr/bin/{_PYTHON}", mode=0o755)
    made.link("/usr/bin/python3", _PYTHON)
    made.add_tree(home / "python", f"/usr/lib/{_PYTHON}")
    made.add_tree(home / "app", "/app")
    for library in (home / "libraries").read_text().splitlines():
        source, target = library.split("\t")
        made.add(Path(source), target, mode=0o755)
    _add_package(made)
    made.add(SCRIPT, "/usr/bin/meshgw", mode=0o755)
    made.add(_ACCOUNTS, "/etc/passwd")
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        made.add(bundle, str(bundle))
    made.folder("/tmp", mode=0o1777)
    return made


def install() -> Path:
    """Return a folder with Python's library, the locked dependencies and a list of shared libraries; makes it once."""
    parts = [(_ROOT / name).read_bytes() for name in ("uv.lock", "pyproject.toml")]
    recipe = repr((sys.version, sys.base_prefix)).encode() + Path(__file__).read_bytes()
    root = cache_directory() / "images"
    home = root / f"python-{hashlib.sha256(b''.join((recipe, *parts))).hexdigest()[:16]}"
    if not home.exists():
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".python.lock").open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if not home.exists():
                with tempfile.TemporaryDirectory(dir=root, prefix=".install-") as scratch:
                    staged = Path(scratch) / "home"
                    _install_dependencies(staged / "app")
                    _copy_library(staged / "python")
                    found = sorted(set(_libraries(staged)))
                    (staged / "libraries").write_text("".join(f"{source}\t{place}\n" for source, place in found))
                    _compile(staged)
                    staged.rename(home)
                _forget_older(home)
    return home


def _forget_older(home: Path) -> None:
    """Delete former folders but the latest, which another run may be reading."""
    others = [other for other in home.parent.glob("python-*") if other != home]
    for other in sorted(others, key=lambda other: other.stat().st_mtime)[:-1]:
        shutil.rmtree(other, ignore_errors=True)


def _install_dependencies(target: Path) -> None:
    uv = shutil.which("uv") or str(cache_directory() / "uv" / "bin" / "uv")
    requirements = target.parent.with_suffix(".txt")
    export = ["export", "--frozen", "--no-dev", "--no-emit-project", "--output-file", str(requirements)]
    subprocess.run([uv, *export], cwd=_ROOT, check=True, capture_output=True)
    where = ["--python", sys.executable, "--target", str(target)]
    which = ["--no-deps", "--require-hashes", "--requirement", str(requirements)]
    subprocess.run([uv, "pip", "install", *where, *which], cwd=requirements.parent, check=True, capture_output=True)
    shutil.rmtree(target / "bin", ignore_errors=True)
    (target / ".lock").unlink(missing_ok=True)
    for parts in _PRUNED:
        folder = target.joinpath(*parts)
        shutil.rmtree(folder / "api")
        for model in (folder / "models").iterdir():
            if model.name != "__init__.py" and model.is_file():
                model.unlink()
    # What an installer notes about this machine, and when, is no part of the image.
    for note in target.glob("*.dist-info/*"):
        if note.name in {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}:
            note.unlink()


def _copy_library(target: Path) -> None:
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        unused = shutil.ignore_patterns(*_UNUSED, "config-*", "_tkinter.*")
        shutil.copytree(folder, target, symlinks=True, dirs_exist_ok=True, ignore=unused)


def _compile(folder: Path) -> None:
    """Compile all modules so that no time stamp matters: those of an image are all the same."""
    command = [sys.executable, "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash", "-s", str(folder)]
    subprocess.run(
        [*command, str(folder)], check=False, capture_output=True
    )  # some libraries ship templates of modules


def _add_package(made: Layer) -> None:
    """Put the package as it stands, compiled; each compiled module is kept under the hash of its source."""
    made.add_tree(_ROOT / "meshgw", "/app/meshgw", exclude={"__pycache__"})
    kept = cache_directory() / "images" / "compiled"
    kept.mkdir(parents=True, exist_ok=True)
    for source in sorted((_ROOT / "meshgw").rglob("*.py")):
        target = Path("/app") / source.relative_to(_ROOT)
        compiled = kept / hashlib.sha256(f"{sys.version}\0{target}\0".encode() + source.read_bytes()).hexdigest()
        if not compiled.exists():
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            with tempfile.TemporaryDirectory(dir=kept) as scratch:
                py_compile.compile(str(source), f"{scratch}/x", str(target), doraise=True, invalidation_mode=mode)
                Path(scratch, "x").rename(compiled)
        made.add(compiled, f"{target.parent}/__pycache__/{target.stem}.{sys.implementation.cache_tag}.pyc", mode=0o644)
    metadata = f"Metadata-Version: 2.1\nName: meshgw\nVersion: {meshgw.__version__}\n"
    made.add(metadata.encode(), f"/app/meshgw-{meshgw.__version__}.dist-info/METADATA")


def _interpreter() -> Path:
    return Path(sys.base_prefix, "bin", _PYTHON).resolve()


def _libraries(staged: Path) -> Iterator[tuple[str, str]]:
    """Yield the shared libraries that Python and its extension modules load, and where the loader will find them."""
    for program in (_interpreter(), *sorted(staged.rglob("*.so*"))):
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for found in re.findall(r"(?:=> )?(/\S+) \(0x", said):
            library = Path(found)
            if staged not in library.parents:
                yield found, found if _is_standard(library) else f"/usr/lib/{library.name}"


def _is_standard(library: Path) -> bool:
    """Whether the loader looks there without being told."""
    return library.is_relative_to("/lib") or library.is_relative_to("/lib64") or library.is_relative_to("/usr/lib")


def environment() -> dict[str, str]:
    """Return the environment that a container of the image has."""
    return {"PATH": os.defpath, **dict(entry.split("=", 1) for entry in CONFIG.environ)}
