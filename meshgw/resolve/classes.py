"""GatewayClasses of ours, and the role each gives to its Gateways."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from meshgw import names
from meshgw.api import gateway as api
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import GatewayClass, Role, WaypointFor
from meshgw.ir.status import Condition
from meshgw.resolve.conditions import ACCEPTED, Problem, fails, holds
from meshgw.resolve.parameters import INVALID_PARAMETERS, class_parameters
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import CLASSES, GATEWAY_CLASSES, REMEMBERED_CLASSES

WELL_KNOWN = {
    names.CLASS_INGRESS: Role.INGRESS,
    names.CLASS_EGRESS: Role.EGRESS,
    names.CLASS_WAYPOINT: Role.WAYPOINT,
}
"""Roles of the classes that exist without being declared; a class of another name makes ingress gateways."""


def resolve_class(view: View, _key: Key, row: api.GatewayClass) -> Iterable[tuple[str, GatewayClass]]:
    """Return a GatewayClass of ours; one that names another controller gives none."""
    settings = read_settings(view)
    if row.spec.controller_name != settings.controller_name:
        return
    name, labels = row.metadata.name, row.metadata.labels
    problem = _problem(view, row)
    generation = row.metadata.generation
    condition: Condition = holds(ACCEPTED, generation)
    findings: tuple[Finding, ...] = ()
    if problem:
        condition = fails(ACCEPTED, generation, reason=problem.reason, message=problem.message)
        findings = (problem.finding(ObjectRef("GatewayClass", "", name)),)
    role = parse_role(labels[names.LABEL_ROLE]) if names.LABEL_ROLE in labels else WELL_KNOWN.get(name, Role.INGRESS)
    yield (
        name,
        GatewayClass(
            name=name,
            role=role,
            waypoint_for=parse_waypoint_for(labels.get(names.LABEL_WAYPOINT_FOR, "")),
            conditions=(condition,),
            findings=findings,
        ),
    )


def find_class(view: View, name: str) -> GatewayClass | None:
    """Return the class a Gateway names: declared, or one of the well-known ones, or as it was when it was declared.

    A class is made anew to change its controllerName. Until it is back, or another controller's, proxies serve on.
    """
    declared = view.get(CLASSES, name)
    if declared is not None:
        return declared
    if view.get(GATEWAY_CLASSES, Key("", name)) is not None:
        return None
    former = view.get(REMEMBERED_CLASSES, name)
    if former is None:
        if name not in WELL_KNOWN:
            return None
        former = GatewayClass(name=name, role=WELL_KNOWN[name], conditions=(holds(ACCEPTED, 0),))
    if not _concerns_deployment_only(former.conditions[0]):
        return former
    return structs.replace(former, conditions=(_undeclared(view),), findings=())


def _concerns_deployment_only(accepted: Condition) -> bool:
    return accepted.status or accepted.reason == INVALID_PARAMETERS


def parse_role(value: str) -> Role | None:
    """Return the role of a label, or None for an unknown one."""
    return next((role for role in Role if role.value == value), None)


def parse_waypoint_for(value: str) -> WaypointFor | None:
    """Return the traffic type of a label, or None for an unknown one."""
    return next((traffic for traffic in WaypointFor if traffic.value == value), None)


def _undeclared(view: View) -> Condition:
    """Return whether an undeclared class is accepted: not where its parameters could be missing with it."""
    if not read_settings(view).deploys:
        return holds(ACCEPTED, 0)
    message = "it does not exist, so nobody knows its parameters"
    return fails(ACCEPTED, 0, reason=INVALID_PARAMETERS, message=message)


def _problem(view: View, row: api.GatewayClass) -> Problem | None:
    """Return what is wrong with a class; its parameters come last, as they concern the deployment alone."""
    labels = row.metadata.labels
    for label, parse in ((names.LABEL_ROLE, parse_role), (names.LABEL_WAYPOINT_FOR, parse_waypoint_for)):
        if label in labels and parse(labels[label]) is None:
            message = f"label {label} has the unknown value {labels[label]!r}"
            return Problem("Unsupported", "MG1009", f"metadata.labels[{label}]", message)
    parameters = class_parameters(view, row)
    return parameters if isinstance(parameters, Problem) else None
