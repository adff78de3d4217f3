"""Bearer tokens: where a client gets them, and the service account tokens of the embedded CA."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from meshgw.identity.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeError, SpiffeId

AUDIENCE: Final = "istio-ca"
_ALGORITHM: Final = "ES256"
_ISSUER: Final = "meshgw"
_LIFETIME: Final = timedelta(minutes=10)

TokenSource = Callable[[SpiffeId], Awaitable[str]]
"""Returns a token that proves the identity; asked anew for every try. Raises `OSError` when it has none."""


class TokenError(Exception):
    """A token that proves nothing; the message says why and does not hold the token."""


class FileTokenSource:
    """The token in a file, read for every request, as the kubelet replaces projected tokens."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self, identity: SpiffeId) -> str:  # noqa: ARG002 - one file holds one identity
        """Return the token now in the file."""
        return (await asyncio.to_thread(self._path.read_text, "utf-8")).strip()


class ServiceAccountTokens:
    """Mints and verifies the service account tokens of one process; the signing key stays in its memory."""

    def __init__(self, trust_domain: str = DEFAULT_TRUST_DOMAIN, *, audience: str = AUDIENCE) -> None:
        self._trust_domain = trust_domain
        self._audience = audience
        self._key = ec.generate_private_key(ec.SECP256R1())

    async def __call__(self, identity: SpiffeId) -> str:
        """Return a token for `identity`, which makes this a `TokenSource`."""
        return self.mint(identity.namespace, identity.service_account)

    def mint(self, namespace: str, service_account: str, *, lifetime: timedelta = _LIFETIME) -> str:
        """Return a signed token for the service account; raises `SpiffeError` if it cannot have an identity."""
        identity = SpiffeId(trust_domain=self._trust_domain, namespace=namespace, service_account=service_account)
        now = datetime.now(UTC)
        claims = {
            "iss": _ISSUER,
            "aud": [self._audience],
            "sub": identity.account,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def verify(self, token: str) -> SpiffeId:
        """Return the identity that `token` proves; raises `TokenError`."""
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=[_ALGORITHM],
                audience=self._audience,
                issuer=_ISSUER,
                options={"require": ["aud", "exp", "iat", "iss", "sub"]},
            )
            return SpiffeId.of_account(self._trust_domain, claims["sub"])
        except jwt.InvalidTokenError as error:
            raise TokenError(type(error).__name__) from None
        except SpiffeError:
            raise TokenError("the subject is no service account") from None
