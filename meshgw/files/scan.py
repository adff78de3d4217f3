"""What files there are, and whether they changed."""

import os
import stat
import time
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

STDIN: Final = "-"
SUFFIXES: Final = (".json", ".yaml", ".yml")

_UNSETTLED_NS: Final = 20_000_000
"""File times may advance in steps of some milliseconds: a file this young may change again unseen."""


class Signature(NamedTuple):
    """What tells one content of a file from another without reading it; ``ctime_ns`` shows a new mode too."""

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int


class Scan(Struct, frozen=True, kw_only=True, gc=False):
    """The files under the given paths, and the paths that could not be looked at, with the reasons.

    ``unsettled`` says that a file is so young that its next change may leave its signature as it is.
    """

    files: dict[str, Signature]
    errors: dict[str, str]
    unsettled: bool = False

    def differs(self, other: "Scan") -> bool:
        """Whether a file appeared, vanished or changed."""
        return self.files != other.files or self.errors != other.errors


class Change(NamedTuple):
    """A scan and the one it follows, with the files that appeared, vanished or changed between the two."""

    now: Scan
    before: Scan | None = None
    files: frozenset[str] = frozenset()


def compare(now: Scan, before: Scan | None) -> Change:
    """What is different now; after nothing, everything is."""
    if before is None:
        return Change(now, None, frozenset(now.files))
    known = before.files
    found = {path for path, signature in now.files.items() if known.get(path) != signature}
    return Change(now, before, frozenset(found | (known.keys() - now.files.keys())))


def normalise(paths: Iterable[str | PathLike[str]]) -> tuple[str, ...]:
    """The paths as they appear in scans."""
    return tuple(str(Path(path)) for path in paths)


def is_unsettled(mtime_ns: int, now_ns: int) -> bool:
    """Whether a file of that time may have changed again after it was looked at."""
    return now_ns - mtime_ns < _UNSETTLED_NS


def scan(paths: Sequence[str]) -> Scan:
    """Looks at every path: a file, ``-``, or a directory with all its YAML and JSON files.

    Hidden names are skipped, which is how a mounted ConfigMap is seen once although its files are
    links into a hidden directory that is swapped as a whole.
    """
    now = time.time_ns()
    files: dict[str, Signature] = {}
    errors: dict[str, str] = {}
    for path in paths:
        if path == STDIN:
            files[STDIN] = Signature(0, 0, 0, 0)
            continue
        try:
            status = Path(path).stat()
            if stat.S_ISDIR(status.st_mode):
                _scan_directory(path, files, errors, ((status.st_dev, status.st_ino),))
            elif stat.S_ISREG(status.st_mode):
                files.setdefault(path, _signature(status))
            else:
                errors[path] = "is neither a file nor a directory"
        except OSError as error:
            errors[path] = _reason(error)
    newest = max((signature.mtime_ns for signature in files.values()), default=0)
    return Scan(files=files, errors=errors, unsettled=is_unsettled(newest, now))


def _scan_directory(
    directory: str, files: dict[str, Signature], errors: dict[str, str], above: tuple[tuple[int, int], ...]
) -> None:
    try:
        with os.scandir(directory) as entries:
            listed = list(entries)
    except OSError as error:
        errors[directory] = _reason(error)
        return
    for entry in listed:
        if not entry.name.startswith("."):
            _scan_entry(entry, files, errors, above)


def _scan_entry(
    entry: "os.DirEntry[str]", files: dict[str, Signature], errors: dict[str, str], above: tuple[tuple[int, int], ...]
) -> None:
    try:
        if entry.name.endswith(SUFFIXES):
            status = entry.stat()
            if stat.S_ISREG(status.st_mode):
                files.setdefault(entry.path, _signature(status))
                return
        if entry.is_dir():
            status = entry.stat()
            identity = (status.st_dev, status.st_ino)
            if identity not in above:
                _scan_directory(entry.path, files, errors, (*above, identity))
    except FileNotFoundError as error:
        # Gone since the directory was listed, unless it is a link that leads nowhere.
        if entry.is_symlink():
            errors[entry.path] = _reason(error)
    except OSError as error:
        errors[entry.path] = _reason(error)


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
