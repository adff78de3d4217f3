"""Rules for Gateway, ListenerSet and BackendTLSPolicy that involve several fields."""

import re
from collections.abc import Iterator
from typing import Final

from meshgw.api.gateway import Gateway, GatewayAddress, GatewayInfrastructure, Listener, ListenerSet
from meshgw.api.policy import BackendTLSPolicy, LocalPolicyTargetReferenceWithSectionName, SubjectAltName
from meshgw.api.scalars import HOSTNAME_PATTERN

Violation = tuple[str, str]

_METADATA_KEY: Final = re.compile(
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]\Z"
)
_HOSTNAME: Final = re.compile(HOSTNAME_PATTERN)


def gateway(gateway: Gateway) -> Iterator[Violation]:
    """Rules for a Gateway."""
    spec = gateway.spec
    yield from _listeners(spec.listeners)
    yield from _addresses(spec.addresses)
    if spec.infrastructure is not None:
        yield from _infrastructure(spec.infrastructure)
    if spec.tls is not None and spec.tls.frontend is not None:
        ports: set[int] = set()
        for index, entry in enumerate(spec.tls.frontend.per_port):
            if entry.port in ports:
                yield f"spec.tls.frontend.perPort[{index}].port", f"{entry.port} is configured twice"
            ports.add(entry.port)


def listener_set(listeners: ListenerSet) -> Iterator[Violation]:
    """Rules for a ListenerSet."""
    yield from _listeners(listeners.spec.listeners)


def _listeners(listeners: tuple[Listener, ...]) -> Iterator[Violation]:
    names: set[str] = set()
    bindings: set[tuple[int, str, str | None]] = set()
    for index, listener in enumerate(listeners):
        where = f"spec.listeners[{index}]"
        yield from _listener(where, listener)
        if listener.name in names:
            yield f"{where}.name", f"`{listener.name}` is used twice"
        binding = (listener.port, listener.protocol, listener.hostname)
        if binding in bindings:
            yield where, "another listener has the same port, protocol and hostname"
        names.add(listener.name)
        bindings.add(binding)


def _listener(where: str, listener: Listener) -> Iterator[Violation]:
    protocol, tls = listener.protocol, listener.tls
    if tls is not None:
        if protocol in {"HTTP", "TCP", "UDP"}:
            yield f"{where}.tls", f"must not be set for protocol {protocol}"
        elif protocol == "HTTPS" and tls.mode != "Terminate":
            yield f"{where}.tls.mode", "must be Terminate for protocol HTTPS"
        if tls.mode == "Terminate" and not tls.certificate_refs and not tls.options:
            yield f"{where}.tls", "certificateRefs or options are required for mode Terminate"
    elif protocol == "TLS":
        yield f"{where}.tls", "is required for protocol TLS"
    if listener.hostname is not None and protocol in {"TCP", "UDP"}:
        yield f"{where}.hostname", f"must not be set for protocol {protocol}"


def _addresses(addresses: tuple[GatewayAddress, ...]) -> Iterator[Violation]:
    seen: set[GatewayAddress] = set()
    for index, address in enumerate(addresses):
        where = f"spec.addresses[{index}].value"
        if address.type == "Hostname" and address.value and not _HOSTNAME.match(address.value):
            yield where, f"`{address.value}` is not a host name"
        if address in seen and address.value and address.type in {"IPAddress", "Hostname"}:
            yield where, f"`{address.value}` is requested twice"
        seen.add(address)


def _infrastructure(infrastructure: GatewayInfrastructure) -> Iterator[Violation]:
    for field, names in (("labels", infrastructure.labels), ("annotations", infrastructure.annotations)):
        for name in names:
            if not _METADATA_KEY.match(name) or len(name.partition("/")[0]) >= 253:
                yield f"spec.infrastructure.{field}", f"`{name}` is not a valid key"


def backend_tls_policy(policy: BackendTLSPolicy) -> Iterator[Violation]:
    """Rules for a BackendTLSPolicy: one source of trust, and consistent names."""
    validation = policy.spec.validation
    yield from _targets(policy.spec.target_refs)
    if bool(validation.ca_certificate_refs) == bool(validation.well_known_ca_certificates):
        yield "spec.validation", "exactly one of caCertificateRefs and wellKnownCACertificates must be set"
    for index, name in enumerate(validation.subject_alt_names):
        yield from _subject_alt_name(f"spec.validation.subjectAltNames[{index}]", name)


def _targets(targets: tuple[LocalPolicyTargetReferenceWithSectionName, ...]) -> Iterator[Violation]:
    seen: dict[tuple[str, str, str], set[str | None]] = {}
    for index, target in enumerate(targets):
        sections = seen.setdefault((target.group, target.kind, target.name), set())
        if target.section_name in sections:
            yield f"spec.targetRefs[{index}]", "is listed twice"
        elif sections and (target.section_name is None) != (None in sections):
            yield f"spec.targetRefs[{index}].sectionName", "must be set on all references to one target, or on none"
        sections.add(target.section_name)


def _subject_alt_name(where: str, name: SubjectAltName) -> Iterator[Violation]:
    for kind, field, value in (("Hostname", "hostname", name.hostname), ("URI", "uri", name.uri)):
        if kind == name.type and not value:
            yield f"{where}.{field}", f"is required for type {kind}"
        elif kind != name.type and value:
            yield f"{where}.{field}", f"must not be set for type {name.type}"
