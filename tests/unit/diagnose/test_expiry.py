"""Certificates that have expired."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from meshgw.diagnose.expiry import find_expired
from meshgw.engine import Graph
from meshgw.pipeline import build_graph
from meshgw.standalone.facts import read_text
from tests.rig.certs import Leaf, authority

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: meshgw
  listeners: [{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: used}]}}]
---
"""


@pytest.fixture(scope="module")
def leaf() -> Leaf:
    return authority().issue("a.example.com")


@pytest.fixture
def graph(leaf: Leaf) -> Graph:
    documents = "\n---\n".join(json.dumps(leaf.secret(name)) for name in ("used", "idle"))
    facts, problems = read_text(GATEWAY + documents)
    assert not problems
    built = build_graph()
    built.commit(facts)
    return built


def end_of(leaf: Leaf) -> datetime:
    return leaf.certificate.not_valid_after_utc


def test_a_certificate_that_is_in_use_and_expired_is_found(graph: Graph, leaf: Leaf) -> None:
    (finding,) = find_expired(graph, end_of(leaf).timestamp())
    assert (finding.code, str(finding.object)) == ("MG3003", "Secret default/used")
    assert f"{end_of(leaf):%Y-%m-%dT%H:%M:%SZ}" in finding.message


def test_a_certificate_that_is_valid_is_not(graph: Graph, leaf: Leaf) -> None:
    assert find_expired(graph, end_of(leaf).timestamp() - 1) == []
