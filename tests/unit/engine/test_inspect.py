"""Questions to a graph: why a row is as it is, what the tables hold, how the steps hang together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshgw.engine import Cause, Contents, Derived, Graph, Group, Table, Union, View, dot, dump, why

ROUTES: Table[str, str] = Table("routes", indexes={"service": lambda _key, row: (row,)})
SERVICES: Table[str, int] = Table("services")
PORTS: Table[str, Any] = Table("ports", indexes={"port": lambda _key, row: (row[0],)})
HOSTS: Table[str, Any] = Table("hosts")
ALL: Table[tuple[str, str], Any] = Table("all")


def port(view: View, key: str, row: str) -> Iterable[tuple[str, Any]]:
    if row == "bad":
        raise ValueError(row)
    siblings = len(view.by(ROUTES, "service", row))
    yield f"{key}-port", (view.get(SERVICES, row), siblings, len(view.all(SERVICES)))


def graph() -> Graph:
    made = Graph(
        sources=[ROUTES, SERVICES],
        steps=[
            Derived(PORTS, source=ROUTES, fn=port),
            Group(
                HOSTS,
                source=ROUTES,
                by=lambda _key, row: (row,),
                fn=lambda _view, name, members: [(name, len(members))],
            ),
            Union(ALL, sources=[SERVICES, HOSTS], fn=lambda _view, name, key, row: [((name, key), row)]),
        ],
    )
    made.commit({ROUTES: {"r1": "a", "r2": "a", "r3": "gone"}, SERVICES: {"a": 80}})
    return made


def test_a_row_is_explained_by_its_source_and_reads() -> None:
    reason = why(graph(), PORTS, "r1-port")
    assert (reason.table, reason.key, reason.step, reason.unit, reason.changed) == (
        "ports",
        "r1-port",
        "Derived",
        "r1",
        1,
    )
    assert reason.sources == (Cause("routes", None, "r1", ("r1",), 1),)
    assert reason.reads == (
        Cause("routes", "service", "a", ("r1", "r2"), 0),
        Cause("services", None, "a", ("a",), 0),
        Cause("services", "*", None, ("a",), 0),
    )
    assert reason.faults == ()


def test_a_miss_is_told_from_a_hit() -> None:
    hits = {(cause.index, cause.value): cause.hit for cause in why(graph(), PORTS, "r3-port").reads}
    assert hits == {("service", "gone"): True, (None, "gone"): False, ("*", None): True}


def test_the_latest_causes_are_those_of_the_commit_that_changed_the_row() -> None:
    made = graph()
    made.commit({SERVICES: {"a": 81}})
    reason = why(made, PORTS, "r1-port")
    assert reason.changed == 2
    assert [(cause.table, cause.index, cause.value) for cause in reason.latest] == [
        ("services", None, "a"),
        ("services", "*", None),
    ]
    made.commit({ROUTES: {"r1": "gone"}})
    made.commit({SERVICES: {"gone": 1}})
    assert [(cause.table, cause.index, cause.value) for cause in why(made, PORTS, "r1-port").latest] == [
        ("services", None, "gone"),
        ("services", "*", None),
    ]
    assert why(made, PORTS, "r1-port").sources[0].changed == 3


def test_a_source_row_has_no_step() -> None:
    made = graph()
    made.commit({SERVICES: {"a": 81}})
    reason = why(made, SERVICES, "a")
    assert (reason.step, reason.changed, reason.sources, reason.reads, reason.latest) == ("", 2, (), (), ())


def test_an_absent_row_has_no_sequence() -> None:
    reason = why(graph(), PORTS, "nothing")
    assert reason.changed == 0
    assert reason.sources == (Cause("routes", None, "nothing", (), 0),)


def test_a_groups_sources_are_its_members() -> None:
    reason = why(graph(), HOSTS, "a")
    assert (reason.step, reason.unit) == ("Group", "a")
    assert [cause.value for cause in reason.sources] == ["r1", "r2"]


def test_a_unions_source_is_named_with_its_table() -> None:
    reason = why(graph(), ALL, ("hosts", "a"))
    assert (reason.step, reason.unit) == ("Union", ("hosts", "a"))
    assert reason.sources == (Cause("hosts", None, "a", ("a",), 1),)


def test_an_absent_row_of_a_union_is_explained_by_nothing() -> None:
    reason = why(graph(), ALL, ("elsewhere", "a"))
    assert (reason.changed, reason.sources, reason.reads) == (0, (), ())


def test_faults_are_those_of_the_row() -> None:
    made = graph()
    made.commit({ROUTES: {"r1": "bad", "r2": "bad"}})
    assert [fault.key for fault in why(made, PORTS, "r1-port").faults] == ["r1"]
    assert why(made, PORTS, "r1-port").changed == 1


def test_faults_of_a_sources_index_are_those_of_the_row() -> None:
    table: Table[str, int] = Table("inverse", indexes={"of": lambda _key, row: (1 // row,)})
    made = Graph(sources=[table], steps=[])
    made.commit({table: {"a": 0, "b": 0, "c": 1}})
    assert [fault.key for fault in why(made, table, "a").faults] == ["a"]
    assert why(made, table, "c").faults == ()


def test_a_dump_has_keys_and_wiring_and_no_rows() -> None:
    contents = dump(graph())
    assert list(contents) == ["routes", "services", "ports", "hosts", "all"]
    assert contents["routes"] == Contents(("r1", "r2", "r3"), ("service",), "", (), (), 0, ())
    assert contents["ports"] == Contents(
        ("r1-port", "r2-port", "r3-port"), ("port",), "Derived", ("routes",), ("routes", "services"), 9, ()
    )
    assert contents["all"].sources == ("services", "hosts")


def test_a_dump_has_faults() -> None:
    made = graph()
    made.commit({ROUTES: {"r1": "bad"}})
    assert [fault.key for fault in dump(made)["ports"].faults] == ["r1"]


def test_the_dot_text_has_every_table_step_and_read() -> None:
    assert dot(graph()).splitlines() == [
        "digraph engine {",
        "  rankdir=LR;",
        '  "routes" [shape=box, label="routes\\n3"];',
        '  "services" [shape=box, label="services\\n1"];',
        '  "ports" [shape=ellipse, label="ports\\n3"];',
        '  "routes" -> "ports" [label="Derived"];',
        '  "routes" -> "ports" [style=dashed];',
        '  "services" -> "ports" [style=dashed];',
        '  "hosts" [shape=ellipse, label="hosts\\n2"];',
        '  "routes" -> "hosts" [label="Group"];',
        '  "all" [shape=ellipse, label="all\\n3"];',
        '  "services" -> "all" [label="Union"];',
        '  "hosts" -> "all" [label="Union"];',
        "}",
    ]
