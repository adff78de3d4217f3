"""The runtime directory: sockets, bootstraps, logs and state of the proxies of one instance, private to its user."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from meshgw.standalone.lock import InUseError, Lock, lock_directory, make_private

_LONGEST_SOCKET_PATH = 107
"""Bytes of a unix socket's path, without its final NUL (sys/un.h)."""

_LONGEST_NAME = 40


class ProxyDirectory:
    """The files of one proxy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bootstrap = path / "envoy.json"
        self.log = path / "envoy.log"
        self.state = path / "state.json"
        self.admin_socket = path / "admin.sock"
        _check_length(self.admin_socket)

    @property
    def admin(self) -> str:
        """The admin interface's address."""
        return f"unix:{self.admin_socket}"

    def create(self) -> None:
        """Make the directory."""
        make_private(self.path)


class RuntimeDirectory:
    """One instance's directory; `acquire` makes it and keeps other instances out."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.xds_socket = self.path / "xds.sock"
        _check_length(self.xds_socket)

    @property
    def xds(self) -> str:
        """The xDS server's address."""
        return f"unix:{self.xds_socket}"

    def acquire(self) -> Lock:
        """Make the directory and return its held lock; raises InUseError."""
        try:
            make_private(self.path)
            return lock_directory(self.path)
        except OSError as error:
            raise InUseError(
                f"cannot use {self.path}: {error.strerror or error}; choose a writable --runtime-dir"
            ) from error

    def proxy(self, namespace: str, name: str) -> ProxyDirectory:
        """Return the directory of one Gateway's proxy: stable, and short whatever the names' length."""
        readable = f"{namespace}.{name}"
        if len(readable) > _LONGEST_NAME:
            digest = hashlib.sha256(readable.encode()).hexdigest()[:12]
            readable = f"{readable[: _LONGEST_NAME - 13]}-{digest}"
        return ProxyDirectory(self.path / readable)

    def known_proxies(self) -> list[ProxyDirectory]:
        """Return the directories of proxies that an earlier run left a state for."""
        return [ProxyDirectory(state.parent) for state in sorted(self.path.glob("*/state.json"))]


def default_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return `$XDG_RUNTIME_DIR/meshgw`, or a directory of this user under the system's temporary one."""
    env = os.environ if environ is None else environ
    if runtime := env.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "meshgw"
    return Path(tempfile.gettempdir()) / f"meshgw-{os.geteuid()}" / "run"


def _check_length(socket: Path) -> None:
    if len(os.fsencode(socket)) > _LONGEST_SOCKET_PATH:
        raise InUseError(f"{socket} is too long for a unix socket; choose a shorter --runtime-dir")
