"""Manifests as data: roles, bindings and GatewayClasses of an installation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from meshgw import names
from meshgw.api.gateway import GATEWAY_GROUP
from meshgw.api.registry import Kind
from meshgw.install.rules import NAME, Grant, PolicyRule, Reach, Scope, grants, rules

Document = dict[str, Any]

LABELS: Final = {
    "app.kubernetes.io/name": NAME,
    "app.kubernetes.io/component": "controller",
    "app.kubernetes.io/part-of": NAME,
}
"""Labels of everything that is installed."""

RBAC: Final = "rbac.authorization.k8s.io"

CLASSES: Final = (
    (names.CLASS_INGRESS, "ingress", "Traffic from outside into the mesh, on stock Envoy."),
    (names.CLASS_EGRESS, "egress", "Traffic from the mesh to the outside, on stock Envoy."),
    (names.CLASS_WAYPOINT, "waypoint", "Traffic within the mesh, over HBONE, on stock Envoy."),
)
"""Name, role and description of the classes that are installed."""


def role_documents(scope: Scope, kinds: Iterable[Kind]) -> list[Document]:
    """Return roles, then bindings. The role for Secrets is there even where nothing binds it: people may."""
    known = tuple(kinds)
    held = grants(scope)
    cluster = (Reach.CLUSTER, Reach.NAMESPACED, Reach.SECRETS)
    local = [grant for grant in held if grant.reach not in cluster]
    return [
        *(_role(reach, "", rules(reach, known)) for reach in cluster),
        *(_role(grant.reach, grant.namespace, rules(grant.reach, known)) for grant in local),
        *(_binding(grant, scope.home, is_cluster_role=grant.reach in cluster) for grant in held),
    ]


def class_documents() -> list[Document]:
    """Return the GatewayClasses; labels state roles, so that a class tells what it is without knowing its name."""
    found = []
    for name, role, description in CLASSES:
        labels = {**LABELS, names.LABEL_ROLE: role}
        if role == "waypoint":
            labels[names.LABEL_WAYPOINT_FOR] = "service"
        found.append(
            {
                "apiVersion": f"{GATEWAY_GROUP}/v1",
                "kind": "GatewayClass",
                "metadata": {"name": name, "labels": labels},
                "spec": {"controllerName": names.CONTROLLER_NAME, "description": description},
            }
        )
    return found


def render_rules(held: Iterable[PolicyRule]) -> list[Document]:
    """Return rules as a Role has them."""
    return [
        {"apiGroups": [rule.group], "resources": list(rule.resources), "verbs": list(rule.verbs)}
        | ({"resourceNames": list(rule.names)} if rule.names else {})
        for rule in held
    ]


def _role(reach: Reach, namespace: str, held: Iterable[PolicyRule]) -> Document:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": _metadata(reach.role, namespace),
        "rules": render_rules(held),
    }


def _binding(grant: Grant, home: str, *, is_cluster_role: bool) -> Document:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding" if grant.namespace else "ClusterRoleBinding",
        "metadata": _metadata(grant.reach.role, grant.namespace),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole" if is_cluster_role else "Role", "name": grant.reach.role},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": home}],
    }


def _metadata(name: str, namespace: str) -> Document:
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": dict(LABELS)}
