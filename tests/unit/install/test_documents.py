"""Roles, bindings and classes as manifests."""

from __future__ import annotations

from typing import Any

from meshgw import names
from meshgw.api.registry import KINDS
from meshgw.install.documents import class_documents, role_documents
from meshgw.install.rules import XDS_SECRETS, Scope
from meshgw.resolve.classes import WELL_KNOWN, parse_role, parse_waypoint_for


def _named(documents: list[dict[str, Any]], kind: str) -> set[tuple[str, str]]:
    return {
        (document["metadata"].get("namespace", ""), document["metadata"]["name"])
        for document in documents
        if document["kind"] == kind
    }


def test_each_binding_names_a_role_that_is_there() -> None:
    for scope in (Scope(), Scope(namespaces=("a", "b")), Scope(cluster_wide_secrets=True)):
        documents = role_documents(scope, KINDS)
        for binding in (document for document in documents if document["kind"].endswith("Binding")):
            kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
            namespace = binding["metadata"].get("namespace", "") if kind == "Role" else ""
            assert (namespace, name) in _named(documents, kind)
            assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "meshgw", "namespace": "meshgw-system"}]


def test_in_all_namespaces_the_role_for_secrets_is_there_to_be_bound() -> None:
    documents = role_documents(Scope(), KINDS)
    assert ("", "meshgw-secrets") in _named(documents, "ClusterRole")
    assert _named(documents, "ClusterRoleBinding") == {("", "meshgw"), ("", "meshgw-namespaced")}
    assert _named(documents, "RoleBinding") == {("meshgw-system", "meshgw-home")}


def test_with_namespaces_only_cluster_scoped_objects_are_bound_everywhere() -> None:
    documents = role_documents(Scope(namespaces=("a", "b")), KINDS)
    assert _named(documents, "ClusterRoleBinding") == {("", "meshgw")}
    assert _named(documents, "RoleBinding") >= {(n, f"meshgw-{r}") for n in "ab" for r in ("namespaced", "secrets")}


def test_a_rule_about_named_objects_says_so() -> None:
    documents = role_documents(Scope(namespaces=("a",)), KINDS)
    (role,) = (found for found in documents if found["metadata"]["name"] == "meshgw-home" and "rules" in found)
    assert role["metadata"]["namespace"] == "meshgw-system"
    assert [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule] == [list(XDS_SECRETS)]


def test_classes_are_the_well_known_ones_with_their_roles() -> None:
    classes = {document["metadata"]["name"]: document for document in class_documents()}
    assert set(classes) == set(WELL_KNOWN)
    for name, role in WELL_KNOWN.items():
        labels = classes[name]["metadata"]["labels"]
        assert parse_role(labels[names.LABEL_ROLE]) is role
        assert classes[name]["spec"]["controllerName"] == names.CONTROLLER_NAME
    waypoint = classes[names.CLASS_WAYPOINT]["metadata"]["labels"]
    assert parse_waypoint_for(waypoint[names.LABEL_WAYPOINT_FOR]) is not None
