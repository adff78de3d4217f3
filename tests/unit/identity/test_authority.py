from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshgw.identity.authority import MeshAuthority
from meshgw.identity.certificate import make_csr, make_key
from meshgw.identity.signer import SigningError
from meshgw.identity.spiffe import SpiffeError, SpiffeId
from tests.unit.identity.parts import GATEWAY, OTHER, FakeClock, leaf_of, uris_of

CSR = make_csr(make_key(), GATEWAY)


def _csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, common_name: str = "") -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _issue(authority: MeshAuthority, seconds: int = 0) -> x509.Certificate:
    return leaf_of(authority.issue(CSR, GATEWAY, seconds)[0])


def _reason(authority: MeshAuthority, csr: str = CSR, seconds: int = 0) -> str:
    with pytest.raises(SigningError) as caught:
        authority.issue(csr, GATEWAY, seconds)
    return caught.value.reason


def test_leaf_is_what_istiod_issues() -> None:
    clock = FakeClock()
    key = make_key()
    authority = MeshAuthority(clock=clock)
    chain = authority.issue(make_csr(key, GATEWAY), GATEWAY)
    leaf, root = leaf_of(chain[0]), leaf_of(chain[1])
    assert leaf.public_key() == key.public_key()
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert leaf.subject.rdns == []
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert uris_of(leaf) == [GATEWAY.uri]
    assert leaf.not_valid_before_utc == clock.now() - timedelta(minutes=2)
    assert leaf.not_valid_after_utc == clock.now() + timedelta(hours=24)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.digital_signature, usage.value.key_encipherment, usage.value.key_cert_sign) == (
        True,
        True,
        False,
    )
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    leaf.verify_directly_issued_by(root)


def test_root_is_a_p256_authority_of_the_trust_domain() -> None:
    clock = FakeClock()
    root = leaf_of(MeshAuthority("mesh.example", clock=clock).roots_pem)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert root.subject.rfc4514_string() == "O=mesh.example"
    assert root.not_valid_after_utc == clock.now() + timedelta(days=3650)
    root.verify_directly_issued_by(root)


def test_names_in_the_csr_do_not_count() -> None:
    leaf = leaf_of(MeshAuthority().issue(make_csr(make_key(), OTHER), GATEWAY)[0])
    assert uris_of(leaf) == [GATEWAY.uri]


def test_csr_with_a_common_name_gets_the_identity_as_common_name() -> None:
    leaf = leaf_of(MeshAuthority().issue(_csr(make_key(), "evil"), GATEWAY)[0])
    assert leaf.subject.rfc4514_string() == f"CN={GATEWAY.uri}"
    assert uris_of(leaf) == [GATEWAY.uri]


def test_common_name_is_left_out_where_the_identity_is_too_long_for_it() -> None:
    long = SpiffeId(trust_domain="cluster.local", namespace="n" * 63, service_account="s")
    assert leaf_of(MeshAuthority().issue(_csr(make_key(), "x"), long)[0]).subject.rdns == []


def test_rsa_keys_are_certified_too() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert leaf_of(MeshAuthority().issue(_csr(key), GATEWAY)[0]).public_key() == key.public_key()


def test_lifetime_is_the_one_asked_for_down_to_seconds() -> None:
    clock = FakeClock()
    authority = MeshAuthority(clock=clock)
    assert _issue(authority, 3).not_valid_after_utc == clock.now() + timedelta(seconds=3)
    assert _issue(authority, -1).not_valid_after_utc == clock.now() + timedelta(hours=24)
    assert _issue(authority, 90 * 86400).not_valid_after_utc == clock.now() + timedelta(days=90)


@pytest.mark.parametrize("seconds", [90 * 86400 + 1, 2**63 - 1])
def test_lifetime_above_the_maximum_is_refused_and_not_clamped(seconds: int) -> None:
    assert _reason(MeshAuthority(), seconds=seconds) == "TTL_ERROR"


def test_leaf_ends_with_its_root() -> None:
    clock = FakeClock()
    authority = MeshAuthority(root_lifetime=timedelta(hours=1), clock=clock)
    assert _issue(authority).not_valid_after_utc == clock.now() + timedelta(hours=1)


def test_ended_root_signs_nothing_until_it_is_rotated() -> None:
    clock = FakeClock()
    authority = MeshAuthority(root_lifetime=timedelta(hours=1), clock=clock)
    clock.time += timedelta(hours=1)
    assert _reason(authority) == "CA_NOT_READY"
    authority.rotate_root()
    assert _issue(authority).not_valid_after_utc == clock.now() + timedelta(hours=1)


def _tampered() -> str:
    request = x509.load_pem_x509_csr(CSR.encode())
    encoded = bytearray(request.public_bytes(serialization.Encoding.DER))
    at = bytes(encoded).index(b"gateway")
    encoded[at : at + 7] = b"gatewax"
    return x509.load_der_x509_csr(bytes(encoded)).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("csr", ["", "x", CSR.replace("REQUEST", "THING"), CSR[:200], _tampered()])
def test_csr_that_proves_no_key_is_refused(csr: str) -> None:
    assert _reason(MeshAuthority(), csr) == "CSR_ERROR"


def test_rotation_keeps_the_old_root_in_the_bundle_until_it_is_retired() -> None:
    authority = MeshAuthority()
    old = leaf_of(authority.roots_pem)
    authority.rotate_root()
    new = x509.load_pem_x509_certificates(authority.roots_pem)[-1]
    assert x509.load_pem_x509_certificates(authority.roots_pem) == [old, new]
    assert x509.load_pem_x509_certificates(authority.issue(CSR, GATEWAY)[-1].encode()) == [old, new]
    _issue(authority).verify_directly_issued_by(new)
    authority.retire_roots()
    assert x509.load_pem_x509_certificates(authority.roots_pem) == [new]


def test_added_root_is_published_before_it_signs() -> None:
    authority = MeshAuthority()
    old = leaf_of(authority.roots_pem)
    authority.add_root()
    authority.add_root()
    waiting = x509.load_pem_x509_certificates(authority.roots_pem)
    assert len(waiting) == 2
    _issue(authority).verify_directly_issued_by(old)
    authority.rotate_root()
    assert x509.load_pem_x509_certificates(authority.roots_pem) == waiting
    _issue(authority).verify_directly_issued_by(waiting[1])


def test_server_certificate_has_the_names_asked_for() -> None:
    key, chain = MeshAuthority().issue_server(["istiod.istio-system.svc"])
    names = leaf_of(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["istiod.istio-system.svc"]
    loaded = serialization.load_pem_private_key(key.reveal(), None)
    assert loaded.public_key() == leaf_of(chain).public_key()


def test_oldest_root_in_force_signs_server_certificates() -> None:
    clock = FakeClock()
    authority = MeshAuthority(root_lifetime=timedelta(hours=2), clock=clock)
    clock.time += timedelta(hours=1)
    authority.rotate_root()
    old, new = x509.load_pem_x509_certificates(authority.roots_pem)
    leaf_of(authority.issue_server(["ca"])[1]).verify_directly_issued_by(old)
    clock.time += timedelta(hours=1)
    leaf_of(authority.issue_server(["ca"])[1]).verify_directly_issued_by(new)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SpiffeError):
        MeshAuthority("Not/a/domain")
    for default in (timedelta(0), timedelta(days=91)):
        with pytest.raises(ValueError, match="lifetime"):
            MeshAuthority(default_lifetime=default)
