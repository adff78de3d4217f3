"""Roots and what they sign; istiod's form of it is tested with the authority."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509 import verification

from meshgw.identity.certificate import make_key
from meshgw.identity.signer import Signer, SigningError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NAMES = (x509.DNSName("meshgw.meshgw-system.svc"),)


def test_what_a_root_signs_is_verified_by_it_and_by_no_other() -> None:
    root, other = (Signer.create("meshgw", 10 * DAY, NOW) for _ in range(2))
    leaf = root.sign(make_key().public_key(), NAMES, DAY, NOW)
    policy = verification.PolicyBuilder().time(NOW)
    policy.store(verification.Store([other.certificate, root.certificate])).build_server_verifier(NAMES[0]).verify(
        leaf, []
    )
    with pytest.raises(verification.VerificationError):
        policy.store(verification.Store([other.certificate])).build_server_verifier(NAMES[0]).verify(leaf, [])


def test_a_root_knows_when_it_was_made_and_nothing_it_signs_outlives_it() -> None:
    root = Signer.create("meshgw", 10 * DAY, NOW)
    assert (root.made, root.ends) == (NOW, NOW + 10 * DAY)
    leaf = root.sign(make_key().public_key(), NAMES, DAY, NOW + 9.5 * DAY)
    assert leaf.not_valid_after_utc == root.ends
    with pytest.raises(SigningError, match="CA_NOT_READY"):
        root.sign(make_key().public_key(), NAMES, DAY, root.ends)


def test_a_key_goes_nowhere() -> None:
    root = Signer.create("meshgw", DAY, NOW)
    with pytest.raises(TypeError):
        pickle.dumps(root)
    with pytest.raises(TypeError):
        copy.copy(root)
