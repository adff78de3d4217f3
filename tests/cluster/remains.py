"""What is on this machine of a cluster, while it runs and, if something went wrong, after it ended."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.cluster import cgroups
from tests.cluster.keeper import Plot


def left_of(plot: Plot, folder: Path) -> list[str]:
    """Return what a cluster has on this machine."""
    roots = [*cgroups.hierarchies(), *cgroups.hierarchies(version=2)]
    left = [str(root / plot.name) for root in roots if (root / plot.name).exists()]
    left += [name for _, name in socket.if_nameindex() if name == plot.interface]
    left += [str(folder)] if folder.exists() else []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                told = (process / "cmdline").read_bytes() + (process / "mountinfo").read_bytes()
            except OSError:
                continue
            left += [process.name] if str(folder).encode() in told else []
    return left
