"""TLS of a listener: its certificates, and the client certificates it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from meshgw import names
from meshgw.api import gateway as api
from meshgw.api.meta import Key
from meshgw.engine import View
from meshgw.ir.backend import bundle_name, certificate_name
from meshgw.ir.gateway import ClientValidation, ListenerTls, Protocol, TlsMode, ValidationMode
from meshgw.ir.keys import ListenerKey
from meshgw.resolve.conditions import Problem
from meshgw.resolve.grants import kind_name, permitted
from meshgw.resolve.tables import BUNDLES, CERTIFICATES

_TLS_PROTOCOLS = frozenset({Protocol.HTTPS, Protocol.TLS})
_BUNDLE_KINDS = frozenset({"ConfigMap", "Secret"})


class TlsOutcome(NamedTuple):
    """TLS of a listener and what is wrong with it.

    `unsupported` makes the listener not Accepted, `refs` are unresolved references, `ignored` costs nothing.
    """

    tls: ListenerTls | None = None
    unsupported: Problem | None = None
    refs: tuple[Problem, ...] = ()
    ignored: tuple[Problem, ...] = ()


def resolve_tls(
    view: View, gateway: api.Gateway, key: ListenerKey, entry: api.Listener, protocol: Protocol, *, field: str
) -> TlsOutcome:
    """Return the TLS of a listener; `field` is the listener's place in its object."""
    config = entry.tls
    if protocol not in _TLS_PROTOCOLS:
        if config is None:
            return TlsOutcome()
        if protocol is Protocol.HBONE:
            message = "HBONE is secured by mesh certificates"
            return TlsOutcome(ignored=(Problem("", "MG3007", f"{field}.tls", message),))
        message = f"{protocol.value} listeners have no tls: served as it stands, this one would be open"
        return TlsOutcome(unsupported=Problem("UnsupportedValue", "MG1005", f"{field}.tls", message))
    mode = TlsMode(config.mode) if config else TlsMode.TERMINATE
    ignored = tuple(_ignored_options(config, f"{field}.tls.options"))
    if mode is TlsMode.PASSTHROUGH:
        if protocol is Protocol.TLS:
            return TlsOutcome(tls=ListenerTls(mode=mode), ignored=ignored)
        problem = Problem("UnsupportedValue", "MG1005", f"{field}.tls.mode", "HTTPS listeners end TLS themselves")
        return TlsOutcome(unsupported=problem, ignored=ignored)
    certificates, refs = _certificates(view, key, config, f"{field}.tls.certificateRefs")
    place = _validation(gateway, entry.port) if protocol is Protocol.HTTPS else None
    if place is None:
        return TlsOutcome(tls=ListenerTls(mode=mode, certificates=certificates), refs=refs, ignored=ignored)
    client, client_refs, unsupported = _client_validation(view, gateway.key, *place)
    tls = ListenerTls(mode=mode, certificates=certificates, client=client)
    return TlsOutcome(tls=tls, unsupported=unsupported, refs=(*refs, *client_refs), ignored=ignored)


def _ignored_options(config: api.ListenerTLSConfig | None, field: str) -> Iterator[Problem]:
    for name in sorted(config.options) if config else ():
        yield Problem("", "MG3007", f"{field}[{name}]", f"TLS option {name} is not known and has no effect")


def _certificates(
    view: View, key: ListenerKey, config: api.ListenerTLSConfig | None, field: str
) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """Return the SDS names of the certificates in their order, and what is wrong with the references."""
    refs = config.certificate_refs if config else ()
    if not refs:
        return (), (Problem("InvalidCertificateRef", "MG3001", field, "no certificate to serve TLS with"),)
    certificates: dict[str, None] = {}
    problems = []
    for position, ref in enumerate(refs):
        target = Key(ref.namespace or key.owner.namespace, ref.name)
        problem = _certificate_problem(view, key, ref, target, f"{field}[{position}]")
        if problem is None:
            certificates[certificate_name(*target)] = None
        else:
            problems.append(problem)
    return tuple(certificates), tuple(problems)


def _certificate_problem(
    view: View, key: ListenerKey, ref: api.SecretObjectReference, target: Key, field: str
) -> Problem | None:
    invalid = "InvalidCertificateRef"
    if (ref.group, ref.kind) != (names.CORE_GROUP, "Secret"):
        return Problem(invalid, "MG2003", field, f"{kind_name(ref.group, ref.kind)} is not a core Secret")
    if not _permitted(view, key.owner_kind, key.owner, "Secret", target):
        return Problem("RefNotPermitted", "MG2002", field, f"no ReferenceGrant permits Secret {target}")
    certificate = view.get(CERTIFICATES, target)
    if certificate is None:
        return Problem(invalid, "MG3001", field, f"no Secret {target} with tls.crt and tls.key")
    if certificate.error:
        return Problem(invalid, "MG3001", field, f"Secret {target}: {certificate.error}")
    return None


def _client_validation(
    view: View, gateway: Key, validation: api.FrontendTLSValidation, where: str
) -> tuple[ClientValidation, tuple[Problem, ...], Problem | None]:
    """Return what is asked of clients on an HTTPS port (GEP-91), unresolved references, and why nothing can be asked.

    While any reference is bad the listener is not served, so validation with fewer roots than meant never happens.
    """
    bundles: dict[str, None] = {}
    problems = []
    for position, ref in enumerate(validation.ca_certificate_refs):
        target = Key(ref.namespace or gateway.namespace, ref.name)
        problem = _bundle_problem(view, gateway, ref, target, f"{where}.caCertificateRefs[{position}]")
        if problem is None:
            bundles[bundle_name(ref.kind, *target)] = None
        else:
            problems.append(problem)
    unsupported = None
    if not bundles:
        unsupported = Problem("NoValidCACertificate", "MG3002", where, "no CA certificate to verify clients with")
    client = ClientValidation(bundles=tuple(bundles), mode=ValidationMode(validation.mode))
    return client, tuple(problems), unsupported


def _validation(gateway: api.Gateway, port: int) -> tuple[api.FrontendTLSValidation, str] | None:
    """Return the validation of a port and its field: that of the port replaces the default as a whole."""
    frontend = gateway.spec.tls.frontend if gateway.spec.tls else None
    if frontend is None:
        return None
    own = next((item.tls for item in frontend.per_port if item.port == port), None)
    if own is not None:
        return (own.validation, f"spec.tls.frontend.perPort[{port}].validation") if own.validation else None
    default = frontend.default.validation
    return (default, "spec.tls.frontend.default.validation") if default else None


def _bundle_problem(view: View, gateway: Key, ref: api.ObjectReference, target: Key, field: str) -> Problem | None:
    if ref.group != names.CORE_GROUP or ref.kind not in _BUNDLE_KINDS:
        message = f"{kind_name(ref.group, ref.kind)} is neither a core ConfigMap nor a Secret"
        return Problem("InvalidCACertificateKind", "MG2003", field, message)
    if not _permitted(view, "Gateway", gateway, ref.kind, target):
        return Problem("RefNotPermitted", "MG2002", field, f"no ReferenceGrant permits {ref.kind} {target}")
    bundle = view.get(BUNDLES, (ref.kind, target))
    if bundle is None:
        return Problem("InvalidCACertificateRef", "MG3002", field, f"no {ref.kind} {target} with ca.crt")
    if bundle.error:
        return Problem("InvalidCACertificateRef", "MG3002", field, f"{ref.kind} {target}: {bundle.error}")
    return None


def _permitted(view: View, kind: str, referrer: Key, to_kind: str, to: Key) -> bool:
    return permitted(
        view,
        group=names.GATEWAY_GROUP,
        kind=kind,
        namespace=referrer.namespace,
        to_group=names.CORE_GROUP,
        to_kind=to_kind,
        to=to,
    )
