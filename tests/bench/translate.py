"""Engine and translator, from typed objects to resources as bytes. One size per process, its figures on stdout."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator

import msgspec

from meshgw.emit.tables import RESOURCES
from meshgw.engine import Delta, Graph
from meshgw.ir.gateway import Binding, Settings
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from tests.bench import world
from tests.bench.summary import Summary, summarise, timed

NEVER_FOR_ENDPOINTS = ("routes", "fragments", "virtual-hosts", "route-configs")
"""Tables that an endpoint change must not recompute a single row of."""
BUILDS = 2
"""Builds from nothing, of which the faster one counts."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What one sort of change costs; `rows` counts by table how often its function ran, at most in any one change."""

    time: Summary
    rows: dict[str, int]

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.rows.values())


class Translation(msgspec.Struct, frozen=True, kw_only=True):
    """One size; times in milliseconds."""

    routes: int
    initial: float
    rebuild: float
    resources: int
    bytes: int
    changes: dict[str, Change]


def measure(size: int, *, repeats: int) -> Translation:
    """Return what building and changing a world of `size` routes costs."""
    batch = world.batch_of(world.documents(size))
    batch[t.SETTINGS] = {t.SINGLE: Settings(loopback_endpoints=True)}
    batch[t.BINDINGS] = {world.GATEWAY: Binding(bind="127.0.0.1", addresses=("127.0.0.1",))}
    initial = []
    for _ in range(BUILDS):
        graph = build_graph()
        gc.collect()
        initial.append(timed(lambda graph=graph: graph.commit(batch)))  # type: ignore[misc]
    gc.collect()
    gc.freeze()  # as the application does once it has its first configuration
    changes = {name: _repeat(graph, kind(size), repeats) for name, kind in CHANGES.items()}
    changes |= {name: _repeat(graph, kind(size), max(3, repeats // 10)) for name, kind in WIDE_CHANGES.items()}
    for table in NEVER_FOR_ENDPOINTS:
        assert not changes["one endpoint changed"].rows.get(table), f"an endpoint change recomputed rows of {table}"
    rebuild = min(timed(graph.rebuild) for _ in range(BUILDS))
    resources = graph.rows(RESOURCES).values()
    assert len(resources) > 2 * size, "every route has a cluster and endpoints"
    return Translation(
        routes=size,
        initial=round(1000 * min(initial), 1),
        rebuild=round(1000 * rebuild, 1),
        resources=len(resources),
        bytes=sum(len(resource.body) for resource in resources),
        changes=changes,
    )


def _repeat(graph: Graph, batches: Iterator[world.Batch], repeats: int) -> Change:
    times: list[float] = []
    rows: dict[str, int] = {}
    for _ in range(repeats):
        batch = next(batches)
        began = time.perf_counter()
        delta: Delta = graph.commit(batch)
        times.append(time.perf_counter() - began)
        assert not delta.faults, delta.faults
        assert delta.tables, "the change changed nothing"
        for table, count in delta.recomputed.items():
            rows[table] = max(count, rows.get(table, 0))
    return Change(time=summarise(times), rows=rows)


def _routes(size: int) -> Iterator[world.Batch]:
    number = 1
    while True:
        app = world.application(number * 7919 % size)
        yield world.batch_of((world.route(app, path=f"/edit-{number}"),))
        number += 1


def _endpoints(size: int) -> Iterator[world.Batch]:
    number = 1
    while True:
        app = world.application(number * 7919 % size)
        yield world.batch_of((world.endpoint_slice(app, port=1000 + number),))
        number += 1


def _listeners(_size: int) -> Iterator[world.Batch]:
    number = 2
    while True:
        yield world.batch_of((world.gateway(listeners=number),))
        number += 1


def _labels(_size: int) -> Iterator[world.Batch]:
    number = 1
    while True:
        yield world.batch_of((world.gateway(listeners=1, label=f"team-{number}"),))
        number += 1


def _new_routes(size: int) -> Iterator[world.Batch]:
    number = 1
    while True:
        there = world.batch_of((world.route(world.application(size + number)),))
        yield there
        yield {table: dict.fromkeys(rows) for table, rows in there.items()}
        number += 1


def _services(size: int) -> Iterator[world.Batch]:
    number = 1
    while True:
        app = world.application(number * 7919 % size)
        there = world.batch_of((world.service(app),))
        yield {table: dict.fromkeys(rows) for table, rows in there.items()}
        yield there
        number += 1


CHANGES: dict[str, Callable[[int], Iterator[world.Batch]]] = {
    "one route changed": _routes,
    "a route added or deleted": _new_routes,
    "one endpoint changed": _endpoints,
    "a Service deleted or added": _services,
    "a Gateway label changed": _labels,
}
WIDE_CHANGES: dict[str, Callable[[int], Iterator[world.Batch]]] = {"a listener added": _listeners}
"""Those that concern every route."""


def main() -> None:
    """Measure the size given as first argument with the repeats given as second."""
    found = measure(int(sys.argv[1]), repeats=int(sys.argv[2]))
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
