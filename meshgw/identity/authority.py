"""The signing half of the embedded mesh CA: roots in memory, and certificates as istiod issues them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from meshgw.identity.certificate import PrivateKeyPem, bundle_pem, key_pem, make_key
from meshgw.identity.clock import Clock, SystemClock
from meshgw.identity.signer import Signer, SigningError
from meshgw.identity.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId, check_trust_domain

DEFAULT_LIFETIME: Final = timedelta(hours=24)
MAX_LIFETIME: Final = timedelta(days=90)
ROOT_LIFETIME: Final = timedelta(days=3650)


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
        self._roots: list[Signer] = [self._signer]

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
        leaf = self._signer.sign(request.public_key(), names, lifetime, self._clock.now(), common_name=common_name)
        return leaf.public_bytes(serialization.Encoding.PEM).decode(), self.roots_pem.decode()

    def issue_server(self, dns_names: Sequence[str]) -> tuple[PrivateKeyPem, bytes]:
        """Return key and certificate in PEM of a server with `dns_names`, as istiod has them for its own port.

        The oldest root in force signs it: a client that knows only that one must reach the CA to learn the next.
        """
        key = make_key()
        now = self._clock.now()
        oldest = next((root for root in self._roots if now < root.ends), self._signer)
        names = [x509.DNSName(name) for name in dns_names]
        leaf = oldest.sign(key.public_key(), names, self._default_lifetime, now)
        return key_pem(key), bundle_pem([leaf])

    def _new_root(self) -> Signer:
        return Signer.create(self.trust_domain, self._root_lifetime, self._clock.now())


def _parse_csr(csr: str) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        proven = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise SigningError("CSR_ERROR", "not a certificate request in PEM") from None
    if not proven:
        raise SigningError("CSR_ERROR", "not signed by the key it holds")
    return request
