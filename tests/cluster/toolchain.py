"""The Go toolchain that builds the programs: one of this machine, else the pinned one from the Go module proxy."""

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
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from meshgw.standalone.envoy import cache_directory

OLDEST: Final = (1, 26)
"""The `go` line of the programs' go.mod files."""


class ToolchainError(Exception):
    """No usable Go; one line with cause and remedy."""


class Archive(NamedTuple):
    """One version of the module `golang.org/toolchain`, as the module proxy serves it."""

    version: str
    sha256: str


_VERSION: Final = "v0.0.1-go1.26.8.linux"
ARCHIVES: Final[Mapping[str, Archive]] = {
    "x86_64": Archive(f"{_VERSION}-amd64", "30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7"),
    "aarch64": Archive(f"{_VERSION}-arm64", "02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99"),
}

_REMEDY: Final = "install Go 1.26 or newer from https://go.dev/dl/ and put it on PATH"
_PROXY: Final = "https://proxy.golang.org"


def find_go(tell: Callable[[str], None]) -> Path:
    """Return a Go that is new enough: `$PATH`, `/usr/local/go`, then a managed copy; raises ToolchainError."""
    for found in (shutil.which("go"), "/usr/local/go/bin/go"):
        if found and _version(found) >= OLDEST:
            return Path(found)
    archive = ARCHIVES.get(platform.machine()) if sys.platform == "linux" else None
    if archive is None:
        raise ToolchainError(f"no Go that is new enough for the test programs; {_REMEDY}")
    home = cache_directory() / "go" / archive.version
    go = home / "bin" / "go"
    if not go.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with (home.parent / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not go.exists():
                _install(archive, home, tell)
    return go


def _version(go: str) -> tuple[int, ...]:
    try:
        said = subprocess.run(
            [go, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/", timeout=30
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(r"go(\d+)\.(\d+)", said)
    return tuple(int(part) for part in found.groups()) if found else ()


def _install(archive: Archive, home: Path, tell: Callable[[str], None]) -> None:
    """Put the toolchain at `home`, whole or not at all."""
    proxies = [part for part in re.split("[,|]", os.environ.get("GOPROXY", "")) if part.startswith("http")]
    url = f"{(proxies or [_PROXY])[0]}/golang.org/toolchain/@v/{archive.version}.zip"
    tell(f"downloading Go from {url}")
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".unpack-") as scratch:
        path = Path(scratch) / "go.zip"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as sink:
                shutil.copyfileobj(answer, sink, 2**20)
        except (urllib.error.URLError, TimeoutError) as error:
            raise ToolchainError(f"cannot download Go from {url} ({error}); {_REMEDY}") from None
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        if digest != archive.sha256:
            raise ToolchainError(f"{url} is not the expected file (sha256 {digest}); {_REMEDY}")
        prefix = f"golang.org/toolchain@{archive.version}/"
        staged = Path(scratch) / "go"
        with zipfile.ZipFile(path) as content:
            for member in content.infolist():
                target = staged / member.filename.removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 2**20)
        for folder in (staged / "bin", staged / "pkg" / "tool"):  # a module zip keeps no modes
            for tool in folder.rglob("*"):
                if tool.is_file():
                    tool.chmod(0o755)
        staged.rename(home)
