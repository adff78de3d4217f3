"""A change at the API server until the first request that sees it: through the controller, and over the bare floor.

The controller is a process as users start it, with its own account and permissions; its clock starts when a recorder
before the API server begins to hand it the event. Its Envoy starts from what it deploys, proves itself with a token,
and verifies the server. The floor's Envoy is the same with the same files; its server has TLS too.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, NamedTuple

import httpcore
import msgspec
from envoy.config.listener.v3 import listener_pb2

from meshgw import names
from meshgw.cluster.parts import make_settings
from meshgw.config import ClusterSettings
from meshgw.emit.resource import ENDPOINTS, LISTENER, ROUTE_CONFIGURATION, Resource
from meshgw.kube.client import KubeSettings, connect, path_of
from meshgw.observe.log import configure
from tests.bench import world
from tests.bench.cluster.life import Audit, Life, usage
from tests.bench.cluster.recorder import RecorderProcess, run_recorder
from tests.bench.cluster.site import Deployed, Objects, Shadow, documents, gateway, kind_of, run_proxy
from tests.bench.floor import Go, Hold, Stage, Written
from tests.bench.prober import BODIES, Answer, Question
from tests.bench.processes import FloorProcess, Prober, RelayProcess, run_floor, run_prober, run_relay
from tests.bench.summary import Median, Summary, difference, median, quantile, summarise
from tests.cluster.apiserver import ApiServer, run_apiserver
from tests.cluster.controllers import Controller, condition
from tests.cluster.pki import kubeconfig, write_private
from tests.rig.addresses import free_port, free_ports, own_address
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
QUIET: Final = 1.5
"""Seconds without a byte after which a controller that has started has nothing more to do."""
REST: Final = 5.0
"""Seconds for which a controller is watched doing nothing."""
RESTART: Final = 1_000_000
"""The turn of the change that nobody sees."""
PATIENCE: Final = 120.0


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two; times in milliseconds.

    From the event, or the write: `delivered` until the last bytes of the response are with Envoy, `answered` until the
    first right answer. `working` is from the one to the other, which is all Envoy's. `size` is the median of the bytes
    that were delivered, those of TLS included.
    """

    delivered: Summary
    working: Summary
    answered: Summary
    size: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One sort of change among `routes` routes; times in milliseconds.

    `added` is the difference of the quantiles of `delivered`. `later` is the median by which the first right answer
    came later than that of the neighbouring sample of the floor. `cpu` is what the controller computed for one change
    on average, writing statuses and idling between the changes included; `writes` are the changes of objects that it
    made for all `changes`, by resource.
    """

    routes: int
    changes: int
    meshgw: Side
    floor: Side
    added: dict[str, float]
    later: Median
    cpu: float
    writes: dict[str, int]
    requests: int
    errors: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One size: the first life of a controller in a cluster that knows none, the changes, and lives after that.

    `idle` is the CPU seconds per second of a controller for which nothing changes. `after` is memory after the changes.
    `crowded` has more endpoints, if that was asked for.
    """

    routes: int
    first: Life
    changes: dict[str, Comparison]
    idle: float
    after: float
    again: Life
    crowded: Life | None = None


class Sample(NamedTuple):
    """One change, in seconds, as `Side` says."""

    delivered: float
    answered: float
    size: int


class Change(NamedTuple):
    """One change: the object as it is to be, what shows it, and the resource that changes."""

    document: world.Document
    question: Question
    type_url: str
    name: str


class Rig:
    """Everything that runs for one size."""

    recorder: RecorderProcess
    relay: RelayProcess
    floor: FloorProcess
    floor_relay: RelayProcess
    controller: Controller

    def __init__(self, server: ApiServer, objects: Objects, prober: Prober, host: str) -> None:
        self.server, self.objects, self.prober, self.host = server, objects, prober, host
        self.listener, self.floor_listener, self.watch_port, self.relay_port, self.floor_port = free_ports(5)
        self.audit = Audit(server.audit_log, USER)
        self.kubeconfig: Path
        self.shadow: Shadow
        self.answers: list[Answer] = []

    @property
    def pid(self) -> int:
        """The controller's process."""
        assert self.controller.process is not None
        return self.controller.process.pid

    @property
    def settings(self) -> ClusterSettings:
        """What follows from the controller's flags, as far as its pipeline is concerned."""
        name, dialled = self.controller.controller_name, f"{LOCAL}:{self.relay_port}"
        return ClusterSettings(controller_name=name, home=HOME, istio=None, xds_address=dialled)

    async def start(self) -> None:
        """Start the controller."""
        dialled = self.settings.xds_address
        await self.controller.start("--no-mesh", "--kubeconfig", str(self.kubeconfig), "--xds-address", dialled)

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
        await self.prober.arm(change.question)
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
        await self.prober.arm(msgspec.structs.replace(change.question, port=self.floor_listener))
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
        document, question = world.route(app, path=path), self._question(app, path)
        return Change(document, question, ROUTE_CONFIGURATION, f"http/{self.listener}")

    def endpoint_change(self, size: int, turn: int) -> Change:
        """Return a change of the one endpoint of an application."""
        app, other = _app(size, turn), (turn // size + 1) % 2
        document = world.endpoint_slice(app, address=self.host, port=self.prober.ports[other])
        return Change(document, self._question(app, "/v1", BODIES[other]), ENDPOINTS, world.cluster(app))

    def _question(self, app: str, path: str, body: str = "") -> Question:
        host = f"{app}.example.com"
        return Question(address=LOCAL, port=self.listener, host=host, path=path, body=body, patience=PATIENCE)


async def measure(size: int, *, changes: int, warm: int = 5, crowd: int = 0) -> Run:
    """Return what was measured at one size; with `crowd` endpoints of each application at last."""
    async with _rig(size) as rig:
        first = await _live(rig, size, time.perf_counter())
        _say(f"the controller has read and written all after {first.quiet:.1f} s")
        async with _proxies(rig):
            endpoints = await _compare(rig, size, changes, warm, rig.endpoint_change)
            routes = await _compare(rig, size, changes, warm, rig.route_change)
            idle = await _idle(rig)
            after = usage(rig.pid).resident
            again = await _restart(rig, size)
            _say(f"started again, all is as it should be after {again.quiet:.1f} s")
            crowded = await _crowd(rig, size, crowd) if crowd else None
        await rig.end()
    return Run(
        routes=size,
        first=first,
        changes={"one route changed": routes, "one endpoint changed": endpoints},
        idle=idle,
        after=after,
        again=again,
        crowded=crowded,
    )


async def _compare(rig: Rig, size: int, samples: int, warm: int, kind: Callable[[int, int], Change]) -> Comparison:
    """Return both sides of as many changes; the floor makes each one turn after meshgw."""
    ours: list[Sample] = []
    bare: list[Sample] = []

    async def lead(change: Change) -> None:
        ours.append(await rig.through_meshgw(change))

    async def follow(change: Change, resource: Resource) -> None:
        bare.append(await rig.over_floor(change, resource))

    former = kind(size, 0)
    await lead(former)
    before = usage(rig.pid).cpu
    for turn in range(1, warm + samples + 1):
        if turn == warm + 1:
            await rig.recorder.quiet(QUIET)
            ours.clear()
            bare.clear()
            rig.answers.clear()
            rig.audit.writes()
            before = usage(rig.pid).cpu
        change, resource = kind(size, turn), rig.shadow.resource(former.type_url, former.name)
        if turn % 2:
            await follow(former, resource)
            await lead(change)
        else:
            await lead(change)
            await follow(former, resource)
        former = change
    await rig.recorder.quiet(QUIET)
    meshgw, floor = _side(ours), _side(bare)
    _say(f"{samples} changes of {former.type_url.rpartition('.')[2]}s are measured")
    return Comparison(
        routes=size,
        changes=samples,
        meshgw=meshgw,
        floor=floor,
        added=difference(meshgw.delivered, floor.delivered),
        later=median(one.answered - other.answered for one, other in zip(ours, bare, strict=True)),
        cpu=round(1000 * (usage(rig.pid).cpu - before) / samples, 2),
        writes=rig.audit.writes(),
        requests=sum(answer.requests for answer in rig.answers),
        errors=sum(answer.errors for answer in rig.answers),
    )


async def _live(rig: Rig, endpoints: int, began: float) -> Life:
    """Return the life of a controller that has just been started."""
    await rig.controller.ready(within=PATIENCE)
    ready = time.perf_counter() - began
    await rig.recorder.quiet(QUIET, within=PATIENCE)
    used = usage(rig.pid)
    return Life(
        endpoints=endpoints,
        ready=round(ready, 2),
        quiet=round(time.perf_counter() - began - QUIET, 2),
        cpu=used.cpu,
        resident=used.resident,
        peak=used.peak,
        writes=rig.audit.writes(),
    )


async def _restart(rig: Rig, size: int) -> Life:
    """Return the life after one in which nobody saw a route and the Gateway change."""
    await rig.end()
    rig.audit.writes()
    change = rig.route_change(size, RESTART)
    await rig.prober.arm(change.question)
    await rig.objects.patch(change.document)
    moved = await rig.objects.patch(gateway(rig.controller.class_(), rig.listener, listeners=2))
    generation = moved["metadata"]["generation"]
    path = f"{path_of(kind_of('Gateway'), namespace=world.NAMESPACE)}/{world.GATEWAY.name}"

    async def is_programmed() -> bool:
        found = await rig.objects.send("GET", path)
        of_now = [each["observedGeneration"] == generation for each in found["status"]["conditions"]]
        return all(of_now) and condition(found, "Programmed")[0] == "True"

    async def programmed() -> float:
        await eventually(is_programmed, what="the Gateway is programmed", within=PATIENCE)
        return time.perf_counter()

    began = time.perf_counter()
    await rig.start()
    async with asyncio.TaskGroup() as tasks:
        at = tasks.create_task(programmed())
        answer = tasks.create_task(rig.prober.read(Answer))
        life = tasks.create_task(_live(rig, size, began))
    return msgspec.structs.replace(
        life.result(),
        served=round(answer.result().at / 1e9 - began, 2),
        programmed=round(at.result() - began, 2),
    )


async def _crowd(rig: Rig, size: int, crowd: int) -> Life:
    """Return the life of a controller that starts with so many endpoints of each application."""
    await rig.end()
    for number in range(size):
        document = world.endpoint_slice(world.application(number), address=rig.host, port=rig.prober.ports[0])
        (one,) = document["endpoints"]
        others = (f"10.{160 + turn}.{number // 250}.{number % 250 + 1}" for turn in range(1, crowd))
        document["endpoints"] = [one, *({**one, "addresses": [address]} for address in others)]
        await rig.objects.patch(document)
    rig.audit.writes()
    began = time.perf_counter()
    await rig.start()
    return await _live(rig, size * crowd, began)


async def _idle(rig: Rig) -> float:
    """Return the CPU seconds per second of a controller for which nothing changes."""
    before, began = usage(rig.pid).cpu, time.perf_counter()
    await asyncio.sleep(REST)  # the measurement itself
    return round((usage(rig.pid).cpu - before) / (time.perf_counter() - began), 4)


def _app(size: int, turn: int) -> str:
    return world.application(turn * 7919 % size)


def _side(samples: list[Sample]) -> Side:
    return Side(
        delivered=summarise(sample.delivered for sample in samples),
        working=summarise(sample.answered - sample.delivered for sample in samples),
        answered=summarise(sample.answered for sample in samples),
        size=int(quantile(sorted(sample.size for sample in samples), 0.5)),
    )


@contextlib.asynccontextmanager
async def _rig(size: int) -> AsyncIterator[Rig]:
    """Give a controller that has just been started in a cluster with a Gateway and so many routes."""
    async with contextlib.AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshgw-bench-")))
        server = stack.enter_context(run_apiserver(seeded=True))
        client = await stack.enter_async_context(connect(KubeSettings(kubeconfig=str(server.kubeconfig))))
        host = own_address()
        prober = await stack.enter_async_context(run_prober(host))
        rig = Rig(server, Objects(client), prober, host)
        rig.controller = Controller(server, scratch, HOME)
        await asyncio.to_thread(_install, rig)
        rig.kubeconfig = await asyncio.to_thread(_prepare_recorder, rig, scratch)
        upstream = server.url.removeprefix("https://")
        rig.recorder = await stack.enter_async_context(run_recorder(f"{LOCAL}:{rig.watch_port}", upstream, scratch))
        relayed = f"{LOCAL}:{rig.relay_port}", f"{LOCAL}:{rig.controller.xds}"
        rig.relay = await stack.enter_async_context(run_relay(*relayed))
        began = time.perf_counter()
        found = documents(size, class_=rig.controller.class_(), listener=rig.listener, host=host, port=prober.ports[0])
        await rig.objects.create(found)
        _say(f"{3 * size:,} objects are made in {time.perf_counter() - began:.0f} s")
        stack.push_async_callback(rig.kill)
        await rig.start()
        yield rig


def _install(rig: Rig) -> None:
    """Install what the controller needs, as the manifests have it."""
    rig.server.apply(*(MANIFESTS / part for part in PARTS))
    rig.controller.prepare()
    rig.server.create_namespace(world.NAMESPACE)


def _prepare_recorder(rig: Rig, folder: Path) -> Path:
    """Write what the recorder needs to a folder, and return the kubeconfig by which the controller uses it."""
    authority = CertificateAuthority.create()
    _write_pair(folder, authority)
    (folder / "ca.crt").write_bytes(rig.server.authority)
    token = rig.server.token(HOME, ACCOUNT, seconds=7200)
    return write_private(folder / "kubeconfig", kubeconfig(f"https://{LOCAL}:{rig.watch_port}", authority.pem, token))


def _write_pair(folder: Path, authority: CertificateAuthority) -> None:
    leaf = authority.issue("bench", ips=[LOCAL])
    (folder / "tls.crt").write_bytes(leaf.chain)
    write_private(folder / "tls.key", leaf.key)


@contextlib.asynccontextmanager
async def _proxies(rig: Rig) -> AsyncIterator[None]:
    """Run the Gateway's proxy, and beside it the floor with its own; both serve."""
    async with contextlib.AsyncExitStack() as stack:
        deployed = Deployed(rig.objects, f"{world.GATEWAY.name}-{rig.controller.class_()}")
        await deployed.run()
        files, token = await deployed.files(), await deployed.token()
        await stack.enter_async_context(run_proxy(files, token, _ports()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshgw-floor-")))
        authority = CertificateAuthority.create()
        _write_pair(folder, authority)
        listen, relay_port = f"{LOCAL}:{rig.floor_port}", free_port()
        rig.floor = await stack.enter_async_context(run_floor(listen, folder))
        rig.floor_relay = await stack.enter_async_context(run_relay(f"{LOCAL}:{relay_port}", listen))
        rig.shadow = Shadow(make_settings(rig.settings))
        rig.shadow.take(*[document async for document in rig.objects.read()])
        await rig.floor.ask(Hold(tuple(_moved(row, rig.floor_listener) for row in rig.shadow.resources())))
        files = {**files, "ca.crt": authority.pem.decode()}
        ports = {**_ports(), rig.relay_port: relay_port}
        await stack.enter_async_context(run_proxy(files, token, ports))
        for port in (rig.listener, rig.floor_listener):
            await eventually(lambda port=port: _answers(port), what="the proxy serves", within=PATIENCE)
        yield


def _ports() -> dict[int, int]:
    """Return ports of its own for what else a proxy listens on."""
    return dict(zip((names.METRICS_PORT, names.STATUS_PORT, names.ADMIN_PORT), free_ports(3), strict=True))


async def _answers(port: int) -> bool:
    try:
        answer = await request((LOCAL, port), "/v1", host=f"{world.application(0)}.example.com", within=5.0)
    except httpcore.NetworkError:
        return False
    return answer.status == 200


def _moved(resource: Resource, port: int) -> Resource:
    """Return the resource; a listener at another port, as the first Envoy has its own."""
    if resource.type_url != LISTENER:
        return resource
    listener = listener_pb2.Listener.FromString(resource.body)
    listener.address.socket_address.port_value = port
    return Resource.of(LISTENER, resource.name, listener.SerializeToString(deterministic=True))


def _say(text: str) -> None:
    sys.stderr.write(f"      {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Measure the size given as first argument with the changes given as second, and endpoints as third if any."""
    configure(level="error")
    size, changes, *rest = map(int, sys.argv[1:])
    found = asyncio.run(measure(size, changes=changes, crowd=rest[0] if rest else 0))
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
