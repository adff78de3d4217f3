"""Gateways of ours: role, addresses, certificate for backends, and what the object itself decides of its status."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from meshgw import names
from meshgw.api import gateway as api
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.backend import certificate_name
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Gateway, GatewayClass, Role, ValidationMode, WaypointFor
from meshgw.ir.proxy import proxy_name
from meshgw.ir.status import Condition
from meshgw.resolve.classes import find_class, parse_role, parse_waypoint_for
from meshgw.resolve.conditions import (
    ACCEPTED,
    INSECURE_FRONTEND,
    RESOLVED_REFS,
    Problem,
    holds,
    is_true,
    ordered,
    verdict,
)
from meshgw.resolve.grants import kind_name, permitted
from meshgw.resolve.parameters import INVALID_PARAMETERS, own_parameters
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import CERTIFICATES

_ADDRESS_TYPES = frozenset({"IPAddress", "Hostname"})


def resolve_gateway(view: View, key: Key, row: api.Gateway) -> Iterable[tuple[Key, Gateway]]:
    """Return a Gateway whose class is ours; others give none."""
    its_class = find_class(view, row.spec.gateway_class_name)
    if its_class is None:
        return
    labels = row.metadata.labels
    role = parse_role(labels[names.LABEL_ROLE]) if names.LABEL_ROLE in labels else its_class.role
    settings = read_settings(view)
    unfit, badly_deployed = _refusal(row, its_class, role), _bad_parameters(view, row, its_class)
    refusal = unfit or badly_deployed
    held = settings.deploys and unfit is None and badly_deployed is not None
    certificate, refs_problem = _client_certificate(view, key, row)
    insecure = _insecure_fields(row)
    findings = [problem.finding(_ref(key)) for problem in (refusal, refs_problem) if problem]
    if refusal is None and role is Role.WAYPOINT and not settings.mesh:
        message = "a waypoint without a mesh certificate serves nothing"
        findings.append(Finding(code="MG5004", object=_ref(key), message=message))
    letting_in = "client certificates need not be valid: anyone is let in"
    findings += [Finding(code="MG3006", object=_ref(key), field=field, message=letting_in) for field in insecure]
    yield (
        key,
        Gateway(
            key=key,
            class_name=its_class.name,
            role=role,
            accepted=refusal is None or held,
            held=held,
            generation=row.metadata.generation,
            waypoint_for=_waypoint_for(row, its_class),
            service_account=_service_account(key, row, deploys=settings.deploys),
            client_certificate=certificate,
            client_certificate_refused=refs_problem is not None,
            conditions=_conditions(row.metadata.generation, refusal, refs_problem, insecure),
            findings=tuple(findings),
        ),
    )


def profile_gateway(_view: View, key: Key, row: Gateway) -> Iterable[tuple[Key, Gateway]]:
    """Return what routes and clusters need to know of a Gateway."""
    yield key, structs.replace(row, generation=0, conditions=(), findings=())


def _conditions(
    generation: int, refusal: Problem | None, refs: Problem | None, insecure: list[str]
) -> tuple[Condition, ...]:
    found = [verdict(ACCEPTED, generation, refusal), verdict(RESOLVED_REFS, generation, refs)]
    if insecure:
        message = f"AllowInsecureFallback in {', '.join(insecure)}"
        found.append(holds(INSECURE_FRONTEND, generation, reason="ConfigurationChanged", message=message))
    return ordered(found)


def _refusal(row: api.Gateway, its_class: GatewayClass, role: Role | None) -> Problem | None:
    """Return why the Gateway as a whole is not served."""
    labels = row.metadata.labels
    if its_class.conditions[0].reason != INVALID_PARAMETERS and (problem := _bad_class(its_class)):
        return problem
    if role is None:
        field = f"metadata.labels[{names.LABEL_ROLE}]"
        return Problem("Invalid", "MG1009", field, f"unknown role {labels[names.LABEL_ROLE]!r}")
    wanted = labels.get(names.LABEL_WAYPOINT_FOR, "")
    if role is Role.WAYPOINT and wanted and parse_waypoint_for(wanted) is None:
        field = f"metadata.labels[{names.LABEL_WAYPOINT_FOR}]"
        return Problem("Invalid", "MG1008", field, f"unknown traffic type {wanted!r}")
    for position, address in enumerate(row.spec.addresses):
        if address.type not in _ADDRESS_TYPES:
            message = f"address type {address.type} is not supported"
            return Problem("UnsupportedAddress", "MG1008", f"spec.addresses[{position}].type", message)
    return None


def _bad_class(its_class: GatewayClass) -> Problem | None:
    if is_true(its_class.conditions, ACCEPTED):
        return None
    message = f"GatewayClass {its_class.name} is not accepted: {its_class.conditions[0].message}"
    return Problem("Invalid", "MG1008", "spec.gatewayClassName", message)


def _bad_parameters(view: View, row: api.Gateway, its_class: GatewayClass) -> Problem | None:
    """Return why the Gateway cannot be deployed as asked for; what its proxies serve is another matter."""
    own = own_parameters(view, row)
    return _bad_class(its_class) or (own if isinstance(own, Problem) else None)


def _service_account(key: Key, row: api.Gateway, *, deploys: bool) -> str:
    """Return as whom its proxies run; who may create a Gateway must not choose among other people's accounts."""
    if deploys:
        return proxy_name(key.name, row.spec.gateway_class_name)
    return row.metadata.labels.get(names.LABEL_SERVICE_ACCOUNT, "") or key.name


def _waypoint_for(row: api.Gateway, its_class: GatewayClass) -> WaypointFor:
    own = parse_waypoint_for(row.metadata.labels.get(names.LABEL_WAYPOINT_FOR, ""))
    return own or its_class.waypoint_for or WaypointFor.SERVICE


def _client_certificate(view: View, key: Key, row: api.Gateway) -> tuple[str, Problem | None]:
    """Return the SDS name of the certificate for backends ("" for none), and what is wrong with it (GEP-3155)."""
    tls = row.spec.tls
    ref = tls.backend.client_certificate_ref if tls and tls.backend else None
    if ref is None:
        return "", None
    field = "spec.tls.backend.clientCertificateRef"
    invalid = "InvalidClientCertificateRef"
    if (ref.group, ref.kind) != (names.CORE_GROUP, "Secret"):
        return "", Problem(invalid, "MG2003", field, f"{kind_name(ref.group, ref.kind)} is not a core Secret")
    target = Key(ref.namespace or key.namespace, ref.name)
    if not permitted(
        view,
        group=names.GATEWAY_GROUP,
        kind="Gateway",
        namespace=key.namespace,
        to_group=names.CORE_GROUP,
        to_kind="Secret",
        to=target,
    ):
        return "", Problem("RefNotPermitted", "MG2002", field, f"no ReferenceGrant permits Secret {target}")
    certificate = view.get(CERTIFICATES, target)
    if certificate is None:
        return "", Problem(invalid, "MG3001", field, f"no Secret {target} with tls.crt and tls.key")
    if certificate.error:
        return "", Problem(invalid, "MG3001", field, f"Secret {target}: {certificate.error}")
    return certificate_name(*target), None


def _insecure_fields(row: api.Gateway) -> list[str]:
    """Return the fields that let clients in without a valid certificate."""
    frontend = row.spec.tls.frontend if row.spec.tls else None
    if frontend is None:
        return []
    places = [("spec.tls.frontend.default", frontend.default)]
    places += [(f"spec.tls.frontend.perPort[{item.port}]", item.tls) for item in frontend.per_port]
    return [
        f"{field}.validation.mode"
        for field, tls in places
        if tls.validation and tls.validation.mode == ValidationMode.INSECURE_FALLBACK.value
    ]


def _ref(key: Key) -> ObjectRef:
    return ObjectRef("Gateway", *key)
