"""Composition root of a standalone instance: files, pipeline, xDS, Envoys and certificates in one task group."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from meshgw.api.meta import Key, ObjectRef
from meshgw.config import RunSettings
from meshgw.control import Batch, Control
from meshgw.diagnose.expiry import find_expired
from meshgw.emit.resource import Resource
from meshgw.files.scan import Change
from meshgw.identity.accounts import Identities
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Settings
from meshgw.observe.heap import unwatched
from meshgw.observe.log import get_logger
from meshgw.observe.metrics import Metrics
from meshgw.observe.stalls import watch_stalls
from meshgw.resolve import tables as t
from meshgw.standalone.addresses import LoopbackPlacing, default_port_offset
from meshgw.standalone.board import Board, Picture
from meshgw.standalone.claims import Claims
from meshgw.standalone.envoy import find_envoy
from meshgw.standalone.fleet import Fleet, ProxyOptions, end_strangers
from meshgw.standalone.mesh import certificate_source
from meshgw.standalone.picture import Drawing, paint_picture
from meshgw.standalone.reload import Reloads
from meshgw.standalone.runtime import RuntimeDirectory, default_directory
from meshgw.standalone.supervise import EnvoyFailedError, SupervisorEvent
from meshgw.xds.cache import Cache
from meshgw.xds.proxy import Peer, ProxyState, Refused
from meshgw.xds.refusals import Refusals
from meshgw.xds.server import AdsServer

_log = get_logger("app")

_CLAIM_AGAIN = 0.25
"""Seconds between tries for addresses that somebody else holds."""
_EXPIRY_AGAIN = 30.0
"""Seconds between looks for certificates that have expired."""


class Application:
    """One standalone instance; `run` is its whole life."""

    def __init__(self, settings: RunSettings, board: Board, *, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.live = asyncio.Event()
        """Set while every Gateway's proxy has its configuration."""
        self.runtime = RuntimeDirectory(settings.runtime_dir or _runtime_directory(settings.paths))
        self.server = AdsServer(
            Cache(),
            authorize=self._authorize,
            listen=self.runtime.xds,
            observer=self.metrics,
            on_proxy=self._note_proxy,
        )
        self.control = Control(
            settings=_pipeline_settings(settings),
            placing=LoopbackPlacing(default_port_offset() if settings.port_offset is None else settings.port_offset),
            publish=self._publish,
            metrics=self.metrics,
            incremental=settings.incremental,
        )
        self.reloads = Reloads(settings.paths, self.commit, self.metrics)
        self.fleet: Fleet | None = None
        self.identities: Identities | None = None
        self._drawing = Drawing(board, self.picture)
        self._claims = Claims()
        self._known: set[Key] = set()
        self._refusals = Refusals()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain.

        Raises InUseError, EnvoyError and MeshSettingsError with a message for the user before anything is served.
        """
        binary = await asyncio.to_thread(find_envoy, self.settings.envoy)
        with self.runtime.acquire():
            _log.info("starting", envoy=binary.version, binary=str(binary.path), runtime=str(self.runtime.path))
            with unwatched():
                self.reloads.start()
            options = ProxyOptions(
                binary=binary.path,
                concurrency=self.settings.concurrency,
                detach=self.settings.detach,
                all_stats=self.settings.all_stats,
            )
            await end_strangers(self.runtime, set(self.control.gateways()), options)
            self._claim_first()
            try:
                async with self._metrics_endpoint(), self._certificates(), asyncio.TaskGroup() as tasks:
                    background = self._start(tasks, options)
                    await stop.wait()
                    _log.info("stopping")
                    self.reloads.stop()
                    if self.fleet is not None:
                        await self.fleet.stop()
                    for task in background:
                        task.cancel()
            finally:
                self._claims.release()
                self._drawing.close()

    def reload(self, change: Change | None = None) -> None:
        """Read the files again, or only those of a change, and commit what is new in them."""
        self.reloads.reload(change)

    def commit(self, batch: Batch) -> None:
        """Commit facts and let everything follow."""
        outcome = self.control.commit(batch)
        if outcome.gateways and self.fleet is not None:
            self._follow_gateways()
        self._drawing.schedule()

    def findings(self) -> list[Finding]:
        """Return everything there is to say, sorted."""
        failed = self.fleet.errors.items() if self.fleet is not None else ()
        return self.control.findings(
            self.reloads.facts.problems,
            self._refusals.findings(),
            self._claims.findings(),
            self.control.nameless(self.identities.refused if self.identities is not None else {}),
            find_expired(self.control.graph, time.time()),
            (Finding(code="MG6002", object=ObjectRef("Gateway", *key), message=text) for key, text in failed),
        )

    def picture(self) -> Picture:
        """Return what the table shows now."""
        findings = self.findings()
        self.control.count(findings)
        self.metrics.problems.set(len(self.reloads.facts.problems))
        return paint_picture(self.control, findings, self.fleet.states if self.fleet else {})

    def _start(self, tasks: asyncio.TaskGroup, options: ProxyOptions) -> list[asyncio.Task[None]]:
        self.fleet = Fleet(tasks, self.runtime, options, on_change=self._note_envoy)
        self._follow_gateways()
        self._drawing.schedule()
        background = [
            tasks.create_task(self.server.run(), name="xds"),
            tasks.create_task(self.reloads.watch(interval=self.settings.poll), name="files"),
            tasks.create_task(self._claim_again(), name="addresses"),
            tasks.create_task(self._watch_expiry(), name="expiry"),
            tasks.create_task(watch_stalls(self.metrics.stalls.observe), name="stalls"),
        ]
        if self.identities is not None:
            background.append(tasks.create_task(self.identities.rotator.run(), name="certificates"))
        return background

    def _publish(self, gateway: Key, changes: Mapping[tuple[str, str], Resource | None]) -> None:
        self.server.publish(str(gateway), changes, ready=True)

    def _authorize(self, _peer: Peer, node_id: str, _metadata: Mapping[str, object]) -> str | Refused:
        """The socket is private to this user; what remains is that the Gateway exists."""
        key = Key(*node_id.split("/", 1)) if "/" in node_id else Key("", node_id)
        return node_id if key in self.control.gateways() else Refused(f"no gateway {node_id}")

    def _claim_first(self) -> None:
        """Claim all addresses before anything starts; what is in use refuses the start (InUseError)."""
        adopted = {directory.path for directory in self.runtime.known_proxies()}
        for key, gateway in self.control.gateways().items():
            binding = self.control.binding(key)
            probe = self.runtime.proxy(*key).path not in adopted
            self._claims.claim(binding, self.control.endpoints(gateway), probe=probe)

    async def _claim_again(self) -> None:
        """Try for addresses that could not be had, as nothing tells when they are free."""
        while True:
            await asyncio.sleep(_CLAIM_AGAIN)
            before = self._claims.findings()
            if before:
                self._follow_gateways()
            if self._claims.findings() != before:
                self._drawing.schedule()

    async def _watch_expiry(self) -> None:
        """Show certificates that expire while nothing else happens."""
        shown: list[Finding] = []
        while True:
            found = find_expired(self.control.graph, time.time())
            if found != shown:
                shown = found
                self._drawing.schedule()
            await asyncio.sleep(_EXPIRY_AGAIN)

    def _follow_gateways(self) -> None:
        """Let addresses, proxies and certificates follow the Gateways."""
        gateways = self.control.gateways()
        self._claims.follow(
            {key: (self.control.binding(key), self.control.endpoints(row)) for key, row in gateways.items()}
        )
        self.control.hold(self._claims.held())
        for key in gateways.keys() - self._known:
            self.server.mark_ready(str(key))
        for key in self._known - gateways.keys():
            self.server.forget(str(key))
        self._known = set(gateways)
        if self.fleet is not None:
            self.fleet.want(set(gateways))
        if self.identities is not None:
            self.identities.want(self.control.accounts())

    def _note_certificate(self, account: Key, row: WorkloadCertificate | None) -> None:
        self.commit({t.WORKLOAD_CERTIFICATES: {account: row}})

    def _note_envoy(self, key: Key, event: SupervisorEvent | EnvoyFailedError) -> None:
        if isinstance(event, SupervisorEvent) and event.kind == "died":
            self.metrics.restarts.labels(str(key)).inc()
        if self.fleet is not None and all(self.fleet.is_live(gateway) for gateway in self._known):
            self.live.set()
        else:
            self.live.clear()
        self._drawing.schedule()

    def _note_proxy(self, state: ProxyState) -> None:
        self._refusals.note(state)
        self._drawing.schedule()

    @contextlib.asynccontextmanager
    async def _certificates(self) -> AsyncIterator[None]:
        mesh = self.settings.mesh
        if mesh is None:
            yield
            return
        async with certificate_source(mesh, socket=f"unix:{self.runtime.path / 'ca.sock'}") as source:
            self.identities = Identities(
                source, self._note_certificate, trust_domain=mesh.trust_domain, observer=self.metrics
            )
            yield

    @contextlib.asynccontextmanager
    async def _metrics_endpoint(self) -> AsyncIterator[None]:
        if self.settings.metrics_port is None:
            yield
            return
        try:
            server, thread = self.metrics.serve("127.0.0.1", self.settings.metrics_port)
        except OSError as error:
            _log.warning("no metrics", port=self.settings.metrics_port, cause=str(error), remedy="set --metrics-port")
            yield
            return
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _pipeline_settings(settings: RunSettings) -> Settings:
    mesh = settings.mesh
    trust_domain = mesh.trust_domain if mesh else Settings().trust_domain
    return Settings(mesh=mesh is not None, trust_domain=trust_domain, loopback_endpoints=True)


def _runtime_directory(paths: tuple[str, ...]) -> Path:
    """Return the private directory of an instance over these paths: the same paths, the same directory."""
    absolute = "\0".join(str(Path(path).absolute()) for path in paths)
    return default_directory() / hashlib.sha256(absolute.encode()).hexdigest()[:8]
