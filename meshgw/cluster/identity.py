"""Mesh certificates in a cluster: for a Gateway's ServiceAccount a token of the API server, for that one of istiod."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from meshgw.api.core import ConfigMap
from meshgw.api.meta import Key
from meshgw.identity.accounts import Identities, account_of
from meshgw.identity.address import CaAddress
from meshgw.identity.certificate import WorkloadCertificate
from meshgw.identity.errors import IssueError
from meshgw.identity.istiod import IstiodClient
from meshgw.identity.observer import IdentityObserver
from meshgw.identity.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId
from meshgw.identity.tokens import AUDIENCE
from meshgw.ir import backend
from meshgw.ir.gateway import IdentityProblem
from meshgw.kube.client import AccessError, ApiError, Client, resource_path

ROOTS_CONFIG_MAP: Final = "istio-ca-root-cert"
"""In every namespace, by istiod."""
ROOTS_KEY: Final = "root-cert.pem"
TOKEN_SECONDS: Final = 3600

ConfigMaps = Callable[[Key], ConfigMap | None]
"""Returns a ConfigMap as last seen."""
Publish = Callable[[Key, backend.WorkloadCertificate | None], None]
Tell = Callable[[Key, IdentityProblem | None], None]
"""Takes a ServiceAccount and why there is no new certificate for it, None when there is one."""


class IstiodSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which istiod, and how this cluster is called there."""

    address: str
    root_namespace: str
    cluster_id: str = ""
    lifetime: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for an address that is none."""
        CaAddress.parse(self.address)

    @property
    def server_name(self) -> str | None:
        """The name in istiod's certificate: the host of the address, unless that is a number or this machine."""
        target = CaAddress.parse(self.address).target
        return None if target.startswith("dns:") and "localhost" not in target else f"istiod.{self.root_namespace}.svc"


class TokenRequests:
    """Tokens of ServiceAccounts that istiod takes for their identity: of the API server, for an hour, never kept."""

    def __init__(self, client: Client, *, audience: str = AUDIENCE) -> None:
        self._client = client
        self._audience = audience

    async def __call__(self, identity: SpiffeId) -> str:
        """Return a new token; raises OSError."""
        path = resource_path(
            "v1",
            "serviceaccounts",
            namespace=identity.namespace,
            name=identity.service_account,
            subresource="token",
        )
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [self._audience], "expirationSeconds": TOKEN_SECONDS},
        }
        try:
            answer = await self._client.request("POST", path, body=msgspec.json.encode(request))
            return msgspec.json.decode(answer, type=_TokenAnswer).status.token
        except (ApiError, AccessError) as error:
            raise OSError(f"no token for ServiceAccount {identity.service_account}: {error}") from None
        except msgspec.MsgspecError:
            raise OSError("the API server's answer is no token") from None


class Istiod:
    """Certificates from istiod: verified by the roots of its root namespace, or else of the account's own.

    `tell` hears of every failure and of the success that ends it.
    """

    def __init__(self, client: Client, settings: IstiodSettings, config_maps: ConfigMaps, tell: Tell) -> None:
        self._settings = settings
        self._tokens = TokenRequests(client)
        self._config_maps = config_maps
        self._tell = tell
        self._ends: dict[Key, datetime] = {}

    async def fetch(self, identity: SpiffeId) -> WorkloadCertificate:
        """Return a new certificate; raises `IssueError`."""
        settings, account = self._settings, account_of(identity)
        source = IstiodClient(
            settings.address,
            roots=functools.partial(self._roots, identity.namespace),
            token=self._tokens,
            cluster_id=settings.cluster_id,
            server_name=settings.server_name,
            lifetime=timedelta(seconds=settings.lifetime),
        )
        try:
            certificate = await source.fetch(identity)
        except IssueError as error:
            ends = self._ends.get(account)
            has_one = ends is not None and ends > datetime.now(UTC)
            until = f"{ends:%Y-%m-%dT%H:%M:%SZ}" if ends is not None and has_one else ""
            self._tell(account, IdentityProblem(code=error.code, message=str(error), ends=until))
            raise
        self._ends[account] = certificate.not_after
        self._tell(account, None)
        return certificate

    async def _roots(self, namespace: str) -> bytes:
        bundle = find_roots(self._config_maps, self._settings.root_namespace, namespace)
        if not bundle:
            raise OSError(
                f"there is no ConfigMap {ROOTS_CONFIG_MAP} in {self._settings.root_namespace}: is istiod there?"
            )
        return bundle.encode()


def find_roots(config_maps: ConfigMaps, root_namespace: str, namespace: str) -> str:
    """Return the mesh roots that a ServiceAccount of a namespace trusts, in PEM, "" while there are none."""
    for each in (root_namespace, namespace):
        found = config_maps(Key(each, ROOTS_CONFIG_MAP))
        if found is not None and (bundle := found.data.get(ROOTS_KEY, "")):
            return bundle
    return ""


class MeshIdentities:
    """Certificates for the wanted ServiceAccounts, in one trust domain after another, renewed when roots change."""

    def __init__(
        self,
        source: Istiod,
        settings: IstiodSettings,
        config_maps: ConfigMaps,
        publish: Publish,
        *,
        observer: IdentityObserver,
    ) -> None:
        self._settings = settings
        self._config_maps = config_maps
        self._roots: Mapping[Key, str] = {}
        self.identities = Identities(source, publish, trust_domain=DEFAULT_TRUST_DOMAIN, observer=observer)

    @property
    def refused(self) -> Mapping[Key, str]:
        """Why a wanted ServiceAccount can have no identity."""
        return self.identities.refused

    def want(self, accounts: set[Key], *, trust_domain: str) -> None:
        """Keep certificates of exactly these ServiceAccounts; those whose roots are others than before get new ones."""
        if trust_domain != self.identities.trust_domain:
            self.identities.want(set())
            self.identities.trust_domain = trust_domain
        self.identities.want(accounts)
        before, self._roots = self._roots, {account: self._bundle(account) for account in accounts}
        changed = {account for account in accounts & before.keys() if before[account] != self._roots[account]}
        if changed:
            self.identities.renew(changed)

    async def run(self) -> None:
        """Keep them fresh until cancelled."""
        await self.identities.rotator.run()

    def _bundle(self, account: Key) -> str:
        return find_roots(self._config_maps, self._settings.root_namespace, account.namespace)


class _TokenStatus(msgspec.Struct, frozen=True):
    token: str = ""

    def __repr__(self) -> str:
        return "_TokenStatus(hidden)"


class _TokenAnswer(msgspec.Struct, frozen=True):
    status: _TokenStatus
