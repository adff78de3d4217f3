"""Workload certificates: the key and CSR that ask for one, and the checks that accept one."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NoReturn

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from meshgw.identity.errors import AnswerRefusedError
from meshgw.identity.spiffe import SpiffeId

_SPKI: Final = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class PrivateKeyPem:
    """A private key that shows itself only to `reveal`: not in reprs, not in encoders, not in pickles."""

    __slots__ = ("_pem",)

    def __init__(self, pem: bytes) -> None:
        self._pem = pem

    def reveal(self) -> bytes:
        """Return the key as unencrypted PKCS #8 PEM, for the one place that hands it to a proxy."""
        return self._pem

    def __repr__(self) -> str:
        return "PrivateKeyPem(hidden)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrivateKeyPem) and hmac.compare_digest(self._pem, other._pem)

    def __hash__(self) -> int:
        return hash(self._pem)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled or copied")


class WorkloadCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate of one identity that passed `accept_answer`, ready for a proxy."""

    identity: SpiffeId
    private_key: PrivateKeyPem
    chain_pem: bytes
    """The leaf, then the intermediates, without the root."""
    roots_pem: bytes
    """Every root a peer's certificate may end at; several during a root rotation."""
    not_before: datetime
    not_after: datetime

    def remaining(self, now: datetime) -> float:
        """Return the seconds until this certificate ends, negative afterwards."""
        return (self.not_after - now).total_seconds()


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def make_csr(key: ec.EllipticCurvePrivateKey, identity: SpiffeId) -> str:
    """Return a CSR in PEM for `key`; the CA reads the identity from the token, the SAN is for its logs only."""
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(san, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> PrivateKeyPem:
    """Return `key` in the form that is published."""
    return PrivateKeyPem(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def bundle_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return `certificates` in PEM, each once, in the order given."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in dict.fromkeys(certificates))


def accept_answer(
    answer: Sequence[str],
    *,
    key: ec.EllipticCurvePrivateKey,
    identity: SpiffeId,
    anchors: Sequence[x509.Certificate],
    trust_sent_roots: bool,
    now: datetime,
) -> WorkloadCertificate:
    """Return what the CA issued if it is for `key` and `identity`, valid at `now` and ends at one of `anchors`.

    The roots in the answer never vouch for the leaf beside them. They join the published bundle if
    `trust_sent_roots`, so that peers already moved to a coming root are understood. Raises `AnswerRefusedError`.
    """
    if len(answer) < 2:
        raise AnswerRefusedError("BAD_ANSWER", f"a leaf and a root were expected, {len(answer)} elements came")
    try:
        chain = [certificate for pem in answer[:-1] for certificate in _load(pem)]
        sent_roots = _load(answer[-1])
    except ValueError:
        raise AnswerRefusedError("BAD_ANSWER", "an element is not a certificate in PEM") from None
    leaf, *intermediates = chain
    if leaf.public_key().public_bytes(*_SPKI) != key.public_key().public_bytes(*_SPKI):
        raise AnswerRefusedError("KEY_MISMATCH", "the certificate is for a key that was not asked for")
    _check_identity(leaf, identity)
    _check_chain(leaf, intermediates, anchors, now)
    return WorkloadCertificate(
        identity=identity,
        private_key=key_pem(key),
        chain_pem=bundle_pem(chain),
        roots_pem=bundle_pem([*anchors, *(sent_roots if trust_sent_roots else ())]),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


def _load(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def _check_identity(leaf: x509.Certificate, identity: SpiffeId) -> None:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        raise AnswerRefusedError("IDENTITY_MISMATCH", "the certificate has no readable SAN") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if uris != [identity.uri]:
        raise AnswerRefusedError("IDENTITY_MISMATCH", f"the certificate is for {uris}, not for {identity}")


def _check_chain(
    leaf: x509.Certificate,
    intermediates: list[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        span = f"{leaf.not_valid_before_utc:%FT%TZ} to {leaf.not_valid_after_utc:%FT%TZ}"
        raise AnswerRefusedError("NOT_VALID_NOW", f"the certificate is valid from {span}, now is {now:%FT%TZ}")
    verifier = verification.PolicyBuilder().store(verification.Store(list(anchors))).time(now).build_client_verifier()
    try:
        verifier.verify(leaf, intermediates)
    except verification.VerificationError as error:
        raise AnswerRefusedError("UNTRUSTED_CHAIN", str(error)) from None
