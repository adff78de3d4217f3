"""The signing half of the embedded mesh CA: roots in memory, and certificates as istiod issues them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshgw.identity.certificate import PrivateKeyPem, bundle_pem, key_pem, make_key
from meshgw.identity.clock import Clock, SystemClock
from meshgw.identity.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId, check_trust_domain

DEFAULT_LIFETIME: Final = timedelta(hours=24)
MAX_LIFETIME: Final = timedelta(days=90)
ROOT_LIFETIME: Final = timedelta(days=3650)
CLOCK_SKEW: Final = timedelta(minutes=2)
"""How long before its issue a certificate is already valid."""

_MAX_COMMON_NAME: Final = 64


class SigningError(Exception):
    """A certificate that is not issued; `reason` is istiod's name for why, such as `CSR_ERROR`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class _Root:
    """A self-signed root and its key."""

    def __init__(self, trust_domain: str, lifetime: timedelta, now: datetime) -> None:
        self.key = make_key()
        public_key = self.key.public_key()
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64])])
        self.certificate = (
            _builder(name, public_key, now - CLOCK_SKEW, now + lifetime)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(self.key, hashes.SHA256())
        )


class MeshAuthority:
    """Signs the certificates of one trust domain with a root that never leaves memory.

    A root rotation without a refused handshake has three steps: `add_root` (published, signs nothing yet), then
    `rotate_root` once every peer has the bundle, then `retire_roots` once every certificate has been renewed.
    """

    def __init__(
        self,
        trust_domain: str = DEFAULT_TRUST_DOMAIN,
        *,
        default_lifetime: timedelta = DEFAULT_LIFETIME,
        max_lifetime: timedelta = MAX_LIFETIME,
        root_lifetime: timedelta = ROOT_LIFETIME,
        clock: Clock | None = None,
    ) -> None:
        if not timedelta(0) < default_lifetime <= max_lifetime:
            raise ValueError("the default lifetime must be above zero and within the maximum")
        self.trust_domain = check_trust_domain(trust_domain)
        self._default_lifetime = default_lifetime
        self._max_lifetime = max_lifetime
        self._root_lifetime = root_lifetime
        self._clock: Clock = clock or SystemClock()
        self._signer = self._new_root()
        self._roots: list[_Root] = [self._signer]

    @property
    def roots_pem(self) -> bytes:
        """The bundle of roots in force, newest last."""
        return bundle_pem(root.certificate for root in self._roots)

    def add_root(self) -> None:
        """Publish one more root, which signs nothing before `rotate_root`; one at a time waits."""
        if self._roots[-1] is self._signer:
            self._roots.append(self._new_root())

    def rotate_root(self) -> None:
        """Sign with the root that waits, or with a new one; the earlier roots stay in the bundle."""
        self.add_root()
        self._signer = self._roots[-1]

    def retire_roots(self) -> None:
        """Drop every root but the one that signs: what the others signed is refused from now on."""
        self._roots = [self._signer]

    def issue(self, csr: str, identity: SpiffeId, seconds: int = 0) -> tuple[str, ...]:
        """Return leaf and root bundle in PEM, for the key in `csr` and the caller's `identity`.

        Names in the CSR do not count. `seconds` of zero or less ask for the default lifetime. Raises `SigningError`
        with `CSR_ERROR`, `TTL_ERROR` (above the maximum: never clamped) or `CA_NOT_READY` (the root has ended).
        """
        request = _parse_csr(csr)
        if seconds > self._max_lifetime.total_seconds():
            raise SigningError("TTL_ERROR", f"{seconds} s is above the maximum of {self._max_lifetime}")
        lifetime = timedelta(seconds=seconds) if seconds > 0 else self._default_lifetime
        common_name = identity.uri if request.subject.get_attributes_for_oid(NameOID.COMMON_NAME) else ""
        names = [x509.UniformResourceIdentifier(identity.uri)]
        leaf = self._sign(self._signer, request.public_key(), names, lifetime, common_name=common_name)
        return leaf.public_bytes(serialization.Encoding.PEM).decode(), self.roots_pem.decode()

    def issue_server(self, dns_names: Sequence[str]) -> tuple[PrivateKeyPem, bytes]:
        """Return key and certificate in PEM of a server with `dns_names`, as istiod has them for its own port.

        The oldest root in force signs it: a client that knows only that one must reach the CA to learn the next.
        """
        key = make_key()
        now = self._clock.now()
        oldest = next((root for root in self._roots if now < root.certificate.not_valid_after_utc), self._signer)
        names = [x509.DNSName(name) for name in dns_names]
        leaf = self._sign(oldest, key.public_key(), names, self._default_lifetime)
        return key_pem(key), bundle_pem([leaf])

    def _sign(
        self,
        signer: _Root,
        public_key: CertificatePublicKeyTypes,
        names: Sequence[x509.GeneralName],
        lifetime: timedelta,
        *,
        common_name: str = "",
    ) -> x509.Certificate:
        now = self._clock.now()
        root = signer.certificate
        if now >= root.not_valid_after_utc:
            raise SigningError("CA_NOT_READY", "the signing root has ended")
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if 0 < len(common_name) <= _MAX_COMMON_NAME else []
        )
        return (
            _builder(subject, public_key, now - CLOCK_SKEW, min(now + lifetime, root.not_valid_after_utc))
            .issuer_name(root.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
            # As istiod does, with or without a subject; without one RFC 5280 4.2.1.6 demands it.
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(signer.key, hashes.SHA256())
        )

    def _new_root(self) -> _Root:
        return _Root(self.trust_domain, self._root_lifetime, self._clock.now())


def _parse_csr(csr: str) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        proven = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise SigningError("CSR_ERROR", "not a certificate request in PEM") from None
    if not proven:
        raise SigningError("CSR_ERROR", "not signed by the key it holds")
    return request


def _builder(
    subject: x509.Name, key: CertificatePublicKeyTypes, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
