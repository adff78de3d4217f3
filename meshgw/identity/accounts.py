"""Mesh certificates of ServiceAccounts, as the pipeline has them: whoever wants one, and each new one as a row."""

from __future__ import annotations

from collections.abc import Callable, Container

from meshgw.api.meta import Key
from meshgw.identity.certificate import WorkloadCertificate
from meshgw.identity.observer import IdentityObserver
from meshgw.identity.rotate import CertificateSource, Rotator
from meshgw.identity.spiffe import SpiffeError, SpiffeId
from meshgw.ir import backend


class Identities:
    """Keeps a certificate for each wanted ServiceAccount and passes each new one on."""

    def __init__(
        self,
        source: CertificateSource,
        publish: Callable[[Key, backend.WorkloadCertificate | None], None],
        *,
        trust_domain: str,
        observer: IdentityObserver,
    ) -> None:
        self.source = source
        self.refused: dict[Key, str] = {}
        """Why a wanted ServiceAccount can have no identity."""
        self.trust_domain = trust_domain
        """Of identities that are wanted from now on."""
        self._publish = publish
        self.rotator = Rotator(source, self._note, observer=observer)

    def want(self, accounts: set[Key]) -> None:
        """Keep exactly these ServiceAccounts' certificates fresh; names that no identity can have are `refused`.

        Where the trust domain has changed, what was published for a ServiceAccount stays until a new certificate comes.
        """
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
        served = {account_of(identity) for identity in wanted}
        for account in sorted({account_of(identity) for identity in kept} - served):
            self._publish(account, None)
        for identity in sorted(wanted - kept):
            self.rotator.add(identity)

    def renew(self, accounts: Container[Key] | None = None) -> None:
        """Fetch a new certificate now, for these ServiceAccounts or for everybody."""
        for identity in tuple(self.rotator.identities):
            if accounts is None or account_of(identity) in accounts:
                self.rotator.renew(identity)

    def _identity(self, account: Key) -> SpiffeId:
        return SpiffeId(trust_domain=self.trust_domain, namespace=account.namespace, service_account=account.name)

    def _note(self, certificate: WorkloadCertificate) -> None:
        row = backend.WorkloadCertificate(
            chain=certificate.chain_pem, key=certificate.private_key.reveal(), roots=certificate.roots_pem
        )
        self._publish(account_of(certificate.identity), row)


def account_of(identity: SpiffeId) -> Key:
    """Return the ServiceAccount of an identity."""
    return Key(identity.namespace, identity.service_account)
