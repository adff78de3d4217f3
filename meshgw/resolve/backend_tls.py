"""BackendTLSPolicy: which one governs a port, what it demands, and what its status says (GEP-1897).

A policy that cannot be applied closes its backends: they are never reached in plain text instead. It governs HTTP and
gRPC backends, mirrors, authorizers, and backends of TLSRoutes on listeners that end TLS; what TCPRoutes and
passed-through TLSRoutes forward belongs to the client and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from meshgw.api.gateway import LocalObjectReference, ParentReference
from meshgw.api.meta import Key, ObjectRef
from meshgw.api.policy import BackendTLSPolicy, SubjectAltName
from meshgw.engine import View
from meshgw.ir.backend import BackendTlsResult, SanKind, UpstreamTls
from meshgw.ir.finding import Finding
from meshgw.ir.status import Condition
from meshgw.names import CORE_GROUP, GATEWAY_GROUP
from meshgw.resolve.backends import TCP, UDP
from meshgw.resolve.conditions import ACCEPTED, RESOLVED_REFS, fails, holds
from meshgw.resolve.grants import kind_name
from meshgw.resolve.report import join_messages
from meshgw.resolve.tables import BACKEND_TLS_POLICIES, BUNDLES, CLUSTERS, SERVICES

UNGOVERNED = frozenset({TCP, UDP})
"""What routes ask of backends to which no policy applies."""
_BUNDLE_KINDS = frozenset({"ConfigMap", "Secret"})
_SYSTEM = "System"


class Governing(NamedTuple):
    """The policy that applies to a port."""

    key: Key
    policy: BackendTLSPolicy


class _Flaw(NamedTuple):
    """A reason of a condition, with its message."""

    reason: str
    message: str


class Verdict(NamedTuple):
    """What a policy amounts to: `tls` is None when it cannot be applied, and `accepted` then says why."""

    tls: UpstreamTls | None
    accepted: _Flaw | None
    refs: tuple[_Flaw, ...] = ()


def governing_policy(view: View, service: Key, port: str) -> Governing | None:
    """Return the policy for a port of that name: one for the section, else one for the whole Service, oldest first.

    If there is none, one of the namespace whose targets are not all known: it may have meant this Service.
    """
    candidates = _candidates(view, service)
    found = next((_first(candidates, section) for section in (port, "") if _first(candidates, section)), None)
    if found is not None:
        return found
    suspects = view.by(BACKEND_TLS_POLICIES, "target", (service.namespace,))
    return Governing(*suspects[0]) if suspects else None


def _candidates(view: View, service: Key) -> list[tuple[str, Governing]]:
    """Return (section, policy) of every reference to the Service, in order of precedence."""
    found = [
        (ref.section_name or "", Governing(key, policy))
        for key, policy in view.by(BACKEND_TLS_POLICIES, "target", (CORE_GROUP, "Service", *service))
        for ref in policy.spec.target_refs
        if (ref.group, ref.kind, ref.name) == (CORE_GROUP, "Service", service.name)
    ]
    return sorted(found, key=lambda item: _age(item[1]))


def _age(item: Governing) -> tuple[bool, str, Key]:
    """The order of precedence; whatever could not be read comes last, as nobody knows how old it is."""
    return bool(item.policy.unreadable), item.policy.metadata.creation_timestamp or "", item.key


def _first(candidates: Iterable[tuple[str, Governing]], section: str) -> Governing | None:
    return next((policy for name, policy in candidates if name == section), None)


def judge(view: View, key: Key, policy: BackendTLSPolicy) -> Verdict:
    """Return what the policy demands of a connection, or why it cannot be applied."""
    if policy.unreadable:
        return Verdict(None, _Flaw("Invalid", policy.unreadable))
    if policy.unknown_fields:
        return Verdict(None, _Flaw("Invalid", f"{policy.unknown_fields[0]}: the field is unknown or null"))
    validation = policy.spec.validation
    refs, known = validation.ca_certificate_refs, validation.well_known_ca_certificates
    if bool(refs) == bool(known):
        return Verdict(None, _Flaw("Invalid", "exactly one of caCertificateRefs and wellKnownCACertificates is needed"))
    if known and known != _SYSTEM:
        return Verdict(None, _Flaw("Invalid", f"wellKnownCACertificates {known} is not known: only {_SYSTEM} is"))
    resolved = [_bundle(view, key.namespace, ref) for ref in refs]
    flaws = tuple(item for item in resolved if isinstance(item, _Flaw))
    bundles = tuple(dict.fromkeys(item for item in resolved if isinstance(item, str)))
    if refs and not bundles:
        message = join_messages([flaw.message for flaw in flaws])
        return Verdict(None, _Flaw("NoValidCACertificate", message), flaws)
    sans = tuple(filter(None, map(_san, validation.subject_alt_names)))
    if len(sans) < len(validation.subject_alt_names):
        return Verdict(None, _Flaw("Invalid", "a subjectAltName lacks the field that its type names"), flaws)
    hostname = validation.hostname.lower()
    tls = UpstreamTls(
        sni=hostname, sans=sans or ((SanKind.DNS, hostname),), bundles=bundles, system_roots=known == _SYSTEM
    )
    return Verdict(tls, None, flaws)


def _bundle(view: View, namespace: str, ref: LocalObjectReference) -> str | _Flaw:
    """Return the SDS name of a CA bundle."""
    if ref.group != CORE_GROUP or ref.kind not in _BUNDLE_KINDS:
        kind = kind_name(ref.group, ref.kind)
        return _Flaw("InvalidKind", f"CA certificates cannot come from kind {kind}: use a ConfigMap")
    bundle = view.get(BUNDLES, (ref.kind, Key(namespace, ref.name)))
    if bundle is None:
        return _Flaw("InvalidCACertificateRef", f"no {ref.kind} {namespace}/{ref.name} with ca.crt")
    if bundle.error:
        return _Flaw("InvalidCACertificateRef", f"{ref.kind} {namespace}/{ref.name}: {bundle.error}")
    return bundle.name


def _san(item: SubjectAltName) -> tuple[SanKind, str] | None:
    if item.type == "URI":
        return (SanKind.URI, item.uri) if item.uri else None
    return (SanKind.DNS, item.hostname.lower()) if item.hostname else None


def resolve_backend_tls(view: View, key: Key, row: BackendTLSPolicy) -> Iterable[tuple[Key, BackendTlsResult]]:
    """Return the policy's conditions for each Gateway of ours that uses a Service it targets, if there is any."""
    services = sorted({ref.name for ref in row.spec.target_refs if (ref.group, ref.kind) == (CORE_GROUP, "Service")})
    gateways = sorted(
        {
            cluster.gateway
            for name in services
            for cluster, _row in view.by(CLUSTERS, "service", Key(key.namespace, name))
            if cluster.target.protocol not in UNGOVERNED
        }
    )
    if not gateways and row.unknown_target is None:
        return
    verdict = judge(view, key, row)
    obstacle = verdict.accepted or _obstacle(view, key, row)
    conditions = _conditions(row.metadata.generation, obstacle, verdict.refs)
    yield (
        key,
        BackendTlsResult(
            key=key,
            ancestors=tuple((_ancestor(gateway), conditions) for gateway in gateways),
            findings=tuple(_findings(key, row, verdict, obstacle)),
        ),
    )


def _obstacle(view: View, key: Key, policy: BackendTLSPolicy) -> _Flaw | None:
    """Return why a good policy does not apply to some target: an older one is there, or the section is not."""
    for ref in policy.spec.target_refs:
        if (ref.group, ref.kind) != (CORE_GROUP, "Service"):
            return _Flaw("TargetNotFound", f"targets of kind {ref.kind} are not supported: use a Service")
        target = Key(key.namespace, ref.name)
        section = ref.section_name or ""
        winner = _first(_candidates(view, target), section)
        if winner and winner.key != key:
            part = f"port {section} of " if section else ""
            return _Flaw("Conflicted", f"BackendTLSPolicy {winner.key} governs {part}Service {target}")
        service = view.get(SERVICES, target)
        if service is None or (section and all(port.name != section for port in service.spec.ports)):
            part = f"with a port {section}" if section else ""
            return _Flaw("TargetNotFound", f"no Service {target} {part}".rstrip())
    return None


def _conditions(generation: int, obstacle: _Flaw | None, refs: tuple[_Flaw, ...]) -> tuple[Condition, ...]:
    accepted = holds(ACCEPTED, generation)
    if obstacle:
        accepted = fails(ACCEPTED, generation, reason=obstacle.reason, message=obstacle.message)
    resolved = holds(RESOLVED_REFS, generation)
    if refs:
        message = join_messages([flaw.message for flaw in refs])
        resolved = fails(RESOLVED_REFS, generation, reason=refs[0].reason, message=message)
    return (accepted, resolved)


def _ancestor(gateway: Key) -> ParentReference:
    return ParentReference(group=GATEWAY_GROUP, kind="Gateway", namespace=gateway.namespace, name=gateway.name)


def _findings(key: Key, policy: BackendTLSPolicy, verdict: Verdict, obstacle: _Flaw | None) -> Iterable[Finding]:
    about = ObjectRef("BackendTLSPolicy", *key)
    for flaw in verdict.refs:
        yield Finding(code="MG3002", object=about, field="spec.validation.caCertificateRefs", message=flaw.message)
    if verdict.accepted:
        field, message = "spec.validation", verdict.accepted.message
        if policy.unreadable or policy.unknown_fields:
            field = policy.unknown_target or next(iter(policy.unknown_fields), "spec")
        if policy.unknown_target is not None:
            message = f"backends in namespace {key.namespace} without another policy are not reached: {message}"
        yield Finding(code="MG3004", object=about, field=field, message=message)
    elif obstacle:
        code = "MG3005" if obstacle.reason == "Conflicted" else "MG4005"
        yield Finding(code=code, object=about, field="spec.targetRefs", message=obstacle.message)
