"""The mesh that the Gateways of a cluster are part of: what Istio says of it, and certificates from istiod."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping

from meshgw.api.meta import Key
from meshgw.api.registry import Registry
from meshgw.cluster.facts import ClusterFacts
from meshgw.cluster.identity import Istiod, IstiodSettings, MeshIdentities, MeshRoots
from meshgw.cluster.meshconfig import MeshConfig, MeshConfigWatch
from meshgw.config import IstioSettings
from meshgw.identity.observer import IdentityObserver
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.gateway import IdentityProblem
from meshgw.kube.client import Client
from meshgw.resolve import tables as t

TrustDomains = tuple[str, ...]
"""The trust domain, and its aliases."""


class Mesh:
    """Certificates and what is wrong with them become facts; `on_trust_domains` hears what Istio says of itself."""

    def __init__(
        self,
        client: Client,
        istio: IstioSettings,
        registry: Registry,
        facts: ClusterFacts,
        *,
        on_trust_domains: Callable[[TrustDomains], None],
        observer: IdentityObserver,
    ) -> None:
        """Raise ValueError for settings that cannot work."""
        self._istio = istio
        self._facts = facts
        self._on_trust_domains = on_trust_domains
        settings = IstiodSettings(
            address=istio.address,
            root_namespace=istio.root_namespace,
            cluster_id=istio.cluster_id,
            lifetime=istio.lifetime,
        )
        kind = registry.by_name("ConfigMap")
        assert kind is not None  # noqa: S101 - the core's own kind
        self._roots = MeshRoots(
            client,
            kind,
            namespace=istio.root_namespace,
            on_change=self._renew,
            tell=functools.partial(facts.tell, "mesh roots"),
        )
        self._config = MeshConfigWatch(
            client,
            kind,
            namespace=istio.root_namespace,
            revision=istio.revision,
            on_change=self._change,
            tell=functools.partial(facts.tell, "mesh configuration"),
        )
        istiod = Istiod(client, settings, lambda: self._roots.bundle, self._tell)
        self._identities = MeshIdentities(istiod, self._publish, observer=observer)
        self.known = asyncio.Event()
        """Set once Istio's configuration and roots have been read, or nobody says anything."""

    def missing(self) -> list[str]:
        """Return what has not been read yet."""
        parts = {str(self._config.key): self._config.known, "the roots of the mesh": self._roots.known}
        return [f"not seen yet: {name}" for name, known in parts.items() if not known.is_set()]

    @property
    def refused(self) -> Mapping[Key, str]:
        """Why a wanted ServiceAccount can have no identity."""
        return self._identities.refused

    def want(self, accounts: set[Key], *, trust_domain: str) -> None:
        """Keep certificates of exactly these ServiceAccounts."""
        self._identities.want(accounts, trust_domain=trust_domain)

    async def run(self) -> None:
        """Keep up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._config.run(), name="mesh configuration")
            tasks.create_task(self._roots.run(), name="mesh roots")
            tasks.create_task(self._identities.run(), name="certificates")
            await self._config.known.wait()
            await self._roots.known.wait()
            self.known.set()

    def _renew(self) -> None:
        if self._roots.bundle:
            self._identities.renew()

    def _tell(self, account: Key, problem: IdentityProblem | None) -> None:
        self._facts.put(t.IDENTITY_PROBLEMS, account, problem)

    def _publish(self, account: Key, row: WorkloadCertificate | None) -> None:
        self._facts.put(t.WORKLOAD_CERTIFICATES, account, row)
        if row is None:
            self._tell(account, None)

    def _change(self, found: MeshConfig) -> None:
        trust_domain = self._istio.trust_domain or found.trust_domain
        aliases = dict.fromkeys((*self._istio.trust_domain_aliases, *found.trust_domain_aliases))
        self._on_trust_domains((trust_domain, *aliases))
