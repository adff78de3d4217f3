"""What every group of proxies should have, encoded once, with removals that wait for the routes to move away.

A group is what one Gateway's proxies share. All times are passed in; nothing here reads a clock.
"""

import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from meshgw.emit.resource import CLUSTER, ENDPOINTS, SECRET, Resource
from meshgw.xds.wire import Entry, encode

LINGERING: Final = frozenset({CLUSTER, ENDPOINTS, SECRET})
"""Types that routes and listeners lean on: removing them waits until nothing acknowledged names them."""

_EMPTY: Final[Mapping[str, Entry]] = MappingProxyType({})
_VERSION_MASK: Final = (1 << 64) - 1

Key = tuple[str, str]
"""A resource's type URL and name."""


class Changes(msgspec.Struct, frozen=True):
    """Names per type whose resource of this group changed, appeared or went; `added` are those that appeared."""

    group: str
    names: Mapping[str, frozenset[str]] = {}
    added: Mapping[str, frozenset[str]] = {}


class _Leaving(msgspec.Struct, frozen=True):
    commit: int
    deadline: float


class _Departed(msgspec.Struct, frozen=True):
    proxy: int
    until: float


class Group:
    """One group's resources; sessions read it, only the cache writes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = False
        self.commit = 0
        self._entries: dict[str, dict[str, Entry]] = {}
        self._versions: dict[str, int] = {}
        self.leaving: dict[Key, _Leaving] = {}
        self.settled: dict[int, int] = {}  # proxy -> the last commit whose routes and listeners it acknowledged
        self.departed: dict[str, _Departed] = {}  # by node id, those among them that may come back

    def entries(self, type_url: str) -> Mapping[str, Entry]:
        """All resources of a type by name, those about to leave included."""
        return self._entries.get(type_url, _EMPTY)

    def version(self, type_url: str) -> str:
        """A label for the whole set of a type, equal in every process that holds the same set."""
        return f"{self._versions.get(type_url, 0):016x}"

    def put(self, key: Key, entry: Entry) -> None:
        """Set a resource."""
        type_url, name = key
        self.drop(key)
        self._entries.setdefault(type_url, {})[name] = entry
        self._versions[type_url] = (self._versions.get(type_url, 0) + _label(name, entry.version)) & _VERSION_MASK

    def drop(self, key: Key) -> None:
        """Remove a resource, if there is one."""
        type_url, name = key
        old = self._entries.get(type_url, {}).pop(name, None)
        if old is not None:
            self._versions[type_url] = (self._versions[type_url] - _label(name, old.version)) & _VERSION_MASK

    def keys(self) -> Iterable[Key]:
        """The type and name of every resource."""
        return ((type_url, name) for type_url, entries in self._entries.items() for name in entries)


def _label(name: str, version: str) -> int:
    """One resource's part of its set's version: a sum, so that a change costs the change and not the set."""
    return int.from_bytes(hashlib.blake2b(f"{name}\0{version}".encode(), digest_size=8).digest())


class Cache:
    """The resources of every group.

    Each method that can change what proxies should see returns `Changes` (None: nothing to tell); whoever owns the
    sessions passes them on.
    """

    def __init__(self, *, linger: float = 30.0) -> None:
        self.linger = linger
        self._groups: dict[str, Group] = {}

    def apply(self, group: str, changes: Mapping[Key, Resource | None], *, now: float, ready: bool = False) -> Changes:
        """One commit: resources to set, and None for those to remove. Equal versions change nothing.

        `ready` marks the group ready in the same step.
        """
        store = self._groups.setdefault(group, Group(group))
        store.commit += 1
        was_ready, store.ready = store.ready, store.ready or ready
        changed: set[Key] = set()
        added: set[Key] = set()
        for key, resource in changes.items():
            type_url, name = key
            old = store.entries(type_url).get(name)
            if resource is not None:
                store.leaving.pop(key, None)
                if old is None or old.version != resource.version:
                    store.put(key, encode(resource))
                    changed.add(key)
                    if old is None:
                        added.add(key)
            elif old is not None and type_url in LINGERING and store.settled:
                store.leaving.setdefault(key, _Leaving(store.commit, now + self.linger))
            elif old is not None:
                store.drop(key)
                changed.add(key)
        if store.ready and not was_ready:
            changed.update(store.keys())
        return Changes(group, _by_type(changed), _by_type(added))

    def mark_ready(self, group: str) -> Changes | None:
        """Let the group answer: what it holds is complete, and an absent name means that there is none."""
        store = self._groups.setdefault(group, Group(group))
        if store.ready:
            return None
        store.ready = True
        store.commit += 1
        return Changes(group, _by_type(store.keys()))

    def forget(self, group: str) -> None:
        """Drop a group that is no more. Streams of the group must be closed: its proxies keep what they have."""
        store = self._groups.pop(group, None)
        if store is not None:
            store.ready = False

    def attach(self, group: str, proxy: int, node_id: str) -> Group:
        """The group, now waiting for this proxy's acknowledgements before it lets anything go."""
        store = self._groups.setdefault(group, Group(group))
        former = store.departed.pop(node_id, None)
        if former is not None:
            store.settled.pop(former.proxy, None)
        store.settled[proxy] = 0
        return store

    def detach(self, group: str, proxy: int, node_id: str, *, now: float) -> None:
        """Note that a proxy's stream ended; it is waited for a while longer, as it is likely to come back."""
        store = self._groups.get(group)
        if store is None or proxy not in store.settled:
            return
        if store.commit == 0:
            del store.settled[proxy]
            if not store.settled:
                del self._groups[group]
            return
        former = store.departed.get(node_id)
        if former is not None:
            store.settled.pop(former.proxy, None)
        store.departed[node_id] = _Departed(proxy, now + self.linger)

    def settle(self, group: str, proxy: int, commit: int, *, now: float) -> Changes | None:
        """Record that a proxy acknowledged all routes and listeners of this commit."""
        store = self._groups.get(group)
        if store is None or proxy not in store.settled:
            return None
        store.settled[proxy] = max(store.settled[proxy], commit)
        return self._release(store, now)

    def expire(self, *, now: float) -> list[Changes]:
        """Let go what has waited for the whole bound, and stop waiting for proxies that did not come back."""
        released = [self._release(store, now) for store in self._groups.values()]
        return [changes for changes in released if changes is not None]

    def _release(self, store: Group, now: float) -> Changes | None:
        for node_id in [node_id for node_id, departed in store.departed.items() if departed.until <= now]:
            store.settled.pop(store.departed.pop(node_id).proxy, None)
        if not store.leaving:
            return None
        settled = min(store.settled.values(), default=store.commit)
        free = [key for key, leaving in store.leaving.items() if leaving.commit <= settled or leaving.deadline <= now]
        for key in free:
            del store.leaving[key]
            store.drop(key)
        return Changes(store.name, _by_type(free)) if free else None


def _by_type(keys: Iterable[Key]) -> dict[str, frozenset[str]]:
    names: dict[str, set[str]] = {}
    for type_url, name in keys:
        names.setdefault(type_url, set()).add(name)
    return {type_url: frozenset(found) for type_url, found in names.items()}
