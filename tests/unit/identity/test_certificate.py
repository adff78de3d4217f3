from __future__ import annotations

import copy
import io
import pickle
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from rich.console import Console

from meshgw.identity.certificate import (
    PrivateKeyPem,
    WorkloadCertificate,
    accept_answer,
    bundle_pem,
    key_pem,
    make_csr,
    make_key,
)
from meshgw.identity.errors import AnswerRefusedError
from tests.rig.certs import CertificateAuthority, Leaf
from tests.unit.identity.parts import GATEWAY, OTHER, as_p256, leaf_of, uris_of

ROOT = CertificateAuthority.create("mesh")


def _issue(authority: CertificateAuthority = ROOT, *uris: str, lifetime: timedelta = timedelta(hours=1)) -> Leaf:
    return authority.issue(uris=uris or (GATEWAY.uri,), lifetime=lifetime)


def _accept(
    leaf: Leaf,
    *elements: bytes,
    anchors: tuple[CertificateAuthority, ...] = (ROOT,),
    trust_sent_roots: bool = False,
    now: datetime | None = None,
) -> WorkloadCertificate:
    return accept_answer(
        [element.decode() for element in (elements or (leaf.chain, leaf.root))],
        key=as_p256(serialization.load_pem_private_key(leaf.key, None)),
        identity=GATEWAY,
        anchors=[anchor.certificate for anchor in anchors],
        trust_sent_roots=trust_sent_roots,
        now=now or datetime.now(UTC),
    )


def test_good_answer_becomes_a_certificate() -> None:
    leaf = _issue()
    accepted = _accept(leaf)
    assert accepted.identity == GATEWAY
    assert accepted.chain_pem == leaf.chain
    assert accepted.roots_pem == ROOT.root
    assert accepted.private_key.reveal() == leaf.key
    assert accepted.not_before == leaf.certificate.not_valid_before_utc
    assert accepted.remaining(accepted.not_after - timedelta(seconds=7)) == 7


def test_intermediates_come_along_and_the_root_does_not() -> None:
    middle = ROOT.intermediate()
    leaf = _issue(middle)
    accepted = _accept(leaf, leaf.certificate.public_bytes(serialization.Encoding.PEM), middle.pem, ROOT.root)
    assert x509.load_pem_x509_certificates(accepted.chain_pem) == [leaf.certificate, middle.certificate]


def test_rsa_roots_are_understood() -> None:
    root = CertificateAuthority.create("rsa", key="rsa")
    assert _accept(_issue(root), anchors=(root,)).roots_pem == root.root


def test_leaf_may_end_at_any_of_several_roots() -> None:
    old, new = CertificateAuthority.create("root"), CertificateAuthority.create("root")
    for authority in (old, new):
        accepted = _accept(_issue(authority), anchors=(old, new))
        assert accepted.roots_pem == old.root + new.root


def test_sent_roots_join_the_bundle_only_if_the_channel_proved_the_ca() -> None:
    coming = CertificateAuthority.create("coming")
    leaf = _issue()
    assert _accept(leaf, leaf.chain, ROOT.root + coming.root).roots_pem == ROOT.root
    joined = _accept(leaf, leaf.chain, ROOT.root + coming.root, trust_sent_roots=True).roots_pem
    assert joined == ROOT.root + coming.root


def _refusal(leaf: Leaf, *elements: bytes, now: datetime | None = None, trust_sent_roots: bool = False) -> str:
    with pytest.raises(AnswerRefusedError) as caught:
        _accept(leaf, *elements, now=now, trust_sent_roots=trust_sent_roots)
    return caught.value.code


def test_foreign_root_is_refused_even_if_it_is_sent_along() -> None:
    leaf = _issue(CertificateAuthority.create("foreign"))
    assert _refusal(leaf) == _refusal(leaf, trust_sent_roots=True) == "UNTRUSTED_CHAIN"


def test_root_of_the_same_name_is_still_foreign() -> None:
    assert _refusal(_issue(CertificateAuthority.create("mesh"))) == "UNTRUSTED_CHAIN"


def test_missing_intermediate_is_refused() -> None:
    leaf = _issue(ROOT.intermediate())
    assert _refusal(leaf, leaf.certificate.public_bytes(serialization.Encoding.PEM), ROOT.root) == "UNTRUSTED_CHAIN"


def test_certificate_for_another_key_is_refused() -> None:
    leaf = _issue()
    assert _refusal(leaf, _issue().chain, ROOT.root) == "KEY_MISMATCH"


@pytest.mark.parametrize(
    "uris",
    [(OTHER.uri,), (GATEWAY.uri, OTHER.uri), (f"{GATEWAY.uri}x",), ("spiffe://other/ns/edge/sa/gateway",)],
)
def test_certificate_for_another_identity_is_refused(uris: tuple[str, ...]) -> None:
    assert _refusal(_issue(ROOT, *uris)) == "IDENTITY_MISMATCH"


def test_certificate_without_uri_or_without_san_is_refused() -> None:
    assert _refusal(ROOT.issue("istiod.istio-system.svc")) == "IDENTITY_MISMATCH"
    assert _refusal(ROOT.issue()) == "IDENTITY_MISMATCH"


def test_certificate_that_ended_or_has_not_begun_is_refused() -> None:
    leaf = _issue()
    end, start = leaf.certificate.not_valid_after_utc, leaf.certificate.not_valid_before_utc
    assert _refusal(leaf, now=end) == _refusal(leaf, now=start - timedelta(seconds=1)) == "NOT_VALID_NOW"


def test_answer_of_the_wrong_shape_is_refused() -> None:
    leaf = _issue()
    assert _refusal(leaf, leaf.chain) == "BAD_ANSWER"
    assert _refusal(leaf, b"x", leaf.root) == "BAD_ANSWER"
    assert _refusal(leaf, leaf.chain, b"") == "BAD_ANSWER"


def test_csr_is_for_a_p256_key_and_names_the_identity() -> None:
    key = make_key()
    request = x509.load_pem_x509_csr(make_csr(key, GATEWAY).encode())
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert key.curve.name == "secp256r1"
    assert request.subject.rdns == []
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [GATEWAY.uri]


def test_bundle_holds_each_certificate_once() -> None:
    other = CertificateAuthority.create("other")
    bundle = bundle_pem([ROOT.certificate, other.certificate, ROOT.certificate])
    assert x509.load_pem_x509_certificates(bundle) == [ROOT.certificate, other.certificate]


def test_leaf_helpers_read_the_uri() -> None:
    assert uris_of(leaf_of(_issue().chain)) == [GATEWAY.uri]


def test_private_key_shows_itself_to_nobody_but_reveal() -> None:
    certificate = _accept(_issue())
    secret = certificate.private_key.reveal().decode().splitlines()[1]
    screen = io.StringIO()
    Console(file=screen, width=4000).print(certificate, certificate.private_key)
    shown = f"{certificate} {certificate!r} {certificate.private_key} {msgspec.structs.asdict(certificate)}"
    assert secret not in shown + screen.getvalue()
    assert "PRIVATE KEY" not in shown + screen.getvalue()
    for encode in (msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins, pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            encode(certificate)
        assert secret not in str(caught.value)


def test_private_keys_compare_by_what_they_hold() -> None:
    key = make_key()
    assert key_pem(key) == key_pem(key)
    assert hash(key_pem(key)) == hash(key_pem(key))
    assert key_pem(key) != key_pem(make_key())
    assert PrivateKeyPem(b"x") != b"x"
