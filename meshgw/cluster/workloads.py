"""Whether the pods of proxies run, and if not, what Kubernetes says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from meshgw.api.meta import ApiStruct, Key
from meshgw.api.registry import Kind
from meshgw.kube.seen import Seen
from meshgw.write.workload import OwnedObject, Problem

WORKLOADS: Final = frozenset({"Deployment", "DaemonSet"})

_PENDING: Final = "Pending"
_NO_RESOURCES: Final = "NoResources"


class _Condition(ApiStruct, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""
    message: str = ""


class _Status(ApiStruct, frozen=True, kw_only=True):
    """Status of a Deployment or, with another word, of a DaemonSet."""

    available_replicas: int = 0
    number_available: int = 0
    conditions: tuple[_Condition, ...] = ()


_status_of = msgspec.json.Decoder(_Status | None).decode


class _Owner(NamedTuple):
    gateway: Key
    uid: str


class Shortfall(msgspec.Struct, frozen=True):
    """Why the proxies of a Gateway do not serve: a reason for its Programmed condition, and a message."""

    reason: str
    message: str


class Workloads:
    """How the proxies of Gateways do; `on_change` is called when a Gateway's shortfall is another than before."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._uids: dict[Key, str] = {}
        """Those of Gateways: a name alone makes no workload theirs."""
        self._states: dict[tuple[str, Key], tuple[_Owner, Shortfall | None]] = {}
        self._refused: dict[Key, Problem] = {}
        self._shortfalls: Mapping[Key, Shortfall | None] = {}
        self._on_change = on_change

    def see(self, kind: Kind, seen: Sequence[Seen]) -> None:
        """Take in what a reflector has seen of Gateways or of objects of proxies; all but workloads is passed over."""
        if kind.name == "Gateway":
            self._see_gateways(seen)
        elif kind.name in WORKLOADS:
            for one in seen:
                self._states.pop((kind.name, one.key), None)
                if isinstance(one.object, OwnedObject) and (owner := _owner_of(one.object)) is not None:
                    self._states[kind.name, one.key] = owner, _read(bytes(one.object.status))
            self._settle()

    def note(self, gateway: Key, problems: Sequence[Problem]) -> None:
        """Take in what is wrong with a Gateway's objects: the `Report` of their writer."""
        self._refused.pop(gateway, None)
        if problems:
            self._refused[gateway] = problems[0]
        self._settle()

    def shortfall(self, gateway: Key) -> Shortfall | None:
        """Return why a Gateway's proxies do not serve, None if they do."""
        return self._shortfalls.get(gateway, Shortfall(_PENDING, "the proxy is not deployed yet"))

    def _see_gateways(self, seen: Sequence[Seen]) -> None:
        before = self._uids.copy()
        for one in seen:
            self._uids.pop(one.key, None)
            if one.observed is not None:
                self._uids[one.key] = one.observed.uid
        if self._uids != before:
            self._settle()

    def _settle(self) -> None:
        states = self._states.values()
        found = _judge((owner.gateway, state) for owner, state in states if self._uids.get(owner.gateway) == owner.uid)
        for gateway, problem in self._refused.items():
            # One that runs all the same is only not what it should be by now.
            if found.get(gateway, problem) is not None:
                found[gateway] = Shortfall(_NO_RESOURCES, problem.message)
        before, self._shortfalls = self._shortfalls, found
        if found != before:
            self._on_change()


def _judge(states: Iterable[tuple[Key, Shortfall | None]]) -> dict[Key, Shortfall | None]:
    """Return the shortfall of each Gateway; a workload that serves makes up for one that does not."""
    found: dict[Key, Shortfall | None] = {}
    for gateway, state in states:
        found[gateway] = state if found.get(gateway, state) is not None else None
    return found


def _read(status: bytes) -> Shortfall | None:
    """Return why a workload does not serve, from the JSON of its status, which need not be there yet.

    Pods that are refused (quota, pod security, admission) are a condition of a Deployment; a DaemonSet has none.
    """
    read = (_status_of(status) if status else None) or _Status()
    if read.available_replicas or read.number_available:
        return None
    for type_, bad in (("ReplicaFailure", "True"), ("Progressing", "False")):
        for condition in read.conditions:
            if (condition.type, condition.status) == (type_, bad):
                return Shortfall(_NO_RESOURCES, f"no pod of the proxy is ready: {condition.message}")
    return Shortfall(_PENDING, "no pod of the proxy is ready yet")


def _owner_of(row: OwnedObject) -> _Owner | None:
    owner = next((owner for owner in row.metadata.owner_references if owner.kind == "Gateway"), None)
    return None if owner is None else _Owner(Key(row.metadata.namespace, owner.name), owner.uid)
