"""The node proxies, running: two Envoys of the demo's own, configured over xDS as the waypoint is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

from meshgw.api.meta import Key
from meshgw.demo.plan import NAMESPACE, Plan
from meshgw.demo.proxies import accounts, client_resources, secrets, workload_resources
from meshgw.emit.resource import Resource
from meshgw.identity.accounts import Identities
from meshgw.identity.observer import SilentObserver
from meshgw.identity.rotate import CertificateSource
from meshgw.ir.backend import WorkloadCertificate
from meshgw.standalone.fleet import Fleet, ProxyOptions
from meshgw.standalone.runtime import RuntimeDirectory
from meshgw.standalone.supervise import EnvoyFailedError, SupervisorEvent
from meshgw.xds.cache import Cache
from meshgw.xds.proxy import Peer, ProxyState, Refused
from meshgw.xds.server import AdsServer

CLIENTS: Final = Key("node", "clients")
WORKLOADS: Final = Key("node", "workloads")
_LIVE_WITHIN: Final = 30.0


class DemoError(Exception):
    """The demo's mesh cannot be set up; one line with the cause."""


class NodeProxies:
    """Both node proxies; `identities` keeps their certificates."""

    def __init__(self, plan: Plan, source: CertificateSource, runtime: RuntimeDirectory) -> None:
        self.server = AdsServer(Cache(), authorize=self._authorize, listen=runtime.xds, on_proxy=self._note_proxy)
        self.identities = Identities(
            source, self._note_certificate, trust_domain=plan.trust_domain, observer=SilentObserver()
        )
        self._accounts = {CLIENTS: accounts(plan.clients), WORKLOADS: accounts(plan.workloads)}
        self._certified: set[str] = set()
        self._moved = asyncio.Event()
        self._refusals: dict[str, str] = {}
        for group, resources in ((CLIENTS, client_resources(plan)), (WORKLOADS, workload_resources(plan))):
            self.server.publish(str(group), _changes(resources), ready=True)

    @contextlib.asynccontextmanager
    async def run(self, runtime: RuntimeDirectory, options: ProxyOptions) -> AsyncIterator[None]:
        """Run both until the block ends; the block begins once they serve. Raises DemoError."""
        with runtime.acquire():
            async with asyncio.TaskGroup() as tasks:
                fleet = Fleet(tasks, runtime, options, on_change=self._note_envoy)
                self.identities.want({Key(NAMESPACE, name) for names in self._accounts.values() for name in names})
                background = [
                    tasks.create_task(self.server.run(), name="node xds"),
                    tasks.create_task(self.identities.rotator.run(), name="node certificates"),
                ]
                try:
                    async with asyncio.timeout(_LIVE_WITHIN):
                        await self.server.started.wait()
                        await self._wait_certified()
                        fleet.want({CLIENTS, WORKLOADS})
                        await self._wait_live(fleet)
                except TimeoutError:
                    raise DemoError(f"the node proxies do not serve within {_LIVE_WITHIN:g} s") from None
                try:
                    yield
                finally:
                    await fleet.stop()
                    for task in background:
                        task.cancel()

    async def _wait_certified(self) -> None:
        """Wait until everybody has a certificate, so that no proxy ever serves without."""
        while not all(self._certified >= set(names) for names in self._accounts.values()):
            self._moved.clear()
            await self._moved.wait()

    async def _wait_live(self, fleet: Fleet) -> None:
        while not (fleet.is_live(CLIENTS) and fleet.is_live(WORKLOADS)):
            self._moved.clear()
            if problems := [*fleet.errors.values(), *self._refusals.values()]:
                raise DemoError(f"a node proxy does not run: {problems[0]}")
            await self._moved.wait()

    def _authorize(self, _peer: Peer, node_id: str, _metadata: Mapping[str, object]) -> str | Refused:
        return node_id if node_id in {str(CLIENTS), str(WORKLOADS)} else Refused("unknown proxy")

    def _note_proxy(self, state: ProxyState) -> None:
        self._refusals.update({kind: found.nack for kind, found in state.types.items() if found.nack})
        self._moved.set()

    def _note_envoy(self, _key: Key, _event: SupervisorEvent | EnvoyFailedError) -> None:
        self._moved.set()

    def _note_certificate(self, account: Key, certificate: WorkloadCertificate | None) -> None:
        if certificate is None:
            return
        self._certified.add(account.name)
        self._moved.set()
        for group, names in self._accounts.items():
            if account.name in names:
                self.server.publish(str(group), _changes(secrets(account.name, certificate)))


def _changes(resources: Iterable[Resource]) -> dict[tuple[str, str], Resource | None]:
    return {(resource.type_url, resource.name): resource for resource in resources}
