from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from meshgw.api.core import Secret
from meshgw.api.meta import Key, ObjectMeta
from meshgw.ir.backend import Bundle, Certificate
from meshgw.resolve import tables as t
from meshgw.resolve.certificates import resolve_certificate
from tests.rig.certs import authority, bundle
from tests.unit.resolve.graph import config_map, new_graph, resolve, secret

CERT = Key("default", "cert")


def certificate(data: dict[str, bytes], kind: str = "kubernetes.io/tls") -> Certificate | None:
    row = Secret(metadata=ObjectMeta(name="cert", namespace="default"), type=kind, data=data)
    return next((found for _key, found in resolve_certificate(new_graph(), CERT, row)), None)


def own(key: Any, name: str = "a", *extensions: x509.ExtensionType) -> tuple[bytes, bytes]:
    """Return a self-signed certificate of a key, and the key."""
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    built = x509.CertificateBuilder(subject, subject, key.public_key(), 1, start, start + dt.timedelta(days=9))
    for extension in extensions:
        built = built.add_extension(extension, critical=False)
    pem = built.sign(key, digest).public_bytes(Encoding.PEM)
    return pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_a_good_certificate_is_kept_with_its_chain() -> None:
    leaf = authority().intermediate().issue("example.com")
    found = certificate({"tls.crt": b"# a remark\n" + leaf.chain, "tls.key": leaf.key})
    assert found is not None
    assert (found.name, found.error) == ("certificate/default/cert", "")
    assert found.chain == leaf.chain
    assert load_pem_private_key(found.key, None).public_key() == leaf.certificate.public_key()


def test_an_expired_certificate_is_served_as_its_owner_asked() -> None:
    leaf = authority().expired("example.com")
    found = certificate({"tls.crt": leaf.chain, "tls.key": leaf.key})
    assert found is not None
    assert not found.error


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_curves_that_envoy_serves_pass(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    chain, pem = own(key)
    traditional = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    for encoded in (pem, traditional):
        found = certificate({"tls.crt": chain, "tls.key": encoded})
        assert found is not None
        assert (found.error, found.key) == ("", pem)


def test_rsa_keys_pass_from_2048_bits() -> None:
    leaf = authority().issue("example.com", key="rsa")
    found = certificate({"tls.crt": leaf.chain, "tls.key": leaf.key})
    assert found is not None
    assert not found.error
    chain, key = own(rsa.generate_private_key(65537, 1024))
    weak = certificate({"tls.crt": chain, "tls.key": key})
    assert weak is not None
    assert "1024 bits" in weak.error


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())])
def test_keys_that_envoy_cannot_use_are_refused(key: Any) -> None:
    chain, pem = own(key)
    found = certificate({"tls.crt": chain, "tls.key": pem})
    assert found is not None
    assert "P-256" in found.error
    assert (found.chain, found.key) == (b"", b"")


def bad_data() -> dict[str, tuple[dict[str, bytes], str]]:
    leaf, other = authority().issue("a.example.com"), authority().issue("b.example.com")
    private = load_pem_private_key(leaf.key, None)
    locked = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    broken = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(b"nonsense") + b"\n-----END CERTIFICATE-----\n"
    return {
        "nothing": ({}, "tls.crt is missing"),
        "no key": ({"tls.crt": leaf.chain}, "tls.key is missing"),
        "empty key": ({"tls.crt": leaf.chain, "tls.key": b" \n"}, "tls.key is missing"),
        "no PEM": ({"tls.crt": b"Hello world\n", "tls.key": b"Hello world\n"}, "no readable PEM certificate"),
        "broken certificate": ({"tls.crt": broken, "tls.key": leaf.key}, "no readable PEM certificate"),
        "broken second": ({"tls.crt": leaf.chain + broken, "tls.key": leaf.key}, "no readable PEM certificate"),
        "broken key": ({"tls.crt": leaf.chain, "tls.key": leaf.chain}, "no readable, unencrypted PEM key"),
        "locked key": ({"tls.crt": leaf.chain, "tls.key": locked}, "no readable, unencrypted PEM key"),
        "another's key": ({"tls.crt": leaf.chain, "tls.key": other.key}, "does not belong"),
    }


@pytest.mark.parametrize("case", bad_data())
def test_a_bad_certificate_says_why_and_holds_nothing(case: str) -> None:
    data, error = bad_data()[case]
    found = certificate(data)
    assert found is not None
    assert error in found.error
    assert (found.chain, found.key) == (b"", b"")


def usage(*, digital_signature: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=True,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@pytest.mark.parametrize(
    ("name", "extensions", "error"),
    [
        ("", (), "neither a common name nor"),
        ("", (x509.SubjectAlternativeName([x509.RFC822Name("a@b")]),), "neither a common name nor"),
        ("", (x509.SubjectAlternativeName([x509.DNSName("a")]),), ""),
        ("", (x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://a/b")]),), ""),
        ("a", (usage(digital_signature=False),), "digital signatures"),
        ("a", (usage(digital_signature=True),), ""),
        ("a", (x509.TLSFeature([x509.TLSFeatureType.status_request]),), "OCSP stapling"),
        ("a", (x509.TLSFeature([x509.TLSFeatureType.status_request_v2]),), ""),
        ("a", (x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"broken"),), "unreadable extensions"),
    ],
)
def test_leaves_that_envoy_refuses_are_refused(
    name: str, extensions: tuple[x509.ExtensionType, ...], error: str
) -> None:
    chain, key = own(ec.generate_private_key(ec.SECP256R1()), name, *extensions)
    found = certificate({"tls.crt": chain, "tls.key": key})
    assert found is not None
    assert (error in found.error) if error else not found.error


def test_only_tls_like_secrets_are_certificates() -> None:
    leaf = authority().issue("example.com")
    assert certificate({"token": b"x"}, "Opaque") is None
    opaque = certificate({"tls.crt": leaf.chain, "tls.key": leaf.key}, "Opaque")
    assert opaque is not None
    assert not opaque.error


def test_a_key_never_shows_in_a_repr_or_an_error() -> None:
    leaf, other = authority().issue("example.com"), authority().issue("example.com")
    for key in (leaf.key, other.key, leaf.key[:60]):
        shown = repr(certificate({"tls.crt": leaf.chain, "tls.key": key}))
        assert key[30:50].decode() not in shown


@given(chain=st.binary(max_size=200), key=st.binary(max_size=200))
def test_no_input_raises(chain: bytes, key: bytes) -> None:
    marks = (b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n")
    wrapped = marks[0] + base64.b64encode(chain) + marks[1]
    for data in (chain, wrapped):
        found = certificate({"tls.crt": data, "tls.key": key})
        assert found is not None
        assert found.error


def get_bundle(text: str, kind: str = "ConfigMap") -> Bundle | None:
    return resolve(text).get(t.BUNDLES, (kind, Key("default", "ca")))


def ca(data: bytes, field: str = "data") -> str:
    value = data.decode() if field == "data" else base64.b64encode(data).decode()
    return yaml.safe_dump({"kind": "ConfigMap", "metadata": {"name": "ca"}, field: {"ca.crt": value}})


def test_a_bundle_may_hold_several_roots_each_once() -> None:
    one, two = authority("one"), authority("two")
    for field in ("data", "binaryData"):
        found = get_bundle(ca(b"roots:\n" + bundle(one, two, one), field))
        assert found == Bundle(name="bundle/configmap/default/ca", roots=bundle(one, two))


def test_a_secret_may_hold_a_bundle_too() -> None:
    document = authority().issue("x").secret("ca", ca_crt=authority().pem)
    found = get_bundle(yaml.safe_dump(document), "Secret")
    assert found == Bundle(name="bundle/secret/default/ca", roots=authority().pem)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "ca.crt is missing or empty"),
        (b"Hello", "no readable PEM certificate"),
        (b"-----BEGIN X509 CRL-----\n", "revocation list"),
    ],
)
def test_a_bad_bundle_says_why(data: bytes, error: str) -> None:
    found = get_bundle(ca(data))
    assert found is not None
    assert error in found.error
    assert not found.roots


def test_objects_without_ca_crt_are_no_bundles() -> None:
    text = "{kind: ConfigMap, metadata: {name: ca}, data: {other: x}}\n" + secret("ca")
    assert not resolve(text).rows(t.BUNDLES)


def test_config_map_and_secret_of_one_name_are_two_bundles() -> None:
    document = authority().issue("x").secret("ca", ca_crt=authority().pem)
    graph = resolve(config_map("ca") + "---\n" + yaml.safe_dump(document))
    assert len(graph.rows(t.BUNDLES)) == 2
