from __future__ import annotations

from pathlib import Path

import pytest

from meshgw.api.istio import AuthorizationPolicy
from meshgw.api.meta import ObjectRef
from meshgw.api.registry import REGISTRY
from meshgw.files.guess import UNNAMED, guess_policies
from meshgw.files.load import Loader

BROKEN = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: shut, namespace: shop}
spec: [
"""
LIST = """kind: List
items:
- kind: AuthorizationPolicy
  metadata: {name: a}
- kind: AuthorizationPolicy
  metadata: {name: b, namespace: c}
  spec: [
"""


def guessed(text: str) -> list[ObjectRef]:
    return [found.ref for found in guess_policies(text, REGISTRY)]


@pytest.mark.parametrize(
    ("text", "refs"),
    [
        (BROKEN, [("AuthorizationPolicy", "shop", "shut")]),
        ("kind: AuthorizationPolicy\nmetadata:\n  name: a\nspec: {", [("AuthorizationPolicy", "default", "a")]),
        ("kind: 'AuthorizationPolicy'\nspec: {", [("AuthorizationPolicy", "default", UNNAMED)]),
        ('{"kind": "BackendTLSPolicy", "metadata": {"name": "b"', [("BackendTLSPolicy", "default", "b")]),
        ('{\n  "kind": "BackendTLSPolicy",\n  "metadata": {"name": "b"', [("BackendTLSPolicy", "default", "b")]),
        (
            LIST,
            [("AuthorizationPolicy", "default", "a"), ("AuthorizationPolicy", "c", "b")],
        ),
        ("kind: HTTPRoute\nmetadata: {name: a}\nspec: [", []),
        ("kind: ReferenceGrant\nspec:\n  from:\n  - kind: BackendTLSPolicy\n  to: [", []),
        ("", []),
    ],
)
def test_policies_are_found_by_their_words(text: str, refs: list[tuple[str, str, str]]) -> None:
    assert guessed(text) == [ObjectRef(*ref) for ref in refs]


def test_a_policy_that_never_parsed_is_stood_for_until_it_parses(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(BROKEN)
    loader = Loader([tmp_path])
    loaded = loader.load()
    ref = ObjectRef("AuthorizationPolicy", "shop", "shut")
    assert isinstance(loaded.refused[ref], AuthorizationPolicy)
    assert loaded.refused[ref].unreadable
    assert [problem.code for problem in loaded.problems] == ["MG9101"]
    file.write_text(BROKEN.replace("[", "{action: ALLOW}"))
    loaded = loader.load()
    assert loaded.refused == {}
    assert ("AuthorizationPolicy", ref.key) in loaded.objects


def test_a_good_version_stays_when_the_text_breaks(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(BROKEN.replace("[", "{action: DENY}"))
    loader = Loader([tmp_path])
    loader.load()
    file.write_text(BROKEN)
    loaded = loader.load()
    assert loaded.changed == {}
    assert loaded.refused == {}
    assert len(loaded.objects) == 1
