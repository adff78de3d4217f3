"""Certificates and CA bundles from Secrets and ConfigMaps: checked as Envoy would, so that it never has to refuse one.

What passes is written anew as plain PEM: Envoy and `cryptography` then read the same thing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from meshgw.api.core import ConfigMap, Secret
from meshgw.api.meta import Key
from meshgw.engine import View
from meshgw.ir.backend import Bundle, Certificate, bundle_name, certificate_name

TLS_SECRET = "kubernetes.io/tls"  # noqa: S105 - a type name
_CHAIN, _KEY, _ROOTS = "tls.crt", "tls.key", "ca.crt"
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_RSA_BITS = 2048
_NAMES = (x509.DNSName, x509.IPAddress, x509.UniformResourceIdentifier)
_EXTENSIONS = (x509.SubjectAlternativeName, x509.KeyUsage, x509.TLSFeature)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


class _UnusableError(Exception):
    """Why a certificate, key or bundle cannot be used; never holds any of its bytes."""


def resolve_certificate(_view: View, key: Key, row: Secret) -> Iterable[tuple[Key, Certificate]]:
    """Return the certificate of a TLS Secret, good or bad; other Secrets give none."""
    if row.type != TLS_SECRET and not {_CHAIN, _KEY} & row.data.keys():
        return
    name = certificate_name(key.namespace, key.name)
    try:
        chain = _certificates(row.data.get(_CHAIN, b""), _CHAIN)
        private = _private_key(row.data.get(_KEY, b""))
        _check_pair(chain[0], private)
        _check_leaf(chain[0])
    except _UnusableError as error:
        yield key, Certificate(name=name, error=str(error))
        return
    encoded = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    end = int(chain[0].not_valid_after_utc.timestamp())
    yield key, Certificate(name=name, chain=_pem(chain), key=encoded, not_after=end)


def resolve_bundle(
    _view: View, _table: Any, key: Key, row: ConfigMap | Secret
) -> Iterable[tuple[tuple[str, Key], Bundle]]:
    """Return the CA certificates that a ConfigMap or Secret holds under ca.crt, good or bad; without that key none."""
    if isinstance(row, ConfigMap):
        kind, text, binary = "ConfigMap", row.data.get(_ROOTS), row.binary_data.get(_ROOTS)
        data = text.encode() if text is not None else binary
    else:
        kind, data = "Secret", row.data.get(_ROOTS)
    if data is None:
        return
    name = bundle_name(kind, key.namespace, key.name)
    try:
        bundle = Bundle(name=name, roots=_pem(_roots(data)))
    except _UnusableError as error:
        bundle = Bundle(name=name, error=str(error))
    yield (kind, key), bundle


def _roots(data: bytes) -> list[x509.Certificate]:
    if b"-----BEGIN X509 CRL-----" in data:
        raise _UnusableError(f"{_ROOTS} holds a revocation list, which would be ignored")
    return list(dict.fromkeys(_certificates(data, _ROOTS)))


def _certificates(data: bytes, name: str) -> list[x509.Certificate]:
    if not data.strip():
        raise _UnusableError(f"{name} is missing or empty")
    try:
        with warnings.catch_warnings(action="ignore"):
            found = x509.load_pem_x509_certificates(data)
            for certificate in found:
                certificate.public_key()
    except _UNREADABLE:
        raise _UnusableError(f"{name} holds no readable PEM certificate") from None
    return found


def _private_key(data: bytes) -> PrivateKeyTypes:
    if not data.strip():
        raise _UnusableError(f"{_KEY} is missing or empty")
    try:
        private = load_pem_private_key(data, password=None)
    except _UNREADABLE:
        raise _UnusableError(f"{_KEY} holds no readable, unencrypted PEM key") from None
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < _RSA_BITS:
            raise _UnusableError(f"{_KEY} is an RSA key of {private.key_size} bits; at least {_RSA_BITS} are required")
    elif not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name not in _CURVES:
        raise _UnusableError(f"{_KEY} is neither an RSA key nor one of the curves P-256, P-384 and P-521")
    return private


def _check_pair(leaf: x509.Certificate, private: PrivateKeyTypes) -> None:
    def public(key: Any) -> bytes:
        encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return encoded

    if public(leaf.public_key()) != public(private.public_key()):
        raise _UnusableError(f"{_KEY} does not belong to the first certificate of {_CHAIN}")


def _check_leaf(leaf: x509.Certificate) -> None:
    """Refuse what makes Envoy refuse the whole listener, though the certificate itself can be read."""
    try:
        with warnings.catch_warnings(action="ignore"):
            names, usage, features = (_extension(leaf, kind) for kind in _EXTENSIONS)
            named = bool(leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    except (*_UNREADABLE, x509.DuplicateExtension):
        raise _UnusableError(f"{_CHAIN} holds a certificate with unreadable extensions") from None
    if not named and not any(isinstance(name, _NAMES) for name in names or ()):
        raise _UnusableError(f"the certificate of {_CHAIN} has neither a common name nor a DNS, IP or URI name")
    if usage is not None and not usage.digital_signature and isinstance(leaf.public_key(), ec.EllipticCurvePublicKey):
        raise _UnusableError(f"the certificate of {_CHAIN} may not be used for digital signatures")
    if x509.TLSFeatureType.status_request in (features or ()):
        raise _UnusableError(f"the certificate of {_CHAIN} requires OCSP stapling, which is not offered")


def _extension(leaf: x509.Certificate, kind: type[Any]) -> Any:
    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
