"""Composition root of the controller in a cluster: watches, pipeline, xDS, identities and writers in one task group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from meshgw.api.meta import Key, ObjectRef
from meshgw.api.registry import Kind
from meshgw.cluster.accounts import own_accounts, served_gateway
from meshgw.cluster.authenticate import TokenReviewer, authorize_owners
from meshgw.cluster.health import serve_health, serve_metrics
from meshgw.cluster.leading import Leading
from meshgw.cluster.mesh import Mesh, TrustDomains
from meshgw.cluster.observations import Observations
from meshgw.cluster.parts import make_certificates, make_elector, make_settings, unless
from meshgw.cluster.places import ServicePlacing
from meshgw.cluster.proxies import serve_proxies
from meshgw.cluster.scope import Scope
from meshgw.cluster.serving import ServingCertificate
from meshgw.cluster.workloads import Workloads
from meshgw.config import ClusterSettings
from meshgw.control import Batch, Control, Outcome
from meshgw.diagnose.blame import blame
from meshgw.diagnose.expiry import find_expired
from meshgw.emit import tables as out
from meshgw.emit.resource import Resource
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Settings
from meshgw.kube.client import Client
from meshgw.kube.seen import Seen
from meshgw.observe.heap import unwatched
from meshgw.observe.log import get_logger
from meshgw.observe.metrics import Metrics
from meshgw.observe.stalls import watch_stalls
from meshgw.pipeline import list_facts, list_kinds
from meshgw.resolve import tables as t
from meshgw.write.events import EventWriter
from meshgw.write.objects import ObjectWriter
from meshgw.write.statuses import StatusWriter
from meshgw.xds.cache import Cache
from meshgw.xds.proxy import ProxyState
from meshgw.xds.refusals import Refusals
from meshgw.xds.server import AdsServer
from meshgw.xds.transport import tls_credentials

_log = get_logger("app")

_APART = 0.005
"""Seconds between commits: in a burst, all that comes meanwhile is one. A change by itself waits for nothing."""
_COUNT_AGAIN = 30.0
"""Seconds between counts of findings."""
_AFTER_FAILURE = 5.0
"""Seconds from a commit that failed to the next."""
_RECONSIDER = 300.0
"""Seconds after which what was set aside is tried again; each time costs a computation of everything."""


class Application:
    """One replica of the controller; `run` is its whole life."""

    def __init__(
        self, settings: ClusterSettings, scope: Scope, client: Client, *, metrics: Metrics | None = None
    ) -> None:
        """Raise ValueError for settings that cannot work."""
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.registry = list_kinds()
        self.ready = asyncio.Event()
        """Set while this replica serves."""
        self.observations = Observations(
            client,
            scope,
            self.registry,
            sink=self._see,
            owned_sink=self._see_owned,
            on_leave=self._leave,
            root=make_settings(settings).root_namespace,
        )
        self.metrics.watch_faults(self.observations.faults)
        self.facts = self.observations.facts
        self.workloads = Workloads(self.facts.poke)
        self.placing = ServicePlacing(self.workloads.shortfall)
        self.serving = ServingCertificate(
            make_certificates(client, settings), on_trust=self._trust, observer=self.metrics
        )
        self.server: AdsServer | None = None
        """There is one from the first commit on."""
        self._settings = make_settings(settings)
        self.control = Control(
            settings=self._settings,
            placing=self.placing,
            publish=self._publish,
            metrics=self.metrics,
            incremental=settings.incremental,
        )
        self.mesh = (
            Mesh(
                client,
                settings.istio,
                self.registry,
                self.facts,
                on_trust_domains=self._trust_domains,
                observer=self.metrics,
            )
            if settings.istio
            else None
        )
        self.leading = Leading()
        self.leading.elector = make_elector(client, settings, self._lead)
        self.statuses = StatusWriter(
            client,
            registry=self.registry,
            controller=settings.controller_name,
            hold=self.leading.hold,
            version=self.observations.watches.version_of,
            observer=self.metrics,
        )
        self.objects = ObjectWriter(
            client,
            controller=settings.controller_name,
            home=settings.home,
            hold=self.leading.hold,
            report=self.workloads.note,
            observer=self.metrics,
        )
        self.events = EventWriter(client, registry=self.registry, instance=settings.instance, observer=self.metrics)
        self._reviewer = TokenReviewer(client, observer=self.metrics)
        self._refusals = Refusals()
        self._known: set[Key] = set()
        self._owed: list[tuple[Outcome, Collection[object]]] = []
        """Commits that not everybody could follow, with the tables of their facts: tried once more."""
        self._stage = "starting"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then end in order. Raises OSError when an address cannot be listened on."""
        settings = self.settings
        async with (
            serve_health(settings.health_listen, self.missing),
            serve_metrics(settings.metrics_listen, self.metrics),
            serve_proxies(self._proxies, time.monotonic, listen=settings.proxies_listen),
            asyncio.TaskGroup() as tasks,
        ):
            background = [
                tasks.create_task(self.observations.run(), name="observations"),
                tasks.create_task(self.serving.run(), name="xds certificate"),
                tasks.create_task(watch_stalls(self.metrics.stalls.observe), name="stalls"),
            ]
            if self.mesh is not None:
                background.append(tasks.create_task(self.mesh.run(), name="mesh"))
            try:
                if await unless(stop, self._prepare()):
                    await self._serve(tasks, stop)
            finally:
                for task in background:
                    task.cancel()

    def missing(self) -> Sequence[str]:
        """Return what keeps this replica from being ready, nothing when it is."""
        if self.ready.is_set():
            return ()
        if self._stage != "starting":
            return (self._stage,)
        certificate = () if self.serving.ready.is_set() else ("no certificate for xDS yet",)
        problems = (f"{found.code} {found.object}: {found.message}" for found in self.observations.findings())
        mesh = self.mesh.missing() if self.mesh is not None else ()
        return (self._stage, *certificate, *mesh, *self.observations.missing(), *problems)

    def findings(self) -> list[Finding]:
        """Return everything there is to say, sorted."""
        return self.control.findings(
            self.observations.findings(),
            self._refusals.findings(),
            self.control.nameless(self.mesh.refused if self.mesh is not None else {}),
            find_expired(self.control.graph, time.time()),
        )

    async def _prepare(self) -> None:
        """Wait until all is known that a first commit needs; nothing is published before."""
        await self.serving.ready.wait()
        if self.mesh is not None:
            await self.mesh.known.wait()
        await self.observations.settle(self._settings)

    def _proxies(self) -> tuple[ProxyState, ...]:
        """Return the connected proxies."""
        return self.server.proxies() if self.server is not None else ()

    async def _serve(self, tasks: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        self.server = AdsServer(
            Cache(),
            authorize=authorize_owners(self._gateway_of),
            listen=self.settings.xds_listen,
            credentials=tls_credentials(self.serving.current),
            authenticate=self._reviewer,
            observer=self.metrics,
            on_proxy=self._note_proxy,
        )
        with unwatched():
            self._commit()
        writers = (self.statuses, self.objects)
        xds = tasks.create_task(self.server.run(), name="xds")
        elector = self.leading.elector
        election = [tasks.create_task(elector.run(), name="election")] if elector is not None else []
        rest = [
            tasks.create_task(self._follow_facts(), name="commits"),
            tasks.create_task(self._count_findings(), name="findings"),
            tasks.create_task(self._reconsider(), name="set aside"),
            tasks.create_task(self.events.run(), name="events"),
            tasks.create_task(self.leading.run(writers), name="writers"),
        ]
        await self.server.started.wait()
        self._stage = "serving"
        self.ready.set()
        _log.info("serving", xds=self.server.address, gateways=len(self._known))
        await stop.wait()
        self._stage = "stopping"
        self.ready.clear()
        _log.info("stopping")
        await self.leading.finish(writers)
        for task in election:
            task.cancel()  # gives the Lease back
        await asyncio.sleep(self.settings.shutdown_delay)
        for task in (xds, *rest):
            task.cancel()

    async def _follow_facts(self) -> None:
        clock = asyncio.get_running_loop().time
        last = clock()
        while True:
            await self.facts.changed.wait()
            await asyncio.sleep(max(0.0, last + _APART - clock()))
            await self.observations.anticipate(self.control.graph)
            try:
                self._commit()
            except Exception:  # noqa: BLE001 - a bug: what is known serves on, and the same is tried again
                self._note_failure("not committed")
                await asyncio.sleep(_AFTER_FAILURE)
            last = clock()

    async def _reconsider(self) -> None:
        while True:
            await asyncio.sleep(_RECONSIDER)
            if aside := self.control.aside:
                self.facts.offer(aside)

    async def _count_findings(self) -> None:
        while True:
            self.control.count(self.findings())
            await asyncio.sleep(_COUNT_AGAIN)

    def _commit(self) -> None:
        """Commit what has been seen, and let everything follow."""
        moved = self.facts.moved
        batch: Batch = self.facts.take()
        try:
            outcome = self.control.commit(batch, moved=moved)
        except Exception:
            self.facts.offer(batch)
            raise
        news = (outcome, batch.keys())
        again, self._owed = self._owed, []
        for owed in (*again, news):
            try:
                self._follow(*owed)
            except Exception:  # noqa: BLE001 - a bug of one who follows must not keep commits from all
                self._note_failure("not followed")
                if owed is news:
                    self._owed.append(owed)
        if self._owed:
            asyncio.get_running_loop().call_later(_AFTER_FAILURE, self.facts.poke)

    def _note_failure(self, event: str) -> None:
        _log.exception(event)
        self.metrics.commit_failures.inc()

    def _follow(self, outcome: Outcome, tables: Collection[object]) -> None:
        """Let everything follow a commit; doing so twice does no harm."""
        for delta in outcome.deltas:
            self.statuses.desire({ref: new for ref, (_old, new) in delta.changed(t.STATUSES).items()})
            self.objects.desire(
                {ref: new for ref, (_old, new) in delta.changed(out.PROXY_OBJECTS).items()},
                {key: new for key, (_old, new) in delta.changed(t.PROXY_PLANS).items()},
            )
            for name, (_old, new) in delta.changed(t.CLASSES).items():
                if new is not None:
                    self.facts.put(t.REMEMBERED_CLASSES, name, new)
        self.observations.follow(outcome, self.control.graph)
        if outcome.gateways:
            self._follow_gateways()
        if outcome.gateways or {t.SERVICE_ACCOUNTS, t.SETTINGS} & set(tables):
            self._follow_accounts()
        for finding in outcome.set_aside:
            self._tell(finding.object, "InternalError", finding.message)

    def _follow_gateways(self) -> None:
        assert self.server is not None  # noqa: S101 - there is one before the first commit
        gateways = set(self.control.gateways())
        for key in gateways - self._known:
            self.server.mark_ready(str(key))
        for key in self._known - gateways:
            self.server.forget(str(key))
        self._known = gateways

    def _follow_accounts(self) -> None:
        """Want certificates for the ServiceAccounts of Gateways, as soon as these are there and theirs."""
        if self.mesh is not None:
            self.mesh.want(own_accounts(self.control.graph), trust_domain=self._settings.trust_domain)

    def _see(self, kind: Kind, seen: Sequence[Seen]) -> None:
        self.facts.see(kind, seen)
        self.statuses.observe(kind, seen)
        if kind.name == "Gateway":
            self.placing.see(seen)
            self.workloads.see(kind, seen)

    def _see_owned(self, kind: Kind, seen: Sequence[Seen]) -> None:
        self.objects.observe(kind, seen)
        self.workloads.see(kind, seen)

    def _leave(self, namespace: str) -> None:
        self.objects.forget(namespace)

    def _publish(self, gateway: Key, changes: Mapping[tuple[str, str], Resource | None]) -> None:
        if self.server is not None:
            self.server.publish(str(gateway), changes, ready=True)

    def _gateway_of(self, namespace: str, account: str) -> Key | None:
        return served_gateway(self.control.graph, Key(namespace, account))

    def _note_proxy(self, state: ProxyState) -> None:
        for finding, resources in self._refusals.note(state):
            graph = self.control.graph
            causes = blame(graph, self.registry, resources, finding.message)
            since = f" (since {', '.join(map(str, causes))} changed)" if causes else ""
            self._tell(finding.object, "ConfigurationRefused", f"{finding.message}{since}")
            for cause in causes:
                if cause != finding.object:
                    note = f"a proxy of {finding.object} refuses what follows from this: {finding.message}"
                    self._tell(cause, "ConfigurationRefused", note)

    def _tell(self, about: ObjectRef, reason: str, note: str) -> None:
        """Tell by an Event on an object; what is none has nobody to be told."""
        table = list_facts().get(about.kind)
        if table is not None:
            source = self.control.aside.get(table, {}).get(about.key) or self.control.graph.get(table, about.key)
            self.events.publish(about, reason, note, uid=source.metadata.uid if source is not None else "")

    def _lead(self, leads: bool) -> None:  # noqa: FBT001 - called by the elector
        self.metrics.leads.set(leads)
        self.leading.changed(leads=leads)

    def _trust(self, roots: bytes) -> None:
        self._change(replace(self._settings, xds_roots=roots.decode()))

    def _change(self, settings: Settings) -> None:
        self._settings = settings
        self.facts.put(t.SETTINGS, t.SINGLE, settings)

    def _trust_domains(self, found: TrustDomains) -> None:
        self._change(replace(self._settings, trust_domain=found[0], trust_domain_aliases=found[1:]))
