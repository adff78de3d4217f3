"""A policy that closes routes for maintenance: requests to the targeted HTTPRoutes and Gateways are denied."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import msgspec

from meshgw.api.meta import ApiStruct, Key, ObjectRef, Resource
from meshgw.api.registry import Kind
from meshgw.engine import Derived, Table, View
from meshgw.features import Feature, RouteFilter, RouteScope, Slot
from meshgw.ir.finding import Finding
from meshgw.ir.keys import RouteConfigKey
from meshgw.protos import HttpRbac, HttpRbacPerRoute, RbacRules
from meshgw.resolve.tables import OUR_GATEWAYS, PARENTS


class TargetRef(ApiStruct, frozen=True, kw_only=True):
    """An object of the policy's namespace."""

    kind: str
    name: str


class MaintenanceSpec(ApiStruct, frozen=True, kw_only=True):
    """What to close: HTTPRoutes, or Gateways with all that is behind them."""

    target_refs: tuple[TargetRef, ...]


class MaintenancePolicy(Resource, frozen=True, kw_only=True):
    """The policy's document."""

    spec: MaintenanceSpec


class Closed(msgspec.Struct, frozen=True):
    """What became of one policy."""

    targets: tuple[ObjectRef, ...]
    findings: tuple[Finding, ...] = ()


def _targets(_key: Key, row: Closed) -> Iterable[Hashable]:
    return row.targets


POLICIES: Table[Key, MaintenancePolicy] = Table("maintenancepolicies")
CLOSED: Table[Key, Closed] = Table("closed", indexes={"target": _targets})


def resolve(view: View, key: Key, policy: MaintenancePolicy) -> Iterable[tuple[Key, Closed]]:
    """Return what a policy closes, and a finding for each target that is none of ours."""
    targets, findings = [], []
    for index, ref in enumerate(policy.spec.target_refs):
        target = ObjectRef(ref.kind, key.namespace, ref.name)
        if view.get(OUR_GATEWAYS, target.key) if ref.kind == "Gateway" else view.by(PARENTS, "route", target):
            targets.append(target)
        else:
            about, where = ObjectRef("MaintenancePolicy", *key), f"spec.targetRefs[{index}]"
            findings.append(Finding(code="MG4005", object=about, field=where, message=f"no {target} of ours"))
    yield key, Closed(tuple(targets), tuple(findings))


def configure(scope: RouteScope) -> HttpRbacPerRoute | None:
    """Deny every request of a closed route."""
    return _denial(scope.view, ObjectRef(*scope.route))


def configure_all(view: View, config: RouteConfigKey) -> HttpRbacPerRoute | None:
    """Deny every request to a closed Gateway."""
    return _denial(view, ObjectRef("Gateway", *config.gateway))


def _denial(view: View, target: ObjectRef) -> HttpRbacPerRoute | None:
    if not view.by(CLOSED, "target", target):
        return None
    return HttpRbacPerRoute(rbac=HttpRbac(rules=RbacRules(action=RbacRules.ALLOW)))


MAINTENANCE = Feature(
    name="maintenance",
    filters=(
        RouteFilter(
            slot=Slot.AUTHORIZATION,
            name="example.maintenance",
            inert=HttpRbac,
            configure=configure,
            configure_all=configure_all,
        ),
    ),
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
    resolved=(CLOSED,),
    findings=(CLOSED,),
)
