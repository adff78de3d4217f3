"""The network namespaces of pods: found by their processes, and their connections led to a node proxy and back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.mesh.document import INBOUND, OUTBOUND, PLAIN

MARK: Final = 0x539
"""What the proxy's own connections are marked with, as ztunnel's are."""

# Of new connections only: what was open before stays as it is.
_RULES: Final = f"""\
*nat
:PREROUTING ACCEPT
:OUTPUT ACCEPT
-A OUTPUT -o lo -j RETURN
-A OUTPUT -m mark --mark {MARK} -j RETURN
-A OUTPUT -p tcp --syn -j REDIRECT --to-ports {OUTBOUND}
-A PREROUTING -i lo -j RETURN
-A PREROUTING -p tcp --dport {INBOUND} -j RETURN
-A PREROUTING -p tcp --syn -j REDIRECT --to-ports {PLAIN}
COMMIT
"""
_NO_RULES: Final = """\
*nat
:PREROUTING ACCEPT
:OUTPUT ACCEPT
COMMIT
"""


class CaptureError(Exception):
    """A pod's network namespace is not there, or does not take rules."""


def find_namespace(uid: str, processes: Path = Path("/proc")) -> Path:
    """Return the network namespace of a pod, as a path that leads there while the pod runs; raises CaptureError.

    The processes of a pod are those in control groups that are named after it, with either of the kubelet's drivers.
    """
    names = (f"pod{uid}", f"pod{uid.replace('-', '_')}")
    own = _namespace(processes / "self")
    for process in sorted(processes.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            groups = (process / "cgroup").read_text()
            if any(name in groups for name in names) and _namespace(process) not in {own, ""}:
                return process / "ns" / "net"
        except OSError:  # it has ended meanwhile
            continue
    raise CaptureError(f"no process of pod {uid} has a network namespace of its own")


def entering(namespace: Path, command: Sequence[str | Path]) -> list[str]:
    """Return what runs a command in a network namespace."""
    return [shutil.which("nsenter") or "nsenter", f"--net={namespace}", "--", *map(str, command)]


async def redirect(namespace: Path) -> None:
    """Lead a pod's connections to its proxy, out and in. The namespace's address translation is ours alone."""
    await _restore(namespace, _RULES)


async def release(namespace: Path) -> None:
    """Let new connections be, as before `redirect`."""
    await _restore(namespace, _NO_RULES)


async def _restore(namespace: Path, rules: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *entering(namespace, [shutil.which("iptables-restore") or "iptables-restore"]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate(rules.encode())
    if process.returncode:
        raise CaptureError(f"iptables-restore in {namespace}: {said.decode().strip()}")


def _namespace(process: Path) -> str:
    return str((process / "ns" / "net").readlink())
