"""Statuses, assembled from what the resolving steps found. One value per object; writers compare and send it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from meshgw.api.gateway import ParentReference
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.backend import BackendTlsResult
from meshgw.ir.gateway import Binding, Gateway, GatewayClass, IdentityProblem, Listener, ListenerSetResult, Role
from meshgw.ir.keys import RouteKey
from meshgw.ir.route import Parent, RefsReason, Route
from meshgw.ir.status import (
    ClassStatus,
    Condition,
    GatewayStatus,
    ListenerStatus,
    ParentStatus,
    PolicyStatus,
    RouteStatus,
    Status,
    StatusAddress,
)
from meshgw.resolve.conditions import fails, holds
from meshgw.resolve.listeners import IMPLIED
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import (
    ATTACHED_COUNTS,
    BINDINGS,
    IDENTITY_PROBLEMS,
    LISTENER_SET_RESULTS,
    LISTENERS,
    PROXY_PLANS,
    ROUTES,
    WORKLOAD_CERTIFICATES,
)

MESH_IDENTITY = "meshgw.dev/MeshIdentity"
"""Condition of a Gateway: whether istiod gives its proxies certificates."""

FEATURES = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
)
"""Gateway API features that hold true of this controller, sorted."""
FEATURES_OF_DEPLOYING = ("GatewayInfrastructurePropagation",)
"""Those that hold true only where proxies are Kubernetes objects."""

Stated = GatewayClass | Gateway | ListenerSetResult | BackendTlsResult | RouteStatus | PolicyStatus
"""Rows that have, or are, the status of an object."""

_ANCESTORS = 16  # GEP-713: the API allows no more entries


def assemble_status(view: View, _table: str, key: Any, row: Stated) -> Iterable[tuple[ObjectRef, Status]]:
    """Return the status of one object from its resolved row."""
    if isinstance(row, GatewayClass):
        yield ObjectRef("GatewayClass", "", key), _class_status(view, row)
    elif isinstance(row, Gateway):
        yield ObjectRef("Gateway", *key), _gateway_status(view, row)
    elif isinstance(row, ListenerSetResult):
        yield ObjectRef("ListenerSet", *key), _listener_set_status(view, row)
    elif isinstance(row, BackendTlsResult):
        if row.ancestors:
            yield ObjectRef("BackendTLSPolicy", *key), policy_status(view, row.ancestors)
    else:
        yield ObjectRef(*key), row


def policy_status(view: View, ancestors: Iterable[tuple[ParentReference, tuple[Condition, ...]]]) -> PolicyStatus:
    """Return the status of a policy from its ancestors and their conditions: of the first 16, the API has no more."""
    controller = _controller(view)
    entries = (
        ParentStatus(parent_ref=ref, controller_name=controller, conditions=conditions)
        for ref, conditions in islice(ancestors, _ANCESTORS)
    )
    return PolicyStatus(ancestors=tuple(entries))


def assemble_route_status(
    view: View, key: RouteKey, members: Mapping[tuple[RouteKey, int], Parent]
) -> Iterable[tuple[RouteKey, RouteStatus]]:
    """Return one `parents` entry for each parentRef of ours, in the order of the spec."""
    route = view.get(ROUTES, key)
    controller = _controller(view)
    entries = tuple(
        ParentStatus(parent_ref=parent.ref, controller_name=controller, conditions=_parent_conditions(parent, route))
        for _key, parent in sorted(members.items())
    )
    yield key, RouteStatus(parents=entries)


def _controller(view: View) -> str:
    return read_settings(view).controller_name


def _class_status(view: View, row: GatewayClass) -> ClassStatus:
    features = (*FEATURES, *FEATURES_OF_DEPLOYING) if read_settings(view).deploys else FEATURES
    return ClassStatus(conditions=row.conditions, supported_features=tuple(sorted(features)))


def _gateway_status(view: View, row: Gateway) -> GatewayStatus:
    found = view.by(LISTENERS, "gateway", row.key)
    listeners = tuple(listener for key, listener in found if key.owner_kind == "Gateway")
    binding = view.get(BINDINGS, row.key) or Binding()
    conditions = _accepted_conditions(row, listeners, implied=any(key.owner_kind == IMPLIED for key, _row in found))
    accepted = next((c.status for c in conditions if c.type == "Accepted"), False)
    conditions = (*conditions, _programmed(view, row, binding, accepted=accepted, listening=bool(found)))
    sets = view.by(LISTENER_SET_RESULTS, "gateway", row.key)
    conditions += _mesh_identity(view, row)
    return GatewayStatus(
        # Istio's mesh goes past a waypoint without an address, so a mistake must not take it away from one that runs.
        addresses=_addresses(binding) if accepted or read_settings(view).deploys else (),
        conditions=tuple(sorted(conditions, key=lambda c: c.type)),
        listeners=_listener_statuses(view, listeners),
        attached_listener_sets=sum(1 for _key, result in sets if result.accepted),
    )


def _addresses(binding: Binding) -> tuple[StatusAddress, ...]:
    return tuple(StatusAddress(type=_address_type(address), value=address) for address in binding.addresses)


def _address_type(address: str) -> str:
    return "IPAddress" if ":" in address or address.replace(".", "").isdigit() else "Hostname"


def _accepted_conditions(row: Gateway, listeners: tuple[Listener, ...], *, implied: bool) -> tuple[Condition, ...]:
    """Let the listeners have their say in Accepted: some bad keeps it True, all bad makes it False.

    A waypoint's `implied` listener is a good one.
    """
    refused = [listener for listener in listeners if not listener.accepted]
    if not refused or not row.accepted:
        return row.conditions
    names = ", ".join(sorted(listener.key.name for listener in refused))
    judge = holds if implied or len(refused) < len(listeners) else fails
    verdict = judge("Accepted", row.generation, reason="ListenersNotValid", message=f"not served: {names}")
    return tuple(verdict if c.type == "Accepted" else c for c in row.conditions)


def _programmed(view: View, row: Gateway, binding: Binding, *, accepted: bool, listening: bool) -> Condition:
    if not accepted:
        return fails("Programmed", row.generation, reason="Invalid", message="the Gateway is not accepted")
    if not listening:
        return fails("Programmed", row.generation, reason="Pending", message="there is no listener")
    if row.role is Role.WAYPOINT and not read_settings(view).mesh:
        return fails("Programmed", row.generation, reason="Pending", message="no mesh certificate: nothing is served")
    plan = view.get(PROXY_PLANS, row.key)
    if plan is not None and plan.held_by:
        return fails("Programmed", row.generation, reason="Invalid", message=plan.held_by)
    problem = _identity_problem(view, row)
    if row.role is Role.WAYPOINT and problem is not None and not problem.ends:
        return fails("Programmed", row.generation, reason="Pending", message=f"no mesh certificate: {problem.message}")
    if binding.unusable:
        message = f"cannot be bound: {', '.join(binding.unusable)}"
        return fails("Programmed", row.generation, reason="AddressNotUsable", message=message)
    if binding.pending and (binding.addresses or binding.pending_reason != "Pending"):
        return fails("Programmed", row.generation, reason=binding.pending_reason, message=binding.pending)
    if not binding.addresses:
        return fails("Programmed", row.generation, reason="AddressNotAssigned", message="no address yet")
    return holds("Programmed", row.generation)


def _mesh_identity(view: View, row: Gateway) -> tuple[Condition, ...]:
    """Return whether a Gateway gets mesh certificates, once that is known; a Gateway without a mesh has no say."""
    problem = _identity_problem(view, row)
    if problem is not None:
        until = f"the certificate in use ends at {problem.ends}" if problem.ends else "there is none in use"
        reason = "".join(word.title() for word in problem.code.split("_"))
        return (fails(MESH_IDENTITY, row.generation, reason=reason, message=f"{until}; {problem.message}"),)
    if read_settings(view).deploys and view.get(WORKLOAD_CERTIFICATES, _account(row)) is not None:
        return (holds(MESH_IDENTITY, row.generation, reason="Issued"),)
    return ()


def _identity_problem(view: View, row: Gateway) -> IdentityProblem | None:
    return view.get(IDENTITY_PROBLEMS, _account(row)) if row.accepted else None


def _account(row: Gateway) -> Key:
    return Key(row.key.namespace, row.service_account)


def _listener_statuses(view: View, listeners: Iterable[Listener]) -> tuple[ListenerStatus, ...]:
    return tuple(
        ListenerStatus(
            name=listener.key.name,
            supported_kinds=listener.kinds,
            attached_routes=view.get(ATTACHED_COUNTS, listener.key) or 0,
            conditions=listener.conditions,
        )
        for listener in sorted(listeners, key=lambda listener: listener.precedence)
    )


def _listener_set_status(view: View, row: ListenerSetResult) -> GatewayStatus:
    owned = view.by(LISTENERS, "owner", (row.gateway, "ListenerSet", row.key))
    return GatewayStatus(
        conditions=row.conditions, listeners=_listener_statuses(view, (listener for _key, listener in owned))
    )


def _parent_conditions(parent: Parent, route: Route | None) -> tuple[Condition, ...]:
    generation = parent.generation
    invalid = route.invalid if route else ""
    if parent.reason != "Accepted":
        accepted = fails("Accepted", generation, reason=parent.reason, message=parent.message)
    elif invalid:
        accepted = fails("Accepted", generation, reason="UnsupportedValue", message=invalid)
    else:
        accepted = holds("Accepted", generation, message=parent.message)
    conditions = [accepted, _resolved_refs(route, generation)]
    if accepted.status and route and route.partially_invalid:
        message = route.partially_invalid
        conditions.append(holds("PartiallyInvalid", generation, reason="UnsupportedValue", message=message))
    return tuple(conditions)


def _resolved_refs(route: Route | None, generation: int) -> Condition:
    if route is None or route.refs is RefsReason.RESOLVED:
        return holds("ResolvedRefs", generation)
    return fails("ResolvedRefs", generation, reason=route.refs.value, message=route.refs_message)
