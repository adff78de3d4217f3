"""One instance per runtime directory and per address: advisory locks that end with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from meshgw.ir.gateway import Transport


class InUseError(Exception):
    """Somebody else holds a directory or address; one line with cause and remedy."""


class Lock:
    """An exclusive lock on a file; `holder` text in it tells others who has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Return whether the lock is ours now; raises OSError when the file cannot be opened."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back; the file stays, as removing it would race with the next holder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> str:
        """Return `pid N` of who holds it, as far as known."""
        try:
            pid = self.path.read_text().strip()
        except OSError:
            pid = ""
        return f"pid {pid}" if pid.isdigit() else "another process"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_directory(directory: Path) -> Lock:
    """Return a held lock on a runtime directory; raises InUseError when another instance runs on it."""
    lock = Lock(directory / "lock")
    if not lock.acquire():
        raise InUseError(
            f"another meshgw ({lock.holder()}) runs in {directory}; stop it, or choose another --runtime-dir"
        )
    return lock


def claim_address(
    host: str, port: int, *, transport: Transport = "tcp", probe: bool = True, directory: Path | None = None
) -> Lock:
    """Return a held lock on an address to listen on; raises InUseError when it is taken.

    The lock keeps out other instances of this user: Envoy binds with SO_REUSEPORT, so two of them would share an
    address silently. The probe finds everybody else; leave it out for an address that an adopted Envoy holds.
    """
    folder = directory or lock_folder()
    lock = Lock(folder / f"{transport}-{host.replace(':', '_')}-{port}")
    where = f"{host}:{port}/{transport}"
    if not lock.acquire():
        raise InUseError(f"another meshgw ({lock.holder()}) serves {where}; stop it, or change the listener's port")
    if probe and (cause := probe_address(host, port, transport=transport)):
        lock.release()
        raise InUseError(cause)
    return lock


def probe_address(host: str, port: int, *, transport: Transport = "tcp") -> str | None:
    """Return why this address cannot be listened on, None when it can."""
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where = f"{host}:{port}/{transport}"
    with socket.socket(family, kind) as probe:
        if transport == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections may linger
        try:
            probe.bind((host, port))
            if transport == "tcp":
                probe.listen(1)
        except OSError as error:
            match error.errno:
                case errno.EADDRINUSE:
                    return f"{where} is in use; stop what listens there, or change the listener's port"
                case errno.EACCES:
                    return f"{where} needs a privilege to listen on; set --port-offset, or grant CAP_NET_BIND_SERVICE"
                case errno.EADDRNOTAVAIL:
                    return f"{host} is no address of this machine; choose a loopback address"
                case _:
                    return f"cannot listen on {where}: {error.strerror or error}"
    return None


def lock_folder() -> Path:
    """Return this user's private folder for address locks, shared by all instances whatever their runtime directory."""
    folder = Path(tempfile.gettempdir()) / f"meshgw-{os.geteuid()}" / "addresses"
    make_private(folder.parent)
    make_private(folder)
    return folder


def make_private(directory: Path) -> None:
    """Create `directory` for this user alone; raises InUseError when it is somebody else's or open to others."""
    for missing in [parent for parent in reversed(directory.parents) if not parent.exists()]:
        missing.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if directory.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise InUseError(f"{directory} is not a private directory of this user; remove it, or chmod it to 700")
