"""Documents from tables: plain values, stable order, nothing secret."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec
import pytest

from meshgw.api.meta import Key, ObjectRef
from meshgw.diagnose.render import (
    RESOLVED,
    _plain,
    name_key,
    render_findings,
    render_proxies,
    render_resolved,
    render_statuses,
)
from meshgw.ir.finding import Finding
from meshgw.ir.keys import BackendTarget, ListenerKey
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from meshgw.standalone.facts import read_text
from tests.unit.emit.deployed import deploy, gateway, waypoint

TEXT = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: meshgw, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: absent, port: 80}]}]}
"""


class Colour(StrEnum):
    RED = "red"


class Place(NamedTuple):
    namespace: str
    name: str


class Thing(msgspec.Struct, frozen=True):
    colour: Colour = Colour.RED
    place: Place | None = None
    things: tuple[str, ...] = ()
    text: bytes = b""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Thing(), {}),
        (Thing(place=Place("a", "")), {"place": "a/-"}),
        (Thing(things=("b", "a")), {"things": ["b", "a"]}),
        (Thing(text=b"x"), {"text": "x"}),
        ((Colour.RED, 1, None), ["red", 1, None]),
    ],
)
def test_values_are_plain_and_defaults_left_out(value: object, expected: object) -> None:
    assert _plain(value) == expected


def test_a_key_is_a_path_whose_empty_parts_keep_their_place() -> None:
    listener = ListenerKey(Key("ns", "gw"), "Gateway", Key("ns", "gw"), "http")
    assert name_key(listener) == "ns/gw/Gateway/ns/gw/http"
    assert name_key(BackendTarget("Service", "ns", "app", 80)) == "Service/ns/app/80/-"


def test_resolved_tables_with_rows_are_shown_without_what_other_outputs_show() -> None:
    graph = build_graph()
    graph.commit(read_text(TEXT)[0])
    document = render_resolved(graph)
    assert list(document) == [table.name for table in RESOLVED if table.name in document]
    assert document["routes"]["HTTPRoute/default/route"]["refs"] == "BackendNotFound"
    assert not {"conditions", "findings", "key"} & document["routes"]["HTTPRoute/default/route"].keys()
    assert "endpoints" not in document


def test_statuses_are_in_order_and_name_their_object() -> None:
    graph = build_graph()
    graph.commit(read_text(TEXT)[0])
    found = [(item["kind"], item.get("namespace"), item["name"]) for item in render_statuses(graph)]
    assert found == sorted(found, key=lambda item: (item[0], item[1] or "", item[2]))
    assert {("Gateway", "default", "gw"), ("GatewayClass", None, "meshgw")} <= set(found)


def test_findings_are_sorted_without_repeats_and_have_their_level() -> None:
    graph = build_graph()
    graph.commit(read_text(TEXT)[0])
    own = next(iter(graph.rows(t.FINDINGS).values()))
    other = Finding(code="MG9105", object=ObjectRef("Gateway", "default", "a"), message="unknown")
    written = render_findings(graph, (other, own, own))
    assert [(item["code"], item["level"]) for item in written] == [("MG9105", "warning"), ("MG2001", "error")]
    assert written[1] == {
        "code": "MG2001",
        "level": "error",
        "object": "HTTPRoute default/route",
        "field": "spec.rules[0].backendRefs[0]",
        "message": "Service default/absent does not exist",
    }


def test_no_resolved_table_holds_key_material() -> None:
    assert not {t.CERTIFICATES, t.BUNDLES, t.WORKLOAD_CERTIFICATES, t.SECRETS} & set(RESOLVED)


def test_objects_of_proxies_are_one_list_gateway_by_gateway_in_the_order_of_their_making() -> None:
    graph = deploy(gateway("b"), gateway("a"), waypoint(name="c")).graph
    items = render_proxies(graph)["items"]
    kinds = ["ServiceAccount", "ConfigMap", "Deployment", "Service"]
    assert [item["kind"] for item in items] == kinds * 3
    assert [item["metadata"]["name"] for item in items[::4]] == ["a-meshgw", "b-meshgw", "c-meshgw-waypoint"]
    assert list(items[0])[:3] == ["apiVersion", "kind", "metadata"]
    chosen = render_proxies(graph, [Key("default", "b")])
    assert {item["metadata"]["name"] for item in chosen["items"]} == {"b-meshgw"}
