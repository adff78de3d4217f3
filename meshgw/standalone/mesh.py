"""Where a standalone instance has its mesh certificates from: a real istiod, or the embedded CA."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from meshgw.config import MeshSettings
from meshgw.identity.authority import MeshAuthority
from meshgw.identity.istiod import FileRootSource, IstiodClient
from meshgw.identity.selfsigned import EmbeddedCa
from meshgw.identity.spiffe import check_trust_domain
from meshgw.identity.tokens import FileTokenSource


class MeshSettingsError(Exception):
    """Mesh settings that cannot work; one line with the remedy."""


@asynccontextmanager
async def certificate_source(settings: MeshSettings, *, socket: str) -> AsyncIterator[IstiodClient]:
    """Yield a client of the CA; without an address, of an embedded one that lives as long as the context.

    `socket` is where the embedded CA listens (`unix:/path`). Raises MeshSettingsError.
    """
    lifetime = timedelta(seconds=settings.lifetime)
    try:
        check_trust_domain(settings.trust_domain)
        if settings.ca_address:
            client = _istiod(settings, lifetime)
    except ValueError as error:
        raise MeshSettingsError(f"{error}; see --mesh-ca and --trust-domain") from None
    if settings.ca_address:
        yield client
        return
    async with EmbeddedCa(MeshAuthority(settings.trust_domain), address=socket) as ca:
        yield IstiodClient(ca.address, roots=ca.roots, token=ca.tokens, plaintext=True, lifetime=lifetime)


def _istiod(settings: MeshSettings, lifetime: timedelta) -> IstiodClient:
    if settings.ca_roots is None or settings.token is None:
        raise MeshSettingsError("an istiod needs --mesh-ca-roots and --mesh-token beside --mesh-ca")
    return IstiodClient(
        settings.ca_address,
        roots=FileRootSource(settings.ca_roots),
        token=FileTokenSource(settings.token),
        cluster_id=settings.cluster_id,
        lifetime=lifetime,
    )
