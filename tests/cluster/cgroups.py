"""The cgroups of one test cluster: one folder in each hierarchy of version 1, or one folder of version 2."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Final

_UNIFIED: Final = Path("/sys/fs/cgroup")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_LIMIT: Final = 10.0


def hierarchies(*, version: int = 1) -> list[Path]:
    """Return the mounted hierarchies; of version 1 there are none on a machine that has version 2 alone."""
    kind = {1: "cgroup", 2: "cgroup2"}[version]
    found = []
    for line in _MOUNTS.read_text().splitlines():
        fields, _, source = line.partition(" - ")
        if source.startswith(f"{kind} "):
            found.append(Path(fields.split()[4]))
    return sorted(set(found))


def create(name: str) -> None:
    """Make the cgroup `name` wherever kubelet looks for it."""
    roots = hierarchies()
    for root in roots:
        folder = root / name
        folder.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # empty in a new cpuset: nothing could run there
            if (root / file).exists():
                (folder / file).write_text((root / file).read_text())
    if not roots:
        _delegate()
        (_UNIFIED / name).mkdir(exist_ok=True)


def remove(name: str) -> list[Path]:
    """Remove the cgroup `name` with all below it, waiting for what still ends in it; return what could not go.

    Where there are both versions, runc makes cgroups in the second one too.
    """
    folders = [root / name for root in [*hierarchies(), *hierarchies(version=2)] or [_UNIFIED]]
    deadline = time.monotonic() + _LIMIT
    while folders := [folder for folder in folders if folder.exists()]:
        for folder in folders:
            for base, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(base).rmdir()
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return folders


def _delegate() -> None:
    """Let the children of the root have every controller there is.

    Below a container's own root the kernel allows that only while the root holds no process, so they move to a leaf.
    """
    wanted = " ".join(f"+{controller}" for controller in (_UNIFIED / "cgroup.controllers").read_text().split())
    try:
        (_UNIFIED / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        leaf = _UNIFIED / "init"
        leaf.mkdir(exist_ok=True)
        for pid in (_UNIFIED / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # it may have ended
                (leaf / "cgroup.procs").write_text(pid)
        (_UNIFIED / "cgroup.subtree_control").write_text(wanted)
