"""What a reflector remembers of the objects it has passed on: enough to tell news from old."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from msgspec import Struct

from meshgw.api.meta import Key
from meshgw.kube.seen import Observed

_MOST_REMOVED: Final = 1000


class Row(Struct, frozen=True, gc=False):
    """One object: its incarnation, its version, and whether a good version of it was passed on."""

    uid: str
    version: str
    good: bool = True


class Rows:
    """The objects passed on and not gone, and those that went lately."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}
        self._removed: dict[Key, str] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._rows)

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def is_news(self, key: Key, observed: Observed, *, gone: bool = False) -> bool:
        """Whether an event tells something newer than what is known: it is neither repeated nor overtaken."""
        version = observed.resource_version
        row = self._rows.get(key)
        known = row.version if row is not None else self._removed.get(key)
        if known is None:
            return True
        return not is_older(version, known) and (version != known or (gone and row is not None))

    def is_listed(self, key: Key, observed: Observed) -> bool:
        """Whether an object of a list, which is always right, is known as it is."""
        row = self._rows.get(key)
        return row is not None and (row.uid, row.version) == (observed.uid, observed.resource_version)

    def has_good(self, key: Key, uid: str) -> bool:
        """Whether a good version of this incarnation is in force."""
        row = self._rows.get(key)
        return row is not None and row.good and row.uid == uid

    def put(self, key: Key, observed: Observed, *, good: bool) -> None:
        """Note what was passed on."""
        good = good or self.has_good(key, observed.uid)
        self._rows[key] = Row(observed.uid, observed.resource_version, good)
        self._removed.pop(key, None)

    def remove(self, key: Key, version: str = "") -> bool:
        """Note that an object is gone since that version; return whether it was known."""
        if version:
            self._removed[key] = version
            if len(self._removed) > _MOST_REMOVED:
                del self._removed[next(iter(self._removed))]
        return self._rows.pop(key, None) is not None

    def missing(self, listed: Collection[Key]) -> list[Key]:
        """Return the objects that are not in a list."""
        return [key for key in self._rows if key not in listed]

    def settle(self) -> None:
        """Forget what went: nothing of that time comes any more."""
        self._removed.clear()


def is_older(one: str, other: str) -> bool:
    """Whether a resource version is older than another; versions that are no numbers have no order.

    Kubernetes lets clients compare the versions of one kind as numbers since 1.35, and has always made them so.
    """
    return one.isdecimal() and other.isdecimal() and int(one) < int(other)
