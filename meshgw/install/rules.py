"""What the controller may do in a cluster: RBAC rules, derived from the registry of kinds.

The manifests, the chart and `meshgw check` are all made from `rules` and `grants`, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from meshgw.api.registry import Kind

NAME: Final = "meshgw"
"""Name of the ServiceAccount, Deployment, Service, Lease and of the first ClusterRole."""
HOME: Final = "meshgw-system"
"""The namespace of an installation that does not say otherwise."""

XDS_SECRETS: Final = ("meshgw-xds-ca", "meshgw-xds-tls")
"""Secrets of the controller's namespace: the CA of its xDS server, and a certificate that others may put there."""

SECRET: Final = "Secret"  # noqa: S105 - the name of a kind


class PolicyRule(Struct, frozen=True, order=True):
    """One rule of a Role: these verbs, on these resources of one API group ("" is the core), of these names or any."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()


class Reach(StrEnum):
    """Where a set of rules holds, and for what. The value is the suffix of its role's name."""

    CLUSTER = ""
    """Cluster-scoped objects: always everywhere."""
    NAMESPACED = "namespaced"
    """All that is read and written in served namespaces, but for Secrets."""
    SECRETS = "secrets"
    """Certificates and keys of listeners and backends."""
    HOME = "home"
    """The controller's own namespace: its Lease and the CA of its xDS server."""
    MESH = "mesh"
    """Istio's own namespace: its mesh configuration and roots, and what holds for all namespaces from there.

    Needed only where it is not a served namespace.
    """

    @property
    def role(self) -> str:
        """The name of the ClusterRole or Role."""
        return f"{NAME}-{self.value}" if self.value else NAME


class Scope(Struct, frozen=True, kw_only=True):
    """What an installation serves: all namespaces, or those named; and in which namespaces it may read Secrets."""

    namespaces: tuple[str, ...] = ()
    cluster_wide_secrets: bool = False
    secret_namespaces: tuple[str, ...] = ()
    """Besides `namespaces`, in which Secrets may always be read."""
    home: str = HOME
    mesh: str = "istio-system"


class Grant(Struct, frozen=True, order=True):
    """The rules of one reach, held in one namespace, or everywhere ("")."""

    reach: Reach
    namespace: str


_READ: Final = ("get", "list", "watch")
_OWN: Final = (*_READ, "create", "patch", "delete")

WRITTEN: Final[tuple[tuple[str, str], ...]] = (
    ("", "configmaps"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("policy", "poddisruptionbudgets"),
)
"""Group and plural of the objects of a proxy: watched, applied, and deleted when a Gateway no longer wants them."""


def rules(reach: Reach, kinds: Iterable[Kind]) -> tuple[PolicyRule, ...]:
    """Return what the controller needs within a reach, in a stable order; no rule says what another one says."""
    held: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for group, resource, verbs, names in _needed(reach, tuple(kinds)):
        held.setdefault((group, resource, names), set()).update(verbs)
    merged: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (group, resource, names), verbs in held.items():
        merged.setdefault((group, _ordered(verbs), names), []).append(resource)
    return tuple(
        sorted(
            PolicyRule(group=group, resources=tuple(sorted(resources)), verbs=verbs, names=names)
            for (group, verbs, names), resources in merged.items()
        )
    )


def grants(scope: Scope) -> tuple[Grant, ...]:
    """Return where each set of rules holds in an installation of that scope."""
    found = [Grant(Reach.CLUSTER, ""), Grant(Reach.HOME, scope.home)]
    found += [Grant(Reach.NAMESPACED, namespace) for namespace in scope.namespaces or ("",)]
    readable = ("",) if scope.cluster_wide_secrets else (*scope.namespaces, *scope.secret_namespaces)
    found += [Grant(Reach.SECRETS, namespace) for namespace in readable]
    if scope.namespaces and scope.mesh not in scope.namespaces:
        found.append(Grant(Reach.MESH, scope.mesh))
    return tuple(sorted(set(found)))


_Need = tuple[str, str, Iterable[str], tuple[str, ...]]
"""Group, resource, verbs and, if it is about certain objects only, their names."""


def _needed(reach: Reach, kinds: tuple[Kind, ...]) -> Iterable[_Need]:
    match reach:
        case Reach.CLUSTER:
            yield from _of_kinds(kind for kind in kinds if not kind.namespaced)
            yield "apiextensions.k8s.io", "customresourcedefinitions", _READ, ()
            yield "authentication.k8s.io", "tokenreviews", ("create",), ()
        case Reach.NAMESPACED:
            yield from _of_kinds(kind for kind in kinds if kind.namespaced and kind.name != SECRET)
            for group, resource in WRITTEN:
                yield group, resource, _OWN, ()
            yield "", "serviceaccounts/token", ("create",), ()
            yield "events.k8s.io", "events", ("create", "patch"), ()
        case Reach.SECRETS:
            yield from _of_kinds(kind for kind in kinds if kind.name == SECRET)
        case Reach.HOME:
            yield "", "configmaps", _READ, ()
            yield "", "secrets", ("create",), ()
            yield "", "secrets", ("get", "update"), XDS_SECRETS
            yield "coordination.k8s.io", "leases", ("get", "create", "patch"), ()
        case Reach.MESH:
            yield "", "configmaps", _READ, ()
            yield from _of_kinds(kind for kind in kinds if kind.rooted)


def _of_kinds(kinds: Iterable[Kind]) -> Iterable[_Need]:
    """Turn the verbs of the registry into needs: "patch status" is the verb patch on the subresource."""
    for kind in kinds:
        for verb in kind.verbs:
            word, _, subresource = verb.partition(" ")
            resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
            yield kind.group, resource, (word,), ()


_VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete")


def _ordered(verbs: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(verbs, key=_VERBS.index))
