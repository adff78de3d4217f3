"""Seen objects become batches; what cannot be read keeps its last good version and is told."""

from __future__ import annotations

from meshgw.api.meta import ObjectRef
from meshgw.cluster.facts import ClusterFacts
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Settings
from meshgw.kube.seen import Observed, Seen
from meshgw.resolve import tables as t
from tests.unit.cluster.world import gone, kind, objects, seen

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {}
"""


def test_what_is_seen_is_taken_once_and_the_newest_counts() -> None:
    facts = ClusterFacts()
    (first,), (second,) = objects(SERVICE), objects(SERVICE.replace("80", "81"))
    facts.see(kind("Service"), [seen(first)])
    facts.see(kind("Service"), [seen(second, version="2")])
    assert facts.changed.is_set()
    assert facts.peek(t.SERVICES, t.GATEWAYS) == {t.SERVICES: {second.key: second}}
    assert facts.take() == {t.SERVICES: {second.key: second}}
    assert not facts.changed.is_set()
    assert facts.take() == {}
    facts.see(kind("Service"), [gone(second.key)])
    assert facts.take() == {t.SERVICES: {second.key: None}}


def test_other_facts_and_what_moves_gateways_ask_for_a_commit_too() -> None:
    facts = ClusterFacts()
    facts.put(t.SETTINGS, t.SINGLE, Settings(mesh=True))
    assert facts.changed.is_set()
    assert (facts.moved, facts.take()) == (False, {t.SETTINGS: {t.SINGLE: Settings(mesh=True)}})
    facts.poke()
    assert facts.changed.is_set()
    assert facts.moved
    assert facts.take() == {}
    assert not facts.moved


def test_what_cannot_be_read_stays_as_it_was_and_is_a_finding_until_it_can() -> None:
    facts = ClusterFacts()
    (route,) = objects(ROUTE)
    facts.see(kind("HTTPRoute"), [seen(route)])
    facts.take()
    problem = Finding(code="MG9102", object=ObjectRef("HTTPRoute", "shop", "web"), message="what?")
    unreadable = Seen(route.key, None, Observed(uid="u", resource_version="2", generation=2), (problem,))
    facts.see(kind("HTTPRoute"), [unreadable])
    assert (facts.take(), facts.problems()) == ({}, [problem])
    facts.see(kind("HTTPRoute"), [seen(route, version="3")])
    assert facts.problems() == []
    facts.see(kind("HTTPRoute"), [unreadable])
    facts.see(kind("HTTPRoute"), [gone(route.key)])
    assert facts.problems() == []


def test_what_is_wrong_with_no_fact_is_told_until_something_else_is_said_of_it() -> None:
    facts = ClusterFacts()
    finding = Finding(code="MG5007", object=ObjectRef("ConfigMap", "istio-system", "istio"), message="is gone")
    facts.tell("mesh", [finding])
    facts.tell("roots", [])
    assert facts.problems() == [finding]
    facts.tell("mesh", [])
    assert facts.problems() == []
