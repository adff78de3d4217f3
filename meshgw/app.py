"""Composition root of a standalone instance: files, pipeline, xDS, Envoys and certificates in one task group."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from meshgw import names
from meshgw.api.meta import Key, ObjectRef
from meshgw.config import RunSettings
from meshgw.diagnose.render import render_finding
from meshgw.emit.resource import SHORT_NAMES, Resource
from meshgw.files.scan import Change
from meshgw.files.watch import watch
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.codes import CODES
from meshgw.ir.finding import Finding, Level
from meshgw.ir.gateway import Gateway, Settings
from meshgw.ir.status import GatewayStatus
from meshgw.observe.log import get_logger
from meshgw.observe.metrics import Metrics
from meshgw.observe.stalls import watch_stalls
from meshgw.resolve import tables as t
from meshgw.standalone.addresses import default_port_offset
from meshgw.standalone.board import SHOWN, Board, GatewayLine, Picture
from meshgw.standalone.claims import Claims
from meshgw.standalone.controller import Batch, Controller
from meshgw.standalone.envoy import find_envoy
from meshgw.standalone.expiry import find_expired
from meshgw.standalone.facts import FileFacts
from meshgw.standalone.fleet import Fleet, ProxyOptions, end_strangers
from meshgw.standalone.heap import unwatched, watched_by_size
from meshgw.standalone.mesh import Identities, certificate_source
from meshgw.standalone.runtime import RuntimeDirectory, default_directory
from meshgw.standalone.supervise import EnvoyFailedError, SupervisorEvent
from meshgw.xds.cache import Cache
from meshgw.xds.proxy import Peer, ProxyState, Refused
from meshgw.xds.server import AdsServer

_log = get_logger("app")

_REDRAW = 0.05
"""Seconds in which changes of the table are drawn as one."""
_REDRAW_REST = 20
"""Times what the last drawing took: at least so long the loop is free for changes before the next one."""
_REMOVE_AFTER = 0.075
"""Seconds for which objects must be gone from the files: many programs replace a file in two steps."""
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
        mesh = settings.mesh
        self.controller = Controller(
            settings=Settings(
                mesh=mesh is not None,
                trust_domain=mesh.trust_domain if mesh else Settings().trust_domain,
                loopback_endpoints=True,
            ),
            publish=self._publish,
            metrics=self.metrics,
            port_offset=default_port_offset() if settings.port_offset is None else settings.port_offset,
            incremental=settings.incremental,
        )
        self.facts = FileFacts(settings.paths)
        self.fleet: Fleet | None = None
        self.identities: Identities | None = None
        self._board = board
        self._claims = Claims()
        self._known: set[Key] = set()
        self._nacks: dict[tuple[Key, str], Finding] = {}
        self._redraw: asyncio.TimerHandle | None = None
        self._removal: asyncio.TimerHandle | None = None
        self._drawing = 0.0  # seconds that the last one took

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain.

        Raises InUseError, EnvoyError and MeshSettingsError with a message for the user before anything is served.
        """
        binary = await asyncio.to_thread(find_envoy, self.settings.envoy)
        with self.runtime.acquire():
            _log.info("starting", envoy=binary.version, binary=str(binary.path), runtime=str(self.runtime.path))
            with unwatched():
                self.facts.read()
                self.commit(self.facts.take())
            options = ProxyOptions(
                binary=binary.path,
                concurrency=self.settings.concurrency,
                detach=self.settings.detach,
                all_stats=self.settings.all_stats,
            )
            await end_strangers(self.runtime, set(self.controller.gateways()), options)
            self._claim_first()
            try:
                async with self._metrics_endpoint(), self._certificates(), asyncio.TaskGroup() as tasks:
                    background = self._start(tasks, options)
                    await stop.wait()
                    _log.info("stopping")
                    if self._removal is not None:
                        self._removal.cancel()
                    if self.fleet is not None:
                        await self.fleet.stop()
                    for task in background:
                        task.cancel()
            finally:
                self._claims.release()
                self._board.close()

    def commit(self, batch: Batch) -> None:
        """Commit facts and let everything follow."""
        with watched_by_size(batch):
            outcome = self.controller.commit(batch)
        for delta in outcome.deltas:
            for fault in delta.faults:
                _log.error("internal error", table=fault.table, key=str(fault.key), at=fault.where)
        if outcome.gateways and self.fleet is not None:
            self._follow_gateways()
        self._schedule_redraw()

    def _start(self, tasks: asyncio.TaskGroup, options: ProxyOptions) -> list[asyncio.Task[None]]:
        self.fleet = Fleet(tasks, self.runtime, options, on_change=self._note_envoy)
        self._follow_gateways()
        self._schedule_redraw()
        background = [
            tasks.create_task(self.server.run(), name="xds"),
            tasks.create_task(self._watch_files(), name="files"),
            tasks.create_task(self._claim_again(), name="addresses"),
            tasks.create_task(self._watch_expiry(), name="expiry"),
            tasks.create_task(watch_stalls(self.metrics.stalls.observe), name="stalls"),
        ]
        if self.identities is not None:
            background.append(tasks.create_task(self.identities.rotator.run(), name="certificates"))
        return background

    async def _watch_files(self) -> None:
        async for change in watch(self.settings.paths, interval=self.settings.poll):
            self.reload(change)

    def reload(self, change: Change | None = None) -> None:
        """Read the files again, or only those of a change, and commit what is new in them.

        What is gone from them is removed if another look, a moment later, does not find it either.
        """
        self._read(change, removals=False)
        if self.facts.removing and self._removal is None:
            self._removal = asyncio.get_running_loop().call_later(_REMOVE_AFTER, self._remove)

    def _remove(self) -> None:
        self._removal = None
        self._read(None, removals=True)

    def _read(self, change: Change | None, *, removals: bool) -> None:
        self.metrics.reloads.inc()
        self.facts.read(change)
        batch = self.facts.take(removals=removals)
        if batch or self.facts.moved:
            self.commit(batch)

    def _publish(self, gateway: Key, changes: Mapping[tuple[str, str], Resource | None]) -> None:
        self.server.publish(str(gateway), changes, ready=True)

    def _authorize(self, _peer: Peer, node_id: str, _metadata: Mapping[str, object]) -> str | Refused:
        """The socket is private to this user; what remains is that the Gateway exists."""
        key = Key(*node_id.split("/", 1)) if "/" in node_id else Key("", node_id)
        return node_id if key in self.controller.gateways() else Refused(f"no gateway {node_id}")

    def _claim_first(self) -> None:
        """Claim all addresses before anything starts; what is in use refuses the start (InUseError)."""
        adopted = {directory.path for directory in self.runtime.known_proxies()}
        for key, gateway in self.controller.gateways().items():
            binding = self.controller.binding(key)
            probe = self.runtime.proxy(*key).path not in adopted
            self._claims.claim(binding, self.controller.endpoints(gateway), probe=probe)

    async def _claim_again(self) -> None:
        """Try for addresses that could not be had, as nothing tells when they are free."""
        while True:
            await asyncio.sleep(_CLAIM_AGAIN)
            before = self._claims.findings()
            if before:
                self._follow_gateways()
            if self._claims.findings() != before:
                self._schedule_redraw()

    async def _watch_expiry(self) -> None:
        """Show certificates that expire while nothing else happens."""
        shown: list[Finding] = []
        while True:
            found = find_expired(self.controller.graph, time.time())
            if found != shown:
                shown = found
                self._schedule_redraw()
            await asyncio.sleep(_EXPIRY_AGAIN)

    def _follow_gateways(self) -> None:
        """Let addresses, proxies and certificates follow the Gateways."""
        gateways = self.controller.gateways()
        self._claims.follow(
            {key: (self.controller.binding(key), self.controller.endpoints(row)) for key, row in gateways.items()}
        )
        self.controller.hold(self._claims.held())
        for key in gateways.keys() - self._known:
            self.server.mark_ready(str(key))
        for key in self._known - gateways.keys():
            self.server.forget(str(key))
        self._known = set(gateways)
        if self.fleet is not None:
            self.fleet.want(set(gateways))
        if self.identities is not None:
            accounts = {Key(key.namespace, row.service_account) for key, row in gateways.items() if row.service_account}
            self.identities.want(accounts)

    def _note_certificate(self, account: Key, row: WorkloadCertificate | None) -> None:
        self.commit({t.WORKLOAD_CERTIFICATES: {account: row}})

    def _note_envoy(self, key: Key, event: SupervisorEvent | EnvoyFailedError) -> None:
        if isinstance(event, SupervisorEvent) and event.kind == "died":
            self.metrics.restarts.labels(str(key)).inc()
        if self.fleet is not None and all(self.fleet.is_live(gateway) for gateway in self._known):
            self.live.set()
        else:
            self.live.clear()
        self._schedule_redraw()

    def _note_proxy(self, state: ProxyState) -> None:
        """Turn refusals of a proxy into findings, and take them back once it accepts."""
        key = Key(*state.group.split("/", 1))
        for type_url, kind in SHORT_NAMES.items():
            nack = state.types.get(type_url)
            before = self._nacks.pop((key, kind), None)
            if nack is not None and nack.nack and state.connected:
                what = ", ".join(nack.refused[:3])
                message = f"{kind} {what}: {nack.nack}"
                finding = Finding(code="MG6001", object=ObjectRef("Gateway", *key), message=message)
                self._nacks[key, kind] = finding
                if finding != before:
                    _log.error("envoy refused configuration", gateway=str(key), type=kind, text=nack.nack)
        self._schedule_redraw()

    def findings(self) -> list[Finding]:
        """Return everything there is to say, sorted."""
        found = [*self.facts.problems, *self._nacks.values(), *self._claims.findings()]
        found += self._nameless()
        found += find_expired(self.controller.graph, time.time())
        if self.fleet is not None:
            found += [
                Finding(code="MG6002", object=ObjectRef("Gateway", *key), message=text)
                for key, text in self.fleet.errors.items()
            ]
        known = self.controller.findings()  # sorted, and possibly thousands
        return sorted([*known, *set(found)], key=lambda finding: finding.sort_key) if found else list(known)

    def _nameless(self) -> Iterator[Finding]:
        """Gateways whose ServiceAccount cannot have an identity."""
        refused = self.identities.refused if self.identities is not None else {}
        for key, row in self.controller.gateways().items():
            if message := refused.get(Key(key.namespace, row.service_account)):
                field = f"metadata.labels[{names.LABEL_SERVICE_ACCOUNT}]"
                yield Finding(code="MG5004", object=ObjectRef("Gateway", *key), field=field, message=message)

    def picture(self) -> Picture:
        """Return what the table shows now."""
        findings = self.findings()
        counts = dict.fromkeys(Level, 0)
        for finding in findings:
            counts[CODES[finding.code].level] += 1
        for level, count in counts.items():
            self.metrics.findings.labels(level.value).set(count)
        self.metrics.problems.set(len(self.facts.problems))
        lines = (self._line(key, row) for key, row in sorted(self.controller.graph.rows(t.OUR_GATEWAYS).items()))
        shown = tuple(render_finding(finding) for finding in findings[:SHOWN])
        return Picture(gateways=tuple(lines), findings=shown, more=len(findings) - len(shown))

    def _line(self, key: Key, row: Gateway) -> GatewayLine:
        status = self.controller.graph.get(t.STATUSES, ObjectRef("Gateway", *key))
        binding = self.controller.binding(key)
        conditions = status.conditions if isinstance(status, GatewayStatus) else ()
        programmed = next((c for c in conditions if c.type == "Programmed"), None)
        accepted = next((c for c in conditions if c.type == "Accepted"), None)
        bad = next((c for c in (accepted, programmed) if c is not None and not c.status), None)
        counts = (
            self.controller.graph.get(t.ATTACHED_COUNTS, listener) or 0
            for listener, _row in self.controller.graph.by(t.LISTENERS, "gateway", key)
        )
        ports = sorted(self.controller.endpoints(row), key=lambda endpoint: (endpoint[1], endpoint[0]))
        return GatewayLine(
            namespace=key.namespace,
            name=key.name,
            role=row.role.value if row.role else "unknown",
            address=",".join(binding.addresses),
            ports=tuple(str(binding.port(port)) + ("/udp" if kind == "udp" else "") for kind, port in ports),
            programmed=bool(programmed and programmed.status),
            routes=sum(counts),
            proxy=self.fleet.states.get(key, "-") if self.fleet else "-",
            reason=f"{bad.reason}: {bad.message}" if bad else "",
        )

    def _schedule_redraw(self) -> None:
        with contextlib.suppress(RuntimeError):  # no loop yet: the first draw follows the start
            if self._redraw is None:
                wait = max(_REDRAW, _REDRAW_REST * self._drawing)
                self._redraw = asyncio.get_running_loop().call_later(wait, self._draw)

    def _draw(self) -> None:
        self._redraw = None
        began = time.perf_counter()
        self._board.show(self.picture())
        self._drawing = time.perf_counter() - began

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


def _runtime_directory(paths: tuple[str, ...]) -> Path:
    """Return the private directory of an instance over these paths: the same paths, the same directory."""
    absolute = "\0".join(str(Path(path).absolute()) for path in paths)
    return default_directory() / hashlib.sha256(absolute.encode()).hexdigest()[:8]
