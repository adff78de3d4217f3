from __future__ import annotations

import itertools

import pytest

from meshgw.resolve import tables as t
from tests.unit.resolve.graph import (
    ADMIT_ALL,
    GOOD,
    HTTP,
    certificate,
    change,
    codes,
    grant,
    gw,
    listener,
    listener_set,
    lset,
    resolve,
    secret,
    shown,
)


def names_of(text: str) -> list[str]:
    rows = resolve(text).rows(t.LISTENERS).values()
    return [row.key.name for row in sorted(rows, key=lambda row: row.precedence)]


def test_listener_sets_are_refused_unless_admitted() -> None:
    for rule in ("", "  allowedListeners: {namespaces: {from: None}}".replace("None", "'None'")):
        graph = resolve(gw(HTTP, extra=rule) + lset("more", "name: a, port: 81, protocol: HTTP"))
        row = listener_set(graph, "more")
        assert not row.accepted
        assert shown(row.conditions) == {"Accepted": "False/NotAllowed", "Programmed": "False/NotAllowed"}
        assert codes(row.findings) == ["MG1007"]
        assert {condition.observed_generation for condition in row.conditions} == {9}
        assert len(graph.rows(t.LISTENERS)) == 1


SELECTOR = """
  allowedListeners:
    namespaces: {from: Selector, selector: {matchExpressions: [{key: team, operator: In, values: [a, b]}]}}
"""


@pytest.mark.parametrize(
    ("rule", "namespace", "admitted"),
    [
        ("  allowedListeners: {namespaces: {from: Same}}", "default", True),
        ("  allowedListeners: {namespaces: {from: Same}}", "team", False),
        (ADMIT_ALL, "team", True),
        (SELECTOR, "team", True),
        (SELECTOR, "default", False),
        ("  allowedListeners: {namespaces: {from: Selector}}", "team", False),
    ],
)
def test_admission_of_listener_sets_by_namespace(rule: str, namespace: str, admitted: bool) -> None:  # noqa: FBT001
    team = "---\n{kind: Namespace, metadata: {name: team, labels: {team: a}}}\n"
    entry = "name: a, port: 81, protocol: HTTP"
    graph = resolve(gw(HTTP, extra=rule) + lset("more", entry, namespace=namespace) + team)
    row = listener_set(graph, "more", namespace)
    assert row.accepted is admitted
    if admitted:
        assert shown(row.conditions) == {"Accepted": "True/Accepted", "Programmed": "True/Programmed"}
        found = listener(graph, "a", owner=f"{namespace}/more")
        assert shown(found.conditions) == GOOD
        assert {condition.observed_generation for condition in found.conditions} == {9}


def test_listener_sets_of_other_parents_are_not_ours() -> None:
    text = gw(HTTP, extra=ADMIT_ALL) + lset("odd", HTTP, parent=", kind: Other, group: example.com")
    graph = resolve(text + lset("lost", HTTP).replace("name: gw", "name: absent"))
    assert not graph.rows(t.LISTENER_SET_RESULTS)
    assert len(graph.rows(t.LISTENERS)) == 1


def test_a_listener_set_of_an_unserved_gateway_waits() -> None:
    entry = "name: a, port: 81, protocol: HTTP"
    for head in (
        gw("name: odd, port: 80, protocol: SCTP", extra=ADMIT_ALL),
        gw(HTTP, extra=ADMIT_ALL + "\n  infrastructure: {parametersRef: {group: x.io, kind: Thing, name: a}}"),
    ):
        graph = resolve(head + lset("more", entry))
        row = listener_set(graph, "more")
        assert shown(row.conditions) == {
            "Accepted": "False/ParentNotAccepted",
            "Programmed": "False/ParentNotAccepted",
        }
        assert not listener(graph, "a", owner="default/more").serving


def test_precedence_is_gateway_then_age_then_name() -> None:
    entry = "name: {}, port: 81, protocol: HTTP, hostname: {}.io"
    sets = [
        lset("b", entry.format("b", "b"), created="2026-01-02T00:00:00Z"),
        lset("a", entry.format("a", "a"), created="2026-01-02T00:00:00Z"),
        lset("z", entry.format("z", "z"), created="2026-01-01T00:00:00Z"),
    ]
    for order in itertools.permutations(sets):
        assert names_of(gw(HTTP, extra=ADMIT_ALL) + "".join(order)) == ["http", "z", "a", "b"]


def conflict_text(kind: str) -> str:
    """Two own listeners, and sets whose entries clash with them or with each other."""

    def clash(name: str) -> str:
        rest = f"HTTP, hostname: {name}.com" if kind == "hostname" else "TCP"
        return f"name: {name}, port: 80, protocol: {rest}"

    def fine(name: str) -> str:
        return f"name: {name}, port: 80, protocol: HTTP, hostname: {name}.com"

    return (
        gw(fine("own"), fine("with-gw"), extra=ADMIT_ALL)
        + lset("gw-1", fine("one"), clash("with-gw"), fine("with-ls"))
        + lset("gw-2", clash("with-gw"))
        + lset("ls-1", fine("two"), clash("with-ls"))
        + lset("ls-2", clash("with-ls"))
    )


@pytest.mark.parametrize(("kind", "reason"), [("hostname", "HostnameConflict"), ("protocol", "ProtocolConflict")])
def test_listener_sets_lose_to_what_has_precedence(kind: str, reason: str) -> None:
    graph = resolve(conflict_text(kind))
    bad = {"Accepted": f"False/{reason}", "Conflicted": f"True/{reason}", "Programmed": f"False/{reason}"}
    losers = {("gw-1", "with-gw"), ("gw-2", "with-gw"), ("ls-1", "with-ls"), ("ls-2", "with-ls")}
    for key, row in graph.rows(t.LISTENERS).items():
        assert shown(row.conditions) == (GOOD | bad if (key.owner.name, key.name) in losers else GOOD)
    found = {name: shown(listener_set(graph, name).conditions) for name in ("gw-1", "gw-2", "ls-1", "ls-2")}
    partly = {"Accepted": "True/ListenersNotValid", "Programmed": "True/Programmed"}
    none = {"Accepted": "False/ListenersNotValid", "Programmed": "False/ListenersNotValid"}
    assert found == {"gw-1": partly, "gw-2": none, "ls-1": partly, "ls-2": none}


def test_certificates_of_a_listener_set_belong_to_its_namespace_and_its_own_grants() -> None:
    near = f"name: near, port: 443, protocol: HTTPS, hostname: a.io, {certificate()}"
    far = f"name: far, port: 443, protocol: HTTPS, hostname: b.io, {certificate('{name: cert, namespace: vault}')}"
    text = gw(HTTP, extra=ADMIT_ALL) + lset("more", near, far, namespace="team")
    text += secret("cert", "team") + secret("cert", "vault") + grant("vault", kind="Gateway", source="team")
    graph = resolve(text)
    assert listener(graph, "near", owner="team/more").serving
    refused = listener(graph, "far", owner="team/more")
    assert shown(refused.conditions)["ResolvedRefs"] == "False/RefNotPermitted"
    change(graph, grant("vault", kind="ListenerSet", source="team"))
    assert listener(graph, "far", owner="team/more").serving


def test_a_listener_set_whose_only_listener_lacks_a_reference_is_not_accepted() -> None:
    entry = f"name: a, port: 443, protocol: HTTPS, {certificate('{name: cert, namespace: vault}')}"
    graph = resolve(gw(HTTP, extra=ADMIT_ALL) + lset("more", entry))
    assert shown(listener_set(graph, "more").conditions) == {
        "Accepted": "False/ListenersNotValid",
        "Programmed": "False/ListenersNotValid",
    }


def test_the_order_of_documents_changes_nothing() -> None:
    documents = [gw(HTTP, extra=ADMIT_ALL), *conflict_text("hostname").split("---")[1:]]
    rows = [
        {table: dict(graph.rows(table)) for table in (t.LISTENERS, t.LISTENER_SET_RESULTS)}
        for order in (documents, documents[::-1])
        for graph in [resolve("---".join(order))]
    ]
    assert rows[0] == rows[1]
