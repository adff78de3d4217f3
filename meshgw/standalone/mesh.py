"""Mesh certificates of one standalone instance: from a real istiod, or from the embedded CA."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from meshgw.api.meta import Key
from meshgw.config import MeshSettings
from meshgw.identity.authority import MeshAuthority
from meshgw.identity.certificate import WorkloadCertificate
from meshgw.identity.istiod import FileRootSource, IstiodClient
from meshgw.identity.observer import IdentityObserver
from meshgw.identity.rotate import Rotator
from meshgw.identity.selfsigned import EmbeddedCa
from meshgw.identity.spiffe import SpiffeError, SpiffeId, check_trust_domain
from meshgw.identity.tokens import FileTokenSource
from meshgw.ir import backend


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


class Identities:
    """Keeps a certificate for each wanted ServiceAccount and passes each new one on."""

    def __init__(
        self,
        source: IstiodClient,
        publish: Callable[[Key, backend.WorkloadCertificate | None], None],
        *,
        trust_domain: str,
        observer: IdentityObserver,
    ) -> None:
        self.source = source
        self.refused: dict[Key, str] = {}
        """Why a wanted ServiceAccount can have no identity."""
        self._trust_domain = trust_domain
        self._publish = publish
        self.rotator = Rotator(source, self._note, observer=observer)

    def want(self, accounts: set[Key]) -> None:
        """Keep exactly these ServiceAccounts' certificates fresh; names that no identity can have are `refused`."""
        self.refused = {}
        wanted = set()
        for account in accounts:
            try:
                wanted.add(self._identity(account))
            except SpiffeError as error:
                self.refused[account] = str(error)
        kept = set(self.rotator.identities)
        for identity in sorted(kept - wanted):
            self.rotator.remove(identity)
            self._publish(Key(identity.namespace, identity.service_account), None)
        for identity in sorted(wanted - kept):
            self.rotator.add(identity)

    def renew(self) -> None:
        """Fetch a new certificate for everybody now."""
        for identity in tuple(self.rotator.identities):
            self.rotator.renew(identity)

    def _identity(self, account: Key) -> SpiffeId:
        return SpiffeId(trust_domain=self._trust_domain, namespace=account.namespace, service_account=account.name)

    def _note(self, certificate: WorkloadCertificate) -> None:
        identity = certificate.identity
        row = backend.WorkloadCertificate(
            chain=certificate.chain_pem, key=certificate.private_key.reveal(), roots=certificate.roots_pem
        )
        self._publish(Key(identity.namespace, identity.service_account), row)
