"""TLS contexts. Certificates and CA bundles are named here and delivered by SDS, never embedded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from meshgw.ir.backend import SanKind, UpstreamTls
from meshgw.ir.gateway import ListenerTls, ValidationMode
from meshgw.protos import (
    CertificateValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    Message,
    SdsSecretConfig,
    StringMatcher,
    SubjectAltNameMatcher,
    TlsParameters,
    TransportSocket,
    UpstreamTlsContext,
    ads,
    any_of,
)

SYSTEM_ROOTS: Final = "system-roots"
"""SDS name of the CA certificates of the proxy's own system."""
JOIN: Final = "+"
"""Stands between the names of bundles that one secret unites (no Kubernetes name has it)."""
ALPN_HTTP: Final = ("h2", "http/1.1")

_VERSIONS: Final = {"1.2": TlsParameters.TLSv1_2, "1.3": TlsParameters.TLSv1_3}
_SANS: Final = {SanKind.DNS: SubjectAltNameMatcher.DNS, SanKind.URI: SubjectAltNameMatcher.URI}


def bundle_secret(bundles: Iterable[str]) -> str:
    """SDS name of one secret with the certificates of these bundles."""
    return JOIN.join(sorted(set(bundles)))


def downstream_tls(tls: ListenerTls, *, alpn: Sequence[str] = ()) -> TransportSocket:
    """What a listener shows its clients, and demands of them."""
    context = DownstreamTlsContext(common_tls_context=_common(tls.certificates, tls.minimum_version, alpn))
    client = tls.client
    if client is not None:
        strict = client.mode is ValidationMode.VALID_ONLY
        context.require_client_certificate.value = strict
        rules = CertificateValidationContext()
        if not strict:
            rules.trust_chain_verification = CertificateValidationContext.ACCEPT_UNTRUSTED
        validate(context.common_tls_context, bundle_secret(client.bundles), rules)
    return transport_socket("envoy.transport_sockets.tls", context)


def upstream_roots(tls: UpstreamTls) -> str:
    """SDS name of what verifies a backend; "" if nothing would, and then it must not be reached."""
    if tls.bundles:
        return bundle_secret(tls.bundles)
    return SYSTEM_ROOTS if tls.system_roots else ""


def upstream_tls(tls: UpstreamTls, *, alpn: Sequence[str] = ()) -> TransportSocket:
    """How a backend is reached by TLS: it must prove one of the names, its host name unless others are given."""
    certificates = (tls.client_certificate,) if tls.client_certificate else ()
    context = UpstreamTlsContext(sni=tls.sni, common_tls_context=_common(certificates, "1.2", alpn))
    names = tls.sans or ((SanKind.DNS, tls.sni),)
    rules = CertificateValidationContext(match_typed_subject_alt_names=[san(kind, exact=name) for kind, name in names])
    validate(context.common_tls_context, upstream_roots(tls), rules)
    return transport_socket("envoy.transport_sockets.tls", context)


def san(kind: SanKind, *, exact: str = "", prefix: str = "") -> SubjectAltNameMatcher:
    """A subject alternative name that must be there."""
    matcher = StringMatcher(exact=exact) if exact else StringMatcher(prefix=prefix)
    return SubjectAltNameMatcher(san_type=_SANS[kind], matcher=matcher)


def validate(common: CommonTlsContext, roots: str, rules: CertificateValidationContext) -> None:
    """Make the peer prove itself to the CA certificates of an SDS secret, under these rules."""
    combined = common.combined_validation_context
    combined.default_validation_context.CopyFrom(rules)
    combined.validation_context_sds_secret_config.CopyFrom(sds(roots))


def sds(name: str) -> SdsSecretConfig:
    """A secret by name."""
    return SdsSecretConfig(name=name, sds_config=ads())


def transport_socket(name: str, config: Message) -> TransportSocket:
    """A transport socket."""
    return TransportSocket(name=name, typed_config=any_of(config))


def _common(certificates: Iterable[str], minimum: str, alpn: Sequence[str]) -> CommonTlsContext:
    return CommonTlsContext(
        tls_params=TlsParameters(
            tls_minimum_protocol_version=_VERSIONS.get(minimum, TlsParameters.TLSv1_2),
            tls_maximum_protocol_version=TlsParameters.TLSv1_3,
        ),
        tls_certificate_sds_secret_configs=[sds(name) for name in dict.fromkeys(certificates)],
        alpn_protocols=list(alpn),
    )
