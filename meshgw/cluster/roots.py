"""The roots of the xDS server's own CA: which there should be at a time, which one signs, how a Secret holds them.

Every replica decides alike from the roots and the clock. A root is trusted by proxies for a while before it signs, and
for a while after it signed last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshgw.identity.certificate import PrivateKeyPem, bundle_pem, key_pem, make_key
from meshgw.identity.signer import Signer

BUNDLE: Final = "ca.crt"
OVERLAP: Final = timedelta(days=1)
_CERTIFICATE, _KEY = ".crt", ".key"
_ORGANIZATION: Final = "meshgw"


class RootsError(Exception):
    """Something that should be roots and keys and is not; the message holds none of it."""


class Plan(msgspec.Struct, frozen=True):
    """How long things last. Proxies must have a new bundle within `overlap`, servers a new certificate too."""

    root: timedelta = timedelta(days=365)
    overlap: timedelta = OVERLAP
    leaf: timedelta = timedelta(days=1)


class Served(msgspec.Struct, frozen=True):
    """What a server shows, and the roots by which proxies may verify it; all in PEM."""

    key: PrivateKeyPem
    chain: bytes
    trust: bytes
    ends: datetime


def renew(roots: Iterable[Signer], now: datetime, plan: Plan) -> tuple[Signer, ...]:
    """The roots there should be, oldest first: with a new one from half of the newest one's life on."""
    alive = sorted((root for root in roots if now < root.ends), key=lambda root: (root.made, name_of(root)))
    if not alive or now >= alive[-1].made + (alive[-1].ends - alive[-1].made) / 2:
        alive.append(Signer.create(_ORGANIZATION, plan.root, now))
    signer = choose_signer(alive, now, plan)
    if now >= signer.made + 2 * plan.overlap:  # it has signed for one: what the earlier ones signed is replaced
        alive = alive[alive.index(signer) :]
    return tuple(alive)


def choose_signer(roots: Sequence[Signer], now: datetime, plan: Plan) -> Signer:
    """The newest root that proxies have had time to learn of, else the oldest."""
    known = [root for root in roots if root.made + plan.overlap <= now]
    return known[-1] if known else roots[0]


def issue(roots: Sequence[Signer], names: Sequence[str], now: datetime, plan: Plan) -> Served:
    """A server's certificate for `names`, DNS names or IP addresses, from the root that signs now."""
    key = make_key()
    sans = [_general_name(name) for name in names]
    leaf = choose_signer(roots, now, plan).sign(key.public_key(), sans, plan.leaf, now)
    return Served(key_pem(key), bundle_pem([leaf]), trust_of(roots), leaf.not_valid_after_utc)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def is_due(served: Served, roots: Sequence[Signer], now: datetime, plan: Plan) -> bool:
    """Whether a server should have another certificate: at half its life, or when another root signs."""
    leaf = x509.load_pem_x509_certificate(served.chain)
    half = (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / 2
    try:
        leaf.verify_directly_issued_by(choose_signer(roots, now, plan).certificate)
    except (ValueError, TypeError, InvalidSignature):  # another root's name, kind of key, or key
        return True
    return now >= leaf.not_valid_before_utc + half or served.trust != trust_of(roots)


def trust_of(roots: Iterable[Signer]) -> bytes:
    """The certificates of all roots, in PEM."""
    return bundle_pem(root.certificate for root in roots)


def name_of(root: Signer) -> str:
    """A name that tells roots apart."""
    return root.certificate.fingerprint(hashes.SHA256()).hex()[:16]


def encode(roots: Sequence[Signer]) -> dict[str, bytes]:
    """The roots with their keys, as the data of a Secret."""
    data = {BUNDLE: trust_of(roots)}
    for root in roots:
        data[name_of(root) + _CERTIFICATE] = bundle_pem([root.certificate])
        data[name_of(root) + _KEY] = key_pem(root.key).reveal()
    return data


def decode(data: Mapping[str, bytes]) -> tuple[Signer, ...]:
    """The roots in the data of a Secret, oldest first; raises `RootsError` if any of it is not what `encode` writes."""
    names = sorted({name.rpartition(".")[0] for name in data if name != BUNDLE})
    roots = [_load(data.get(name + _CERTIFICATE, b""), data.get(name + _KEY, b""), name) for name in names]
    if encode(roots).keys() != data.keys() | {BUNDLE}:
        raise RootsError("there are entries that are no root's")
    return tuple(sorted(roots, key=lambda root: (root.made, name_of(root))))


def _load(certificate_pem: bytes, private_key: bytes, name: str) -> Signer:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RootsError(f"the root {name!r} or its key is not readable") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise RootsError(f"the root {name!r} has the key of another")
    return Signer(certificate, key)
