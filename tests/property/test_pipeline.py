"""The whole pipeline under random objects and edits.

The objects are those of the golden cases: nearly all of them are called alike, so a random series of them is a series
of edits that crosses every feature with every other.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias

import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from meshgw.api.decode import decode
from meshgw.api.meta import Key, Resource
from meshgw.api.registry import REGISTRY
from meshgw.emit import tables as out
from meshgw.emit.resource import CLUSTER, ENDPOINTS, SECRET
from meshgw.engine import Delta, Graph, Table
from meshgw.ir.gateway import Settings
from meshgw.pipeline import FACTS, build_graph
from meshgw.resolve import tables as t
from tests.golden.case import CASES, LOOPBACK, STAND_IN, Facts, read_case, state

Fact: TypeAlias = tuple[Table[Any, Any], Key, Any]
"""A table, a key and the row under it, None to delete it."""

NAMESPACES = ("default", "other", "secrets")
ROUTES = {"HTTPRoute", "GRPCRoute"}
REACHED = {CLUSTER, ENDPOINTS, SECRET}
CLUSTER_SCOPED = {t.GATEWAY_CLASSES, t.NAMESPACES, t.NODES}

MANY = settings.default.max_examples
slow = settings(
    deadline=None,
    max_examples=MANY * 2 // 5,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@cache
def cases() -> tuple[tuple[Fact, ...], ...]:
    """The objects of every golden case."""
    facts = [read_case((path / "in.yaml").read_text()).facts for path in CASES]
    return tuple(
        tuple((table, key, row) for table, rows in batch.items() for key, row in rows.items()) for batch in facts
    )


@cache
def pool() -> tuple[Fact, ...]:
    """All distinct objects of the golden cases."""
    found = {
        msgspec.json.encode((table.name, key, row)): (table, key, row) for case in cases() for table, key, row in case
    }
    return tuple(found.values())


@cache
def of_tables(*tables: Table[Any, Any]) -> tuple[Fact, ...]:
    return tuple(fact for fact in pool() if fact[0] in tables)


def one_of(items: Callable[[], Sequence[Any]]) -> st.SearchStrategy[Any]:
    """One of many items, drawn by number: hypothesis would spend its time on describing them."""
    return st.integers(0, 2**16).map(lambda number: items()[number % len(items())])


def objects(*tables: Table[Any, Any]) -> st.SearchStrategy[Fact]:
    """Random objects of these kinds, by default of all."""
    return one_of(lambda: of_tables(*tables) if tables else pool())


def edits(source: Callable[[], st.SearchStrategy[Fact]] = objects) -> st.SearchStrategy[Fact]:
    """An object that appears or changes, now and then one that goes."""
    kept = source()
    gone = source().map(lambda fact: (fact[0], fact[1], None))
    return st.one_of(kept, kept, kept, gone)


def worlds() -> st.SearchStrategy[list[Fact]]:
    """A few cases in one, and some more objects."""
    several = st.lists(one_of(cases), min_size=1, max_size=5)
    return st.builds(lambda parts, more: [*itertools.chain(*parts), *more], several, st.lists(objects(), max_size=8))


@st.composite
def circumstances(draw: st.DrawFn) -> Facts:
    """What a deployment decides."""
    names = ("gw", "waypoint", "edge")
    keys = [Key(namespace, name) for namespace in NAMESPACES for name in names]
    return {
        t.SETTINGS: {t.SINGLE: Settings(mesh=draw(st.booleans()), loopback_endpoints=draw(st.booleans()))},
        t.BINDINGS: {key: LOOPBACK for key in keys if draw(st.booleans())},
        t.WORKLOAD_CERTIFICATES: {key: STAND_IN for key in keys if draw(st.booleans())},
    }


def gather(facts: Sequence[Fact]) -> Facts:
    """The facts as one batch; the last of equal keys counts."""
    batch: Facts = {}
    for table, key, row in facts:
        batch.setdefault(table, {})[key] = row
    return batch


def commit(graph: Graph, batch: Facts) -> Delta:
    delta = graph.commit(batch)
    assert delta.faults == ()
    return delta


def build(around: Facts, facts: Sequence[Fact], *, incremental: bool = True) -> Graph:
    graph = build_graph(incremental=incremental)
    commit(graph, around | gather(facts))
    return graph


@slow
@given(circumstances(), worlds(), st.lists(st.lists(edits(), min_size=1, max_size=4), max_size=6))
def test_edits_end_where_a_fresh_start_does(around: Facts, world: list[Fact], batches: list[list[Fact]]) -> None:
    graph, anew = build(around, world), build(around, world, incremental=False)
    for batch in batches:
        commit(graph, gather(batch))
        commit(anew, gather(batch))
    everything = [*world, *(fact for batch in batches for fact in batch)]
    assert state(graph) == state(anew) == state(build(around, everything))


@slow
@given(circumstances(), worlds(), st.randoms(use_true_random=False))
def test_the_order_of_objects_changes_nothing(around: Facts, world: list[Fact], order: random.Random) -> None:
    batch = gather(world)
    single = [(table, key, row) for table, rows in batch.items() for key, row in rows.items()]
    order.shuffle(single)
    graph = build_graph()
    commit(graph, around)
    for fact in single:
        commit(graph, gather([fact]))
    assert state(graph) == state(build(around, world))


def move(facts: Iterable[Fact], namespace: str) -> list[Fact]:
    """The objects that speak of no other namespace, in this one; without Pods, as addresses are everybody's."""
    moved: list[Fact] = []
    for table, key, row in facts:
        plain = b'"namespace"' not in msgspec.json.encode(getattr(row, "spec", None))
        if table not in CLUSTER_SCOPED and table is not t.PODS and plain and key.namespace == "default":
            metadata = msgspec.structs.replace(row.metadata, namespace=namespace)
            moved.append((table, Key(namespace, key.name), msgspec.structs.replace(row, metadata=metadata)))
    return moved


@cache
def moved(namespace: str) -> Sequence[Fact]:
    return move(pool(), namespace)


def local(namespace: str) -> st.SearchStrategy[Fact]:
    return one_of(lambda: moved(namespace))


@slow
@given(st.data(), circumstances())
def test_an_edit_changes_no_byte_of_another_namespaces_gateways(data: st.DataObject, around: Facts) -> None:
    graph = build(around, [*move(data.draw(worlds()), "here"), *move(data.draw(worlds()), "there")])
    for fact in data.draw(st.lists(edits(lambda: local("there")), min_size=1, max_size=8)):
        delta = commit(graph, gather([fact]))
        assert {key.gateway.namespace for key in delta.changed(out.RESOURCES)} <= {"there"}
        assert {ref.namespace for ref in delta.changed(t.STATUSES)} <= {"there"}


def _one_host(fact: Fact) -> Fact:
    """A Gateway whose listeners are for every host: which of them serves a host then never changes."""
    table, key, row = fact
    if table not in {t.GATEWAYS, t.LISTENER_SETS}:
        return fact
    listeners = tuple(msgspec.structs.replace(listener, hostname=None) for listener in row.spec.listeners)
    spec = msgspec.structs.replace(row.spec, listeners=listeners)
    return table, key, msgspec.structs.replace(row, spec=spec)


@slow
@given(st.data(), circumstances(), worlds(), st.lists(objects(t.REFERENCE_GRANTS), min_size=1, max_size=5))
def test_a_grant_that_goes_opens_nothing(
    data: st.DataObject, around: Facts, world: list[Fact], grants: list[Fact]
) -> None:
    named = [(table, key._replace(name=f"grant-{place}"), row) for place, (table, key, row) in enumerate(grants)]
    graph = build(around, [*map(_one_host, world), *named])
    while named:
        before = _reached(graph)
        table, key, _row = named.pop(data.draw(st.integers(0, len(named) - 1)))
        commit(graph, {table: {key: None}})
        assert _reached(graph) <= before


def _reached(graph: Graph) -> set[Any]:
    """What gateways can reach: their clusters and endpoints, and secrets they hold."""
    return {key for key in graph.rows(out.RESOURCES) if key.type_url in REACHED}


@slow
@given(st.data(), circumstances(), worlds(), objects())
def test_a_field_that_is_left_out_costs_its_own_object_only(
    data: st.DataObject, around: Facts, world: list[Fact], fact: Fact
) -> None:
    table, key, row = fact
    graph = build(around, [*world, fact])
    kind = next(kind for kind, of in FACTS.items() if of is table)
    shorter = _shortened(data, kind, row)
    delta = commit(graph, {table: {key: shorter}})
    if kind in ROUTES:
        assert {(route.kind, route.key) for route in delta.changed(t.ROUTES)} <= {(kind, key)}
        assert {(route.kind, route.key) for _config, route in delta.changed(out.FRAGMENTS)} <= {(kind, key)}
    if kind in {*ROUTES, "Gateway"}:
        assert {ref.kind for ref in delta.changed(t.STATUSES)} <= {kind, "Gateway", *_neighbours(kind)}
    if kind == "Gateway":
        assert {resource.gateway for resource in delta.changed(out.RESOURCES)} <= {key}


def _neighbours(kind: str) -> set[str]:
    """Kinds whose statuses speak of objects of this kind: a policy's ancestors, a route's parents."""
    attached = {"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute", "ListenerSet"}
    return {"BackendTLSPolicy", *(attached if kind == "Gateway" else {"ListenerSet"})}


def _shortened(data: st.DataObject, kind: str, row: Resource) -> Resource:
    """The object without one field of its spec, if the API server would still take it."""
    known = REGISTRY.by_name(kind)
    assert known is not None
    document = {"apiVersion": known.api_version, "kind": kind, **msgspec.to_builtins(row)}
    paths = list(_paths(document))
    assume(paths)
    *way, last = data.draw(st.sampled_from(paths))
    node: Any = document
    for step in way:
        node = node[step]
    del node[last]
    decoded = decode(document)
    assume(decoded.object is not None)
    assert decoded.object is not None
    return decoded.object


def _paths(node: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if before or name not in {"apiVersion", "kind", "metadata"}:
                yield (*before, name)
                yield from _paths(value, (*before, name))
    elif isinstance(node, list | tuple):
        for place, value in enumerate(node):
            yield from _paths(value, (*before, place))
