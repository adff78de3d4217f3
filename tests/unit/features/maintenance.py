"""A policy that closes routes for maintenance: requests to the targeted HTTPRoutes are denied."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import msgspec

from meshgw.api.meta import ApiStruct, Key, ObjectRef, Resource
from meshgw.api.registry import Kind
from meshgw.engine import Derived, Table, View
from meshgw.features import Feature, RouteScope, Stage
from meshgw.ir.finding import Finding
from meshgw.ir.keys import RouteKey
from meshgw.protos import HttpRbac, HttpRbacPerRoute, RbacRules
from meshgw.resolve.tables import PARENTS


class TargetRef(ApiStruct, frozen=True, kw_only=True):
    """An object of the policy's namespace."""

    kind: str
    name: str


class MaintenanceSpec(ApiStruct, frozen=True, kw_only=True):
    """What to close."""

    target_refs: tuple[TargetRef, ...]


class MaintenancePolicy(Resource, frozen=True, kw_only=True):
    """The policy's document."""

    spec: MaintenanceSpec


class Closed(msgspec.Struct, frozen=True):
    """What became of one policy."""

    routes: tuple[RouteKey, ...]
    findings: tuple[Finding, ...] = ()


def _routes(_key: Key, row: Closed) -> Iterable[Hashable]:
    return row.routes


POLICIES: Table[Key, MaintenancePolicy] = Table("maintenancepolicies")
CLOSED: Table[Key, Closed] = Table("closed", indexes={"route": _routes})


def resolve(view: View, key: Key, policy: MaintenancePolicy) -> Iterable[tuple[Key, Closed]]:
    """Return the routes that a policy closes, and a finding for each target that is none of ours."""
    routes, findings = [], []
    for index, ref in enumerate(policy.spec.target_refs):
        route = RouteKey(ref.kind, key.namespace, ref.name)
        if view.by(PARENTS, "route", route):
            routes.append(route)
        else:
            about, where = ObjectRef("MaintenancePolicy", *key), f"spec.targetRefs[{index}]"
            findings.append(Finding(code="MG4005", object=about, field=where, message=f"no route {ref.name} of ours"))
    yield key, Closed(tuple(routes), tuple(findings))


def configure(scope: RouteScope) -> HttpRbacPerRoute | None:
    """Deny every request of a closed route."""
    if not scope.view.by(CLOSED, "route", scope.route):
        return None
    return HttpRbacPerRoute(rbac=HttpRbac(rules=RbacRules(action=RbacRules.ALLOW)))


MAINTENANCE = Feature(
    name="maintenance",
    stage=Stage.AUTHORIZATION,
    filter_name="example.maintenance",
    inert=HttpRbac,
    configure=configure,
    kinds=(
        Kind(
            name="MaintenancePolicy",
            group="example.dev",
            versions=("v1",),
            plural="maintenancepolicies",
            struct=MaintenancePolicy,
            optional=True,
        ),
    ),
    facts={"MaintenancePolicy": POLICIES},
    steps=(Derived(CLOSED, source=POLICIES, fn=resolve),),
    findings=(CLOSED,),
)
