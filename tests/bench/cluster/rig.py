"""Everything that runs: the controller between its API server and its proxy, and beside it the bare floor.

The controller is a process as users start it, with its own account and permissions; a recorder stands before the API
server. Its Envoy starts from what it deploys, proves itself with a token, and verifies the server. The floor's Envoy is
the same with the same files; its server has TLS too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import httpcore

from meshgw.cluster.parts import make_settings
from meshgw.config import ClusterSettings
from meshgw.emit.resource import ENDPOINTS, ROUTE_CONFIGURATION, Resource
from meshgw.kube.client import KubeSettings, connect
from tests.bench import world
from tests.bench.cluster.life import Audit
from tests.bench.cluster.objects import Objects, Shadow, documents
from tests.bench.cluster.places import Place, Target, Twin, run_place
from tests.bench.cluster.recorder import RecorderProcess, run_recorder
from tests.bench.floor import Go, Hold, Stage, Written
from tests.bench.prober import BODIES, Answer, Question
from tests.bench.processes import FloorProcess, Prober, RelayProcess, run_floor, run_prober, run_relay
from tests.cluster.controllers import Controller
from tests.cluster.pki import kubeconfig, write_private
from tests.rig.addresses import free_ports
from tests.rig.certs import CertificateAuthority
from tests.rig.clients import request
from tests.rig.waiting import eventually

MANIFESTS: Final = Path(__file__).parents[3] / "manifests" / "base"
PARTS: Final = ("namespace.yaml", "account.yaml", "rbac.yaml")
HOME: Final = "meshgw-system"
ACCOUNT: Final = "meshgw"
USER: Final = f"system:serviceaccount:{HOME}:{ACCOUNT}"
LOCAL: Final = "127.0.0.1"
SETTLE: Final = 0.05
"""Seconds without a byte between the controller and the API server before the next change."""
PATIENCE: Final = 240.0


class Sample(NamedTuple):
    """One change, in seconds, as `Side` says."""

    delivered: float
    answered: float
    size: int


class Change(NamedTuple):
    """One change: the object as it is to be, what shows it, and the resource that changes."""

    document: world.Document
    app: str
    path: str
    body: str
    type_url: str
    name: str

    def question(self, target: Target) -> Question:
        """Return the question whose right answer shows it."""
        host = f"{self.app}.example.com"
        return Question(**target._asdict(), host=host, path=self.path, body=self.body, patience=PATIENCE)


class Rig:
    """Everything that runs for one size."""

    recorder: RecorderProcess
    relay: RelayProcess
    floor: FloorProcess
    floor_relay: RelayProcess
    controller: Controller

    def __init__(self, place: Place, objects: Objects, prober: Prober) -> None:
        self.place, self.objects, self.prober = place, objects, prober
        self.watch_port, self.relay_port, self.floor_port, self.floor_relay_port = free_ports(4, place.host)
        self.audit = Audit(place.audit_log, USER)
        self.kubeconfig: Path
        self.shadow: Shadow
        self.target = self.floor_target = Target("", 0)
        self.answers: list[Answer] = []

    @property
    def pid(self) -> int:
        """The controller's process."""
        assert self.controller.process is not None
        return self.controller.process.pid

    @property
    def settings(self) -> ClusterSettings:
        """What follows from the controller's flags, as far as its pipeline is concerned."""
        name, dialled = self.controller.controller_name, f"{self.place.host}:{self.relay_port}"
        return ClusterSettings(controller_name=name, home=HOME, istio=None, xds_address=dialled)

    async def start(self) -> None:
        """Start the controller."""
        dialled = self.settings.xds_address
        options = ("--no-mesh", "--kubeconfig", str(self.kubeconfig), "--xds-address", dialled, *self.place.options)
        await self.controller.start(*options)

    async def end(self) -> None:
        """End it as users do."""
        if (status := await self.controller.end()) != 0:
            raise RuntimeError(f"the controller ended with {status}:\n{self.controller.log()[-4000:]}")

    async def kill(self) -> None:
        """End it if it runs."""
        process = self.controller.process
        if process is not None and process.returncode is None:
            await self.controller.end(signal.SIGKILL)

    async def through_meshgw(self, change: Change) -> Sample:
        """Return the times from the event."""
        await self.recorder.quiet(SETTLE)
        await self.relay.ask()
        await self.prober.arm(change.question(self.target))
        document = await self.objects.patch(change.document)
        answer: Answer = await self.prober.read(Answer)
        self.answers.append(answer)
        delivered = await self.relay.ask()
        began = await self.recorder.handed(document["metadata"]["resourceVersion"])
        self.shadow.take(document)
        return Sample(delivered=(delivered.at - began) / 1e9, answered=(answer.at - began) / 1e9, size=delivered.size)

    async def over_floor(self, change: Change, resource: Resource) -> Sample:
        """Return the times from the write."""
        await self.recorder.quiet(SETTLE)
        await self.floor.ask(Stage(resource))
        await self.floor_relay.ask()
        await self.prober.arm(change.question(self.floor_target))
        written: Written = await self.floor.ask(Go())
        answer: Answer = await self.prober.read(Answer)
        self.answers.append(answer)
        delivered = await self.floor_relay.ask()
        return Sample(
            delivered=(delivered.at - written.at) / 1e9,
            answered=(answer.at - written.at) / 1e9,
            size=delivered.size,
        )

    def route_change(self, size: int, turn: int) -> Change:
        """Return a change of the path of a route."""
        app, path = _app(size, turn), f"/edit-{turn}"
        return Change(world.route(app, path=path), app, path, "", ROUTE_CONFIGURATION, f"http/{self.place.port}")

    def endpoint_change(self, size: int, turn: int) -> Change:
        """Return a change of the one endpoint of an application."""
        app, other = _app(size, turn), (turn // size + 1) % 2
        document = world.endpoint_slice(app, address=self.place.host, port=self.prober.ports[other])
        return Change(document, app, "/v1", BODIES[other], ENDPOINTS, world.cluster(app))


def _app(size: int, turn: int) -> str:
    return world.application(turn * 7919 % size)


@contextlib.asynccontextmanager
async def run_rig(size: int, kind: str) -> AsyncIterator[Rig]:
    """Give a controller that is about to be started in a cluster with a Gateway and so many routes."""
    async with contextlib.AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshgw-bench-")))
        place = stack.enter_context(run_place(kind))
        settings = KubeSettings(kubeconfig=str(place.access.kubeconfig))
        client = await stack.enter_async_context(connect(settings))
        prober = await stack.enter_async_context(run_prober(place.host))
        rig = Rig(place, Objects(client), prober)
        rig.controller = Controller(place.access, scratch, HOME)
        await asyncio.to_thread(_install, rig)
        rig.kubeconfig = await asyncio.to_thread(_prepare_recorder, rig, scratch)
        upstream = place.access.url.removeprefix("https://")
        rig.recorder = await stack.enter_async_context(run_recorder(f"{LOCAL}:{rig.watch_port}", upstream, scratch))
        relayed = rig.settings.xds_address, f"{LOCAL}:{rig.controller.xds}"
        rig.relay = await stack.enter_async_context(run_relay(*relayed))
        await rig.objects.create(
            documents(size, class_=rig.controller.class_(), listener=place.port, host=place.host, port=prober.ports[0])
        )
        stack.push_async_callback(rig.kill)
        yield rig


def _install(rig: Rig) -> None:
    """Install what the controller needs, as the manifests have it."""
    access = rig.place.access
    access.apply(*(MANIFESTS / part for part in PARTS))
    rig.controller.prepare()
    access.create_namespace(world.NAMESPACE)


def _prepare_recorder(rig: Rig, folder: Path) -> Path:
    """Write what the recorder needs to a folder, and return the kubeconfig by which the controller uses it."""
    authority = CertificateAuthority.create()
    _write_pair(folder, authority, LOCAL)
    access = rig.place.access
    (folder / "ca.crt").write_bytes(access.authority)
    token = access.token(HOME, ACCOUNT, seconds=7200)
    return write_private(folder / "kubeconfig", kubeconfig(f"https://{LOCAL}:{rig.watch_port}", authority.pem, token))


def _write_pair(folder: Path, authority: CertificateAuthority, host: str) -> None:
    leaf = authority.issue("bench", ips=[host])
    (folder / "tls.crt").write_bytes(leaf.chain)
    write_private(folder / "tls.key", leaf.key)


@contextlib.asynccontextmanager
async def run_proxies(rig: Rig) -> AsyncIterator[None]:
    """Run the Gateway's proxy, and beside it the floor with its own; both serve."""
    async with contextlib.AsyncExitStack() as stack:
        place, name = rig.place, f"{world.GATEWAY.name}-{rig.controller.class_()}"
        rig.target = await stack.enter_async_context(place.run_proxy(rig.objects, name))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshgw-floor-")))
        authority = CertificateAuthority.create()
        _write_pair(folder, authority, place.host)
        listen = f"{LOCAL}:{rig.floor_port}"
        rig.floor = await stack.enter_async_context(run_floor(listen, folder))
        relayed = f"{place.host}:{rig.floor_relay_port}", listen
        rig.floor_relay = await stack.enter_async_context(run_relay(*relayed))
        rig.shadow = Shadow(make_settings(rig.settings))
        rig.shadow.take(*[document async for document in rig.objects.read()])
        await rig.floor.ask(Hold(tuple(map(place.move, rig.shadow.resources()))))
        twin = Twin(rig.relay_port, rig.floor_relay_port, authority.pem)
        rig.floor_target = await stack.enter_async_context(place.run_floor_proxy(rig.objects, name, twin))
        for target in (rig.target, rig.floor_target):
            await eventually(functools.partial(_answers, target), what="the proxy serves", within=PATIENCE)
        yield


async def _answers(target: Target) -> bool:
    try:
        answer = await request(target, "/v1", host=f"{world.application(0)}.example.com", within=5.0)
    except httpcore.NetworkError:
        return False
    return answer.status == 200
