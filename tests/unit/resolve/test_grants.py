from __future__ import annotations

import pytest

from meshgw.api.meta import Key
from meshgw.engine import Graph
from meshgw.resolve import tables as t
from meshgw.resolve.grants import kind_name, permitted
from tests.unit.resolve.graph import change, grant, resolve

GATEWAY_API = "gateway.networking.k8s.io"
TARGET = Key("b", "x")


def asks(
    graph: Graph, *, kind: str = "Gateway", namespace: str = "default", to_kind: str = "Secret", to: Key = TARGET
) -> bool:
    return permitted(graph, group=GATEWAY_API, kind=kind, namespace=namespace, to_group="", to_kind=to_kind, to=to)


def test_inside_a_namespace_everything_is_permitted() -> None:
    assert asks(resolve(""), to=Key("default", "x"))


def test_across_namespaces_nothing_is_permitted_without_a_grant() -> None:
    assert not asks(resolve(""))


def test_a_grant_for_all_permits_every_name() -> None:
    graph = resolve(grant("b", kind="Gateway", source="default"))
    assert asks(graph)
    assert asks(graph, to=Key("b", "y"))


def test_a_grant_for_one_name_permits_that_one() -> None:
    graph = resolve(grant("b", kind="Gateway", source="default", name="x"))
    assert asks(graph)
    assert not asks(graph, to=Key("b", "y"))


@pytest.mark.parametrize(
    "text",
    [
        grant("default", kind="Gateway", source="default"),
        grant("c", kind="Gateway", source="default"),
        grant("b", kind="HTTPRoute", source="default"),
        grant("b", kind="ListenerSet", source="default"),
        grant("b", kind="Gateway", source="c"),
        grant("b", kind="Gateway", source="default", to="ConfigMap"),
        grant("b", kind="Gateway", source="default").replace(GATEWAY_API, "example.com"),
        grant("b", kind="Gateway", source="default").replace("group: ''", "group: apps"),
        grant("b", kind="Gateway", source="b") + grant("b", kind="HTTPRoute", source="default"),
    ],
)
def test_a_grant_that_differs_in_one_point_permits_nothing(text: str) -> None:
    assert not asks(resolve(text))


def test_a_withdrawn_grant_permits_nothing() -> None:
    graph = resolve(grant("b", kind="Gateway", source="default"))
    ((key, _row),) = graph.rows(t.REFERENCE_GRANTS).items()
    change(graph, facts={t.REFERENCE_GRANTS: {key: None}})
    assert not asks(graph)


def test_messages_name_a_kind_with_its_group_unless_it_is_a_core_one() -> None:
    assert kind_name("", "Secret") == "Secret"
    assert kind_name("example.com", "Secret") == "example.com/Secret"
