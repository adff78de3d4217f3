"""One life of a controller's process: what it takes, and what it writes."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_WRITES: Final = frozenset({"create", "update", "patch", "delete"})
_NO_OBJECTS: Final = frozenset({"leases", "tokenreviews", "selfsubjectaccessreviews"})


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the start of the process until it was `ready`, and until it had `written` the last that it had to.

    `served` is until a change made before the start was answered by Envoy, `programmed` until a Gateway changed before
    the start was Programmed at that generation; None where none was changed. Once there was silence for a while it had
    taken `cpu` seconds, and `resident` MiB, at most `peak`. `writes` counts the changes of objects by resource.
    """

    endpoints: int
    ready: float
    written: float | None = None
    served: float | None = None
    programmed: float | None = None
    cpu: float
    resident: float
    peak: float
    writes: dict[str, int]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """CPU seconds of a process so far, and its memory in MiB."""

    cpu: float
    resident: float
    peak: float


def usage(pid: int) -> Usage:
    """Return what a process has taken: user and system time, resident memory and the most that ever was."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines if line.startswith("Vm"))
    resident, peak = (round(int(sizes[name].split()[0]) / 1024, 1) for name in ("VmRSS", "VmHWM"))
    return Usage(cpu=(int(fields[11]) + int(fields[12])) / _TICKS, resident=resident, peak=peak)


class _User(msgspec.Struct, frozen=True):
    username: str = ""


class _Reference(msgspec.Struct, frozen=True):
    resource: str = ""
    subresource: str = ""


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    verb: str
    stage_timestamp: datetime | None = None
    user: _User = _User()
    object_ref: _Reference | None = None


class Audit:
    """What an API server has been asked by one user, as its audit log tells."""

    def __init__(self, path: Path, user: str) -> None:
        self._path, self._user = path, user
        self._read = 0
        self.last: float | None = None
        """When the latest change that was counted was done, in Unix seconds."""

    def writes(self) -> dict[str, int]:
        """Return how many changes of objects there were since the last call; a status counts for itself."""
        with self._path.open("rb") as log:
            log.seek(self._read)
            whole = log.read().rpartition(b"\n")[0]
        self._read += len(whole)
        found: Counter[str] = Counter()
        for line in whole.splitlines():
            event = msgspec.json.decode(line, type=_Event) if line else None
            if event is None or event.user.username != self._user or event.verb not in _WRITES:
                continue
            if (ref := event.object_ref) is not None and ref.resource not in _NO_OBJECTS:
                found[f"{ref.resource}/{ref.subresource}".rstrip("/")] += 1
                self.last = event.stage_timestamp.timestamp() if event.stage_timestamp else None
        return dict(sorted(found.items()))
