"""Many reflectors as one thing: started and stopped by what is wanted, and known to be synced together."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from meshgw.api.registry import Kind
from meshgw.ir.finding import Finding
from meshgw.kube.client import Client
from meshgw.kube.clock import Clock
from meshgw.kube.discovery import DEFINITIONS, Catalog, is_built_in
from meshgw.kube.reflector import Reflector
from meshgw.kube.seen import Seen, Sink


class _Wanted(NamedTuple):
    kind: str
    namespace: str
    label_selector: str
    field_selector: str


class WatchSet:
    """The reflectors of a controller; `follow` says what is wanted, before `run` and while it runs."""

    def __init__(self, client: Client, sink: Sink, *, clock: Clock | None = None) -> None:
        self.catalog: Final = Catalog(client)
        self.moved: Final = asyncio.Event()
        """Set when `problems` change; whoever reads them clears it."""
        self._client = client
        self._sink = sink
        self._clock = clock
        self._reflectors: dict[_Wanted, Reflector] = {}
        self._tasks: dict[_Wanted, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._hinted = False
        self._problems: dict[tuple[str, str], Finding] = {}
        self._former_faults = 0

    @property
    def faults(self) -> int:
        """How often the sink failed to take an object, ever."""
        return self._former_faults + sum(reflector.faults for reflector in self._reflectors.values())

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What keeps kinds from being read, in a stable order."""
        return tuple(sorted(set(self._problems.values()), key=lambda finding: finding.sort_key))

    @property
    def unsynced(self) -> tuple[str, ...]:
        """What has not been seen in full yet: names of kinds, with the namespace where only that is followed."""
        missing = (wanted for wanted, reflector in self._reflectors.items() if not reflector.synced.is_set())
        return tuple(sorted(f"{each.kind} in {each.namespace}" if each.namespace else each.kind for each in missing))

    @property
    def reflectors(self) -> tuple[Reflector, ...]:
        """All that is followed now."""
        return tuple(self._reflectors.values())

    def version_of(self, kind: Kind) -> str:
        """Return the served version in which a kind is read, empty if it is not."""
        versions = (each.version for wanted, each in self._reflectors.items() if wanted.kind == kind.name)
        return next(filter(None, versions), "")

    def follow(
        self,
        kind: Kind,
        namespaces: Collection[str] | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        """Want the objects of a kind in these namespaces, or with None in all, instead of what was wanted of it before.

        Where it is followed no longer, its objects are gone for the sink. Cluster-scoped kinds have no namespaces,
        whatever is given. Raises ValueError for a change between some namespaces and all, which would lose objects.
        """
        scope = {""} if namespaces is None or not kind.namespaced else set(namespaces)
        before = {wanted for wanted in self._reflectors if wanted.kind == kind.name}
        known = {each.namespace for each in before}
        if known and scope and ("" in known) != ("" in scope):
            raise ValueError(f"{kind} is followed in all namespaces or in some, for good")
        wanted = {_Wanted(kind.name, namespace, label_selector, field_selector) for namespace in scope}
        for each in before - wanted:
            self._stop(each)
        for each in sorted(wanted - before):
            self._reflectors[each] = Reflector(
                self._client,
                kind,
                self._sink,
                namespace=each.namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                catalog=self.catalog,
                report=self._note,
                clock=self._clock,
            )
            self._start(each)

    async def settle(self) -> None:
        """Return once everything that is wanted has been seen in full; `run` must be running."""
        while True:
            pending = next((each for each in self._reflectors.values() if not each.synced.is_set()), None)
            if pending is None:
                return
            await pending.synced.wait()

    async def run(self) -> None:
        """Keep up with all that is wanted until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for wanted in self._reflectors:
                    self._start(wanted)
                await asyncio.Event().wait()
        finally:
            self._group, self._hinted = None, False
            self._tasks.clear()

    def _start(self, wanted: _Wanted) -> None:
        if self._group is None:
            return
        reflector = self._reflectors[wanted]
        name = f"watch {wanted.kind} {wanted.namespace}".strip()
        self._tasks[wanted] = self._group.create_task(reflector.run(), name=name)
        if not self._hinted and not is_built_in(reflector.kind):
            self._hinted = True
            hints = Reflector(
                self._client, DEFINITIONS, self._hint, metadata_only=True, catalog=self.catalog, clock=self._clock
            )
            self._group.create_task(hints.run(), name="watch definitions")

    def _stop(self, wanted: _Wanted) -> None:
        task = self._tasks.pop(wanted, None)
        if task is not None:
            task.cancel()  # it passes nothing on after this
        reflector = self._reflectors.pop(wanted)
        reflector.drop()
        self._former_faults += reflector.faults
        reflector.synced.set()  # for those who wait for what nobody wants any more
        self._forget(wanted)

    def _forget(self, wanted: _Wanted) -> None:
        if self._problems.pop((wanted.kind, wanted.namespace), None) is not None:
            self.moved.set()

    def _note(self, kind: Kind, namespace: str, problem: Finding | None) -> None:
        if problem is None:
            self._problems.pop((kind.name, namespace), None)
        else:
            self._problems[kind.name, namespace] = problem
        self.moved.set()

    def _hint(self, kind: Kind, seen: Sequence[Seen]) -> None:
        del kind
        for each in seen:
            self.catalog.notice(each.key.name)
