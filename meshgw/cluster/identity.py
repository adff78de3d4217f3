"""Mesh certificates in a cluster: for a Gateway's ServiceAccount a token of the API server, for that one of istiod."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from meshgw.api.core import ConfigMap
from meshgw.api.meta import Key
from meshgw.api.registry import Kind
from meshgw.cluster.configmap import ConfigMapWatch, Told
from meshgw.identity.accounts import Identities, account_of
from meshgw.identity.address import CaAddress
from meshgw.identity.certificate import WorkloadCertificate
from meshgw.identity.errors import IssueError
from meshgw.identity.istiod import IstiodClient
from meshgw.identity.observer import IdentityObserver
from meshgw.identity.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId
from meshgw.identity.tokens import AUDIENCE
from meshgw.ir import backend
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import IdentityProblem
from meshgw.kube.client import AccessError, ApiError, Client, resource_path
from meshgw.kube.seen import Seen

ROOTS_CONFIG_MAP: Final = "istio-ca-root-cert"
"""In every namespace, by istiod; who may write in one of them may change the one there."""
ROOTS_KEY: Final = "root-cert.pem"
TOKEN_SECONDS: Final = 3600

Bundle = Callable[[], str]
"""Returns the mesh roots in PEM, "" while there are none."""
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


class MeshRoots:
    """Keeps up with the roots by which istiod is verified: those in its root namespace, where no tenant can put others.

    `known` is set once they were seen, or are known to be absent or refused; `on_change` hears of others than before,
    `tell` of what keeps them from being read.
    """

    def __init__(
        self, client: Client, kind: Kind, *, namespace: str, on_change: Callable[[], None], tell: Told
    ) -> None:
        self.known = asyncio.Event()
        self.bundle = ""
        """The roots in PEM, "" while there are none."""
        self._on_change = on_change
        self._tell = tell
        self._watch = ConfigMapWatch(
            client, kind, Key(namespace, ROOTS_CONFIG_MAP), see=self._see, refused=self._refuse
        )

    async def run(self) -> None:
        """Keep up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(), name="mesh roots")
            await self._watch.synced.wait()
            self.known.set()

    def _see(self, seen: Seen) -> None:
        self._tell(seen.problems)
        row = seen.object if isinstance(seen.object, ConfigMap) else None
        if seen.problems or (row is None and not seen.gone):
            return
        before, self.bundle = self.bundle, row.data.get(ROOTS_KEY, "") if row is not None else ""
        if self.bundle != before:
            self._on_change()

    def _refuse(self, problem: Finding | None) -> None:
        self._tell(() if problem is None else (problem,))
        if problem is not None:
            self.known.set()


class Istiod:
    """Certificates from istiod, verified by the roots of the mesh.

    `tell` hears of every failure and of the success that ends it.
    """

    def __init__(self, client: Client, settings: IstiodSettings, roots: Bundle, tell: Tell) -> None:
        self._settings = settings
        self._tokens = TokenRequests(client)
        self._bundle = roots
        self._tell = tell
        self._ends: dict[Key, datetime] = {}

    async def fetch(self, identity: SpiffeId) -> WorkloadCertificate:
        """Return a new certificate; raises `IssueError`."""
        settings, account = self._settings, account_of(identity)
        source = IstiodClient(
            settings.address,
            roots=self._roots,
            token=self._tokens,
            cluster_id=settings.cluster_id,
            server_name=settings.server_name,
            lifetime=timedelta(seconds=settings.lifetime),
        )
        try:
            certificate = await source.fetch(identity)
        except IssueError as error:
            self._fail(account, error.code, str(error))
            raise
        except Exception as error:
            self._fail(account, "INTERNAL", f"INTERNAL: {type(error).__name__}")
            raise
        self._ends[account] = certificate.not_after
        self._tell(account, None)
        return certificate

    def _fail(self, account: Key, code: str, message: str) -> None:
        ends = self._ends.get(account)
        has_one = ends is not None and ends > datetime.now(UTC)
        until = f"{ends:%Y-%m-%dT%H:%M:%SZ}" if ends is not None and has_one else ""
        self._tell(account, IdentityProblem(code=code, message=message, ends=until))

    async def _roots(self) -> bytes:
        bundle = self._bundle()
        if not bundle:
            namespace = self._settings.root_namespace
            raise OSError(f"no ConfigMap {ROOTS_CONFIG_MAP} is seen in {namespace}: is istiod there?")
        return bundle.encode()


class MeshIdentities:
    """Certificates for the wanted ServiceAccounts, in one trust domain after another."""

    def __init__(self, source: Istiod, publish: Publish, *, observer: IdentityObserver) -> None:
        self.identities = Identities(source, publish, trust_domain=DEFAULT_TRUST_DOMAIN, observer=observer)

    @property
    def refused(self) -> Mapping[Key, str]:
        """Why a wanted ServiceAccount can have no identity."""
        return self.identities.refused

    def want(self, accounts: set[Key], *, trust_domain: str) -> None:
        """Keep certificates of exactly these ServiceAccounts.

        In a new trust domain each keeps the certificate that it has until the new one comes.
        """
        self.identities.trust_domain = trust_domain
        self.identities.want(accounts)

    def renew(self) -> None:
        """Get new certificates for everybody now, such as when the roots are others."""
        self.identities.renew()

    async def run(self) -> None:
        """Keep them fresh until cancelled."""
        await self.identities.rotator.run()


class _TokenStatus(msgspec.Struct, frozen=True):
    token: str = ""

    def __repr__(self) -> str:
        return "_TokenStatus(hidden)"


class _TokenAnswer(msgspec.Struct, frozen=True):
    status: _TokenStatus
