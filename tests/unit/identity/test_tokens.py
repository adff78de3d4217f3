from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from meshgw.identity.spiffe import SpiffeError
from meshgw.identity.tokens import FileTokenSource, ServiceAccountTokens, TokenError
from tests.unit.identity.parts import GATEWAY


async def test_file_token_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = FileTokenSource(path)
    path.write_text("first\n")
    assert await source(GATEWAY) == "first"
    path.write_text("second")
    assert await source(GATEWAY) == "second"


async def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await FileTokenSource(tmp_path / "token")(GATEWAY)


async def test_minted_token_proves_its_service_account() -> None:
    tokens = ServiceAccountTokens()
    assert tokens.verify(tokens.mint("edge", "gateway")) == GATEWAY
    assert tokens.verify(await tokens(GATEWAY)) == GATEWAY


def test_minted_token_has_the_claims_istiod_reads() -> None:
    claims = jwt.decode(ServiceAccountTokens().mint("edge", "gateway"), options={"verify_signature": False})
    assert claims["aud"] == ["istio-ca"]
    assert claims["sub"] == "system:serviceaccount:edge:gateway"
    assert claims["exp"] - claims["iat"] == 600


def test_no_token_for_what_cannot_be_an_identity() -> None:
    with pytest.raises(SpiffeError):
        ServiceAccountTokens().mint("edge", "a/b")


def _forge(tokens: ServiceAccountTokens, **changes: object) -> str:
    now = datetime.now(UTC)
    claims: dict[str, object] = {
        "iss": "meshgw", "aud": ["istio-ca"], "sub": GATEWAY.account, "iat": now, "exp": now + timedelta(minutes=1),
    } | changes  # fmt: skip
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, tokens._key, algorithm="ES256")


def test_the_forged_token_of_these_tests_is_believed_when_nothing_is_changed() -> None:
    tokens = ServiceAccountTokens()
    assert tokens.verify(_forge(tokens)) == GATEWAY


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": ["kubernetes"]}, "InvalidAudienceError"),
        ({"aud": None}, "MissingRequiredClaimError"),
        ({"iss": "elsewhere"}, "InvalidIssuerError"),
        ({"exp": datetime.now(UTC) - timedelta(seconds=5)}, "ExpiredSignatureError"),
        ({"exp": None}, "MissingRequiredClaimError"),
        ({"nbf": datetime.now(UTC) + timedelta(days=1)}, "ImmatureSignatureError"),
        ({"sub": "system:node:edge:gateway"}, "no service account"),
        ({"sub": "system:serviceaccount:edge:a/b"}, "no service account"),
        ({"sub": None}, "MissingRequiredClaimError"),
    ],
)
def test_token_that_proves_nothing_is_refused(changes: dict[str, object], reason: str) -> None:
    tokens = ServiceAccountTokens()
    with pytest.raises(TokenError, match=reason):
        tokens.verify(_forge(tokens, **changes))


def test_token_of_another_key_is_refused() -> None:
    with pytest.raises(TokenError, match="InvalidSignatureError"):
        ServiceAccountTokens().verify(ServiceAccountTokens().mint("edge", "gateway"))


def test_unsigned_and_symmetric_tokens_are_refused() -> None:
    tokens = ServiceAccountTokens()
    claims = jwt.decode(tokens.mint("edge", "gateway"), options={"verify_signature": False})
    for forged in (jwt.encode(claims, None, algorithm="none"), jwt.encode(claims, "x" * 32, algorithm="HS256"), "x"):
        with pytest.raises(TokenError):
            tokens.verify(forged)


def test_reprs_do_not_hold_the_signing_key() -> None:
    tokens = ServiceAccountTokens()
    assert isinstance(tokens._key, ec.EllipticCurvePrivateKey)
    assert str(tokens._key.private_numbers().private_value) not in repr(tokens) + repr(vars(tokens))
