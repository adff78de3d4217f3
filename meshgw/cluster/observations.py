"""All that is watched in a cluster: objects as facts, where they are served, and the objects of proxies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from meshgw.api.registry import Registry
from meshgw.cluster.facts import ClusterFacts
from meshgw.cluster.scope import EVERYWHERE, SECRET, SECRETS_FOLLOW, Scope, follow_served, secret_namespaces
from meshgw.control import Outcome
from meshgw.engine import Graph
from meshgw.ir.codes import CODES
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Settings
from meshgw.kube.client import Client
from meshgw.kube.seen import Sink
from meshgw.kube.watches import WatchSet
from meshgw.observe.log import get_logger
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from meshgw.write.workload import PROXY_KINDS, SELECTOR

_log = get_logger("watches")

_LOOK: Final = 1.0
"""Seconds between looks at what keeps watches from reading."""
_MOMENT: Final = 1.0
"""Seconds for which a commit waits for Secrets."""
_OUTLINE: Final = (
    t.NAMESPACES,
    t.GATEWAY_CLASSES,
    t.GATEWAY_PARAMETERS,
    t.GATEWAYS,
    t.LISTENER_SETS,
    t.REFERENCE_GRANTS,
    t.BACKEND_TLS_POLICIES,
)
"""What tells where to look, before anything else is known."""


class Observations:
    """The watches of a replica: `sink` hears of objects that are facts, `owned_sink` of those of proxies.

    `root` is Istio's root namespace. `on_leave` gets a namespace that is not served any more before both hear of its
    objects as if they were gone.
    """

    def __init__(
        self,
        client: Client,
        scope: Scope,
        registry: Registry,
        *,
        sink: Sink,
        owned_sink: Sink,
        on_leave: Callable[[str], None],
        root: str,
    ) -> None:
        secret = registry.by_name(SECRET)
        assert secret is not None  # noqa: S101 - the core's own kind
        self.facts = ClusterFacts()
        self.watches = WatchSet(client, sink)
        self.owned = WatchSet(client, owned_sink)
        self._scope, self._registry, self._secret = scope, registry, secret
        self._on_leave = on_leave
        self._root = root
        self._served: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Keep up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watches.run(), name="watches of facts")
            tasks.create_task(self.owned.run(), name="watches of proxies")
            tasks.create_task(self._tell(), name="problems of watches")

    async def settle(self, settings: Settings) -> None:
        """Return once all has been seen: first what says where to look, at last the Secrets that may be read."""
        if self._scope.selector is None:
            self._serve(self._scope.served(build_graph()))
        else:
            unscoped = [kind for kind in self._registry.kinds if not kind.namespaced]
            follow_served(self.watches, unscoped, self._served, root=self._root)
            await self.watches.settle()
            self._serve(self._scope.served(self._sketch(settings)))
        await self.watches.settle()
        self.watches.follow(self._secret, secret_namespaces(self._sketch(settings), self._served))
        await settle_or_refused(self.watches)
        await settle_or_refused(self.owned)

    async def anticipate(self, graph: Graph) -> None:
        """Before a commit, see the Secrets of namespaces that get their first Gateway of ours; for a moment at most.

        Else the first thing to be said of a new Gateway would be that its certificates are missing.
        """
        classes = graph.rows(t.CLASSES)
        pending = self.facts.peek(t.GATEWAYS).get(t.GATEWAYS, {})
        wanted = {
            key.namespace for key, row in pending.items() if row is not None and row.spec.gateway_class_name in classes
        }
        if EVERYWHERE not in self._served:
            wanted &= self._served
        if not wanted or wanted <= (known := secret_namespaces(graph, self._served)):
            return
        self.watches.follow(self._secret, known | wanted)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT):
                await settle_or_refused(self.watches)

    def follow(self, outcome: Outcome, graph: Graph) -> None:
        """Let what is watched follow a commit."""
        if self._scope.selector is not None and any(delta.changed(t.NAMESPACES) for delta in outcome.deltas):
            self._serve(self._scope.served(graph))
        if any(delta.changed(table) for delta in outcome.deltas for table in (*SECRETS_FOLLOW, t.NAMESPACES)):
            self.watches.follow(self._secret, secret_namespaces(graph, self._served))

    def missing(self) -> list[str]:
        """Return what has not been seen yet."""
        return [f"not seen yet: {name}" for name in (*self.watches.unsynced, *self.owned.unsynced)]

    def findings(self) -> list[Finding]:
        """Return what could not be read."""
        return [*self.facts.problems(), *self.watches.problems, *self.owned.problems]

    def faults(self) -> int:
        """Return how often an object could not be taken in, which is a bug each time."""
        return self.watches.faults + self.owned.faults

    async def _tell(self) -> None:
        """Log what may not be read, or is not there, once."""
        told: frozenset[Finding] = frozenset()
        while True:
            found = frozenset((*self.watches.problems, *self.owned.problems))
            for finding in sorted(found - told, key=lambda finding: finding.sort_key):
                remedy = CODES[finding.code].remedy
                _log.warning(finding.message, code=finding.code, object=str(finding.object), remedy=remedy)
            told = found
            await asyncio.sleep(_LOOK)  # `moved` has one reader, which is whoever settles

    def _serve(self, served: frozenset[str]) -> None:
        if served == self._served:
            return
        left, self._served = self._served - served, served
        for namespace in sorted(left):
            self._on_leave(namespace)
        follow_served(self.watches, self._registry.kinds, served, root=self._root)
        for kind in PROXY_KINDS:
            self.owned.follow(kind, None if EVERYWHERE in served else served, label_selector=SELECTOR)

    def _sketch(self, settings: Settings) -> Graph:
        """Return a pipeline that knows what tells where to look, and is used for nothing else."""
        graph = build_graph()
        graph.commit({t.SETTINGS: {t.SINGLE: settings}, **self.facts.peek(*_OUTLINE)})
        return graph


async def settle_or_refused(watches: WatchSet) -> None:
    """Return once all has been seen that may be read."""
    async with asyncio.TaskGroup() as tasks:
        settled = tasks.create_task(watches.settle())
        while not settled.done() and not _all_refused(watches):
            watches.moved.clear()
            moved = tasks.create_task(watches.moved.wait())
            await asyncio.wait({settled, moved}, return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()
        settled.cancel()


def _all_refused(watches: WatchSet) -> bool:
    return all(each.problem is not None for each in watches.reflectors if not each.synced.is_set())
