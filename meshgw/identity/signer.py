"""A root and its key: what signs certificates, in the form istiod gives them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NoReturn, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshgw.identity.certificate import make_key

CLOCK_SKEW: Final = timedelta(minutes=2)
"""How long before its issue a certificate is already valid."""

_MAX_NAME: Final = 64


class SigningError(Exception):
    """A certificate that is not issued; `reason` is istiod's name for why, such as `CSR_ERROR`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class Signer:
    """A self-signed root and its key, which shows itself nowhere."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @classmethod
    def create(cls, organization: str, lifetime: timedelta, now: datetime) -> Self:
        """Return a new root with a new key."""
        key = make_key()
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:_MAX_NAME])])
        certificate = (
            _builder(name, key.public_key(), now - CLOCK_SKEW, now + lifetime)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def made(self) -> datetime:
        """When the root was made."""
        return self.certificate.not_valid_before_utc + CLOCK_SKEW

    @property
    def ends(self) -> datetime:
        """When the root ends."""
        return self.certificate.not_valid_after_utc

    def sign(
        self,
        public_key: CertificatePublicKeyTypes,
        names: Sequence[x509.GeneralName],
        lifetime: timedelta,
        now: datetime,
        *,
        common_name: str = "",
    ) -> x509.Certificate:
        """Return a certificate for servers and clients that ends with the root at the latest.

        Raises `SigningError` with `CA_NOT_READY` if the root has ended.
        """
        if now >= self.ends:
            raise SigningError("CA_NOT_READY", "the signing root has ended")
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if 0 < len(common_name) <= _MAX_NAME else []
        )
        return (
            _builder(subject, public_key, now - CLOCK_SKEW, min(now + lifetime, self.ends))
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            # As istiod does, with or without a subject; without one RFC 5280 4.2.1.6 demands it.
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled or copied")


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
