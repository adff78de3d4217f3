"""The pipeline over files, once: what `translate` and `analyze` look at."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from meshgw.api.meta import Key
from meshgw.diagnose.expiry import find_expired
from meshgw.emit.resource import Resource
from meshgw.emit.tables import RESOURCES
from meshgw.engine import Graph
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Settings
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from meshgw.standalone.facts import FileFacts


class Evaluation(msgspec.Struct, frozen=True):
    """A committed pipeline, and what else there is to say of its files as of now."""

    graph: Graph
    problems: tuple[Finding, ...]

    @property
    def gateways(self) -> tuple[Key, ...]:
        """The accepted Gateways of ours, sorted."""
        return tuple(key for key, row in sorted(self.graph.rows(t.OUR_GATEWAYS).items()) if row.accepted)

    def resources(self, gateway: Key) -> list[Resource]:
        """Return all resources of one Gateway, sorted by type and name."""
        return [resource for _key, resource in self.graph.by(RESOURCES, "gateway", gateway)]


def evaluate(paths: Sequence[str], *, mesh: bool = False, deploys: bool = False) -> Evaluation:
    """Read the files and commit them, as for a cluster with `deploys`; nothing is bound: listeners are at 0.0.0.0."""
    facts = FileFacts(paths)
    facts.read()
    batch = facts.take()
    batch[t.SETTINGS] = {t.SINGLE: Settings(mesh=mesh, deploys=deploys, loopback_endpoints=not deploys)}
    graph = build_graph()
    graph.commit(batch)
    return Evaluation(graph, (*facts.problems, *find_expired(graph, time.time())))
