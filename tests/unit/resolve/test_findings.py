"""Findings gathered from the rows of several tables."""

from __future__ import annotations

import msgspec

from meshgw.api.meta import ObjectRef
from meshgw.engine import Graph, Table, Union
from meshgw.ir.finding import Finding
from meshgw.ir.keys import RouteKey
from meshgw.ir.route import Route
from meshgw.resolve import tables as t
from meshgw.resolve.findings import gather_findings

ABOUT = ObjectRef("Gateway", "default", "gw")


class Row(msgspec.Struct, frozen=True):
    findings: tuple[Finding, ...] = ()


ONE: Table[str, Row] = Table("one")
TWO: Table[str, Row] = Table("two")


def finding(message: str, about: ObjectRef = ABOUT) -> Finding:
    return Finding(code="MG1001", object=about, message=message)


def graph() -> Graph:
    sources = (ONE, TWO, t.ROUTES, t.PARENTS)
    return Graph(sources=sources, steps=(Union(t.FINDINGS, sources=sources[:3], fn=gather_findings),))


def messages(found: Graph) -> list[str]:
    return [row.message for _key, row in found.by(t.FINDINGS, "object", ABOUT)]


def test_findings_of_several_rows_and_tables_about_one_object_stay_apart() -> None:
    built = graph()
    built.commit(
        {ONE: {"a": Row((finding("1"), finding("2"))), "b": Row((finding("1"),))}, TWO: {"a": Row((finding("3"),))}}
    )
    assert sorted(messages(built)) == ["1", "1", "2", "3"]


def test_a_row_that_has_no_more_to_say_takes_its_findings_along() -> None:
    built = graph()
    built.commit({ONE: {"a": Row((finding("1"),)), "b": Row()}})
    built.commit({ONE: {"a": Row()}})
    assert messages(built) == []


def test_a_route_of_another_controller_is_not_spoken_of() -> None:
    built, key = graph(), RouteKey("HTTPRoute", "default", "route")
    built.commit({t.ROUTES: {key: Route(key=key, findings=(finding("1"),))}})
    assert messages(built) == []
