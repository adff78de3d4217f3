"""Throw-away certificates for tests: authorities, leaves with DNS, IP and URI names, expired ones, bundles."""

from __future__ import annotations

import base64
import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KeyType = Literal["p256", "rsa"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@functools.cache
def _rsa_key(index: int) -> rsa.RSAPrivateKey:
    """Return a 2048-bit key; made once per process because making one is slow."""
    del index
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def new_key(kind: KeyType = "p256") -> PrivateKey:
    """Return a fresh P-256 key, or the process's one RSA key."""
    return ec.generate_private_key(ec.SECP256R1()) if kind == "p256" else _rsa_key(0)


def key_pem(key: PrivateKey) -> bytes:
    """Return `key` as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True)
class Leaf:
    """An end-entity certificate: `chain` (leaf first, then intermediates) and `key`, both PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    root: bytes

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf itself."""
        return x509.load_pem_x509_certificate(self.chain)

    @property
    def serial(self) -> int:
        """The leaf's serial number, to tell one rotation from the next."""
        return self.certificate.serial_number

    def secret(self, name: str, namespace: str = "default", **extra: bytes) -> dict[str, Any]:
        """Return a Secret of type kubernetes.io/tls; `extra` adds keys (`ca_crt=...` becomes `ca.crt`)."""
        data = {"tls.crt": self.chain, "tls.key": self.key, **{k.replace("_", "."): v for k, v in extra.items()}}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }


@dataclass(frozen=True)
class CertificateAuthority:
    """A root or intermediate that issues leaves."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    root: bytes
    intermediates: bytes = b""

    @classmethod
    def create(cls, name: str = "rig root", *, key: KeyType = "p256") -> CertificateAuthority:
        """Return a new self-signed root."""
        private = new_key(key)
        certificate = _certificate(name, private, name, private, ca=True)
        return cls(certificate, private, certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def pem(self) -> bytes:
        """This authority's own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def intermediate(self, name: str = "rig intermediate") -> CertificateAuthority:
        """Return an authority signed by this one; its leaves carry the chain."""
        private = new_key()
        certificate = _certificate(name, private, self.common_name, self.key, ca=True)
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self.intermediates
        return CertificateAuthority(certificate, private, self.root, chain)

    @property
    def common_name(self) -> str:
        """The subject's common name."""
        value = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return value if isinstance(value, str) else value.decode()

    def issue(
        self,
        *dns: str,
        uris: Sequence[str] = (),
        ips: Sequence[str] = (),
        key: KeyType = "p256",
        lifetime: timedelta = timedelta(hours=1),
        age: timedelta = timedelta(minutes=5),
    ) -> Leaf:
        """Return a leaf for `dns`, `uris` and `ips`, good for server and client use, from `age` ago for `lifetime`."""
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
        private = new_key(key)
        subject = dns[0] if dns else ""
        certificate = _certificate(
            subject, private, self.common_name, self.key, ca=False, names=names, lifetime=lifetime, age=age
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return Leaf(pem + self.intermediates, key_pem(private), self.root)

    def expired(self, *dns: str, uris: Sequence[str] = ()) -> Leaf:
        """Return a leaf whose validity ended an hour ago."""
        return self.issue(*dns, uris=uris, age=timedelta(hours=3), lifetime=timedelta(hours=2))

    def config_map(self, name: str, namespace: str = "default") -> dict[str, Any]:
        """Return a ConfigMap with this root under `ca.crt`."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": {"ca.crt": self.root.decode()},
        }


def bundle(*authorities: CertificateAuthority) -> bytes:
    """Return the roots of `authorities` as one PEM file."""
    return b"".join(authority.root for authority in authorities)


@functools.cache
def authority(name: str = "rig root") -> CertificateAuthority:
    """Return the root called `name`, the same one for the whole test process."""
    return CertificateAuthority.create(name)


@functools.cache
def spiffe(account: str, namespace: str = "default", *, trust_domain: str = "cluster.local") -> Leaf:
    """Return a mesh workload certificate from `authority("mesh")`, cached for the test process."""
    return authority("mesh").issue(uris=(f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}",))


def _certificate(
    subject: str,
    key: PrivateKey,
    issuer: str,
    issuer_key: PrivateKey,
    *,
    ca: bool,
    names: Sequence[x509.GeneralName] = (),
    lifetime: timedelta = timedelta(hours=1),
    age: timedelta = timedelta(minutes=5),
) -> x509.Certificate:
    start = datetime.now(UTC) - age
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(key_usage(ca=ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject)
    if not ca:
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """Return what the key of a CA, or of a server or client, may be used for."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
