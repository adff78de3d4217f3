"""What stands for policies that cannot be decoded."""

from __future__ import annotations

from typing import Any

import pytest

from meshgw.api.decode import decode
from meshgw.api.istio import AuthorizationPolicy
from meshgw.api.meta import Key, StrictResource
from meshgw.api.policy import BackendTLSPolicy
from meshgw.api.registry import REGISTRY

SERVICE = {"group": "", "kind": "Service", "name": "a"}


def stand_in(kind: str, spec: Any, **more: Any) -> StrictResource | None:
    known = REGISTRY.by_name(kind)
    assert known is not None
    document = {"apiVersion": known.api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec}
    decoded = decode(document | more)
    assert decoded.object is None
    return decoded.stand_in


def authorization(spec: Any, **more: Any) -> AuthorizationPolicy:
    row = stand_in("AuthorizationPolicy", spec, **more)
    assert isinstance(row, AuthorizationPolicy)
    return row


def backend_tls(spec: Any) -> BackendTLSPolicy:
    row = stand_in("BackendTLSPolicy", spec)
    assert isinstance(row, BackendTLSPolicy)
    return row


def test_it_has_the_identity_and_the_targets_of_the_document_and_says_why() -> None:
    row = authorization({"targetRefs": [SERVICE], "rules": "all"})
    assert row.key == Key("default", "p")
    assert [ref.name for ref in row.spec.target_refs] == ["a"]
    assert row.unreadable == "cannot be read (spec.rules: Expected `array`, got `str`)"
    assert row.unknown_target is None


def test_a_document_writes_no_lines_of_its_own_through_it() -> None:
    row = authorization({"rules": 7}, metadata={"name": "a\nb"})
    assert row.metadata.name == "a\\nb"
    assert authorization({"action": "a\nb"}).unreadable.isprintable()


def test_a_single_target_counts_too() -> None:
    row = authorization({"targetRef": SERVICE, "targetRefs": [SERVICE | {"name": "b"}], "action": "SHRUG"})
    assert [ref.name for ref in row.spec.target_refs] == ["a", "b"]


@pytest.mark.parametrize(
    "spec",
    [
        "text",
        {"targetRefs": 7},
        {"targetRefs": [7]},
        {"targetRefs": [{"kind": "Service"}]},
        {"targetRefs": [SERVICE | {"nmae": "b"}], "rules": 7},
        {"targets": [SERVICE], "rules": 7},
    ],
)
def test_targets_that_cannot_be_read_are_all_unknown(spec: Any) -> None:
    for row in (authorization(spec), backend_tls(spec)):
        assert row.unknown_target
        assert row.spec.target_refs == ()


def test_without_targets_an_authorization_policy_is_the_business_of_others() -> None:
    row = authorization({"selector": {"matchLabels": {"app": "a"}}, "rules": 7})
    assert (row.spec.target_refs, row.unknown_target) == ((), None)


def test_without_targets_a_backend_tls_policy_may_mean_any_service() -> None:
    assert backend_tls({"validation": {"hostname": 7}}).unknown_target


def test_a_backend_tls_policy_keeps_its_targets() -> None:
    row = backend_tls({"targetRefs": [SERVICE | {"sectionName": "https"}], "validation": {"hostname": 7}})
    assert [(ref.name, ref.section_name) for ref in row.spec.target_refs] == [("a", "https")]
    assert row.unknown_target is None
    assert "spec.validation.hostname" in row.unreadable


def test_a_version_that_is_not_served_is_stood_for() -> None:
    row = authorization({"targetRefs": [SERVICE]}, apiVersion="security.istio.io/v9")
    assert [ref.name for ref in row.spec.target_refs] == ["a"]
    assert "security.istio.io/v9" in row.unreadable


def test_other_kinds_and_what_has_no_name_may_be_absent() -> None:
    assert stand_in("HTTPRoute", {"rules": 7}) is None
    assert stand_in("AuthorizationPolicy", {"rules": 7}, metadata={}) is None


def test_a_document_cannot_say_itself_that_it_stands_for_another() -> None:
    document = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "p"}}
    decoded = decode({**document, "unreadable": "x", "unknownFields": ["spec.target"]})
    assert isinstance(decoded.object, AuthorizationPolicy)
    assert (decoded.object.unreadable, decoded.object.unknown_fields) == ("", ())


@pytest.mark.parametrize(
    ("field", "unknown"),
    [("spec.targetRefs[0].x", False), ("spec.targetRef", True), ("spec.validation.x", False)],
)
def test_what_is_unknown_inside_of_a_reference_leaves_its_service_known(field: str, *, unknown: bool) -> None:
    row = backend_tls({"validation": 7})
    again = BackendTLSPolicy(metadata=row.metadata, spec=row.spec, unknown_fields=(field,))
    assert bool(again.unknown_target) is unknown
