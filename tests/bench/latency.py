"""A change until the first request that sees it, on real Envoys: through meshgw, and beside it over the bare floor.

Both Envoys are the same binary with the same settings and one worker, each behind a relay; which of the two goes first
alternates. meshgw's clock starts when the application is handed the event that a file has changed, the floor's
immediately before it writes the same bytes. It does so one turn later, so that it has them whoever goes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
from envoy.config.listener.v3 import listener_pb2

from meshgw.config import RunSettings
from meshgw.emit.bootstrap import Bootstrap, build_bootstrap
from meshgw.emit.resource import ENDPOINTS, LISTENER, ROUTE_CONFIGURATION, SHORT_NAMES, Resource
from meshgw.emit.tables import RESOURCES
from meshgw.files.scan import compare, scan
from meshgw.observe.log import configure
from meshgw.observe.metrics import Metrics
from meshgw.standalone.application import Application
from meshgw.standalone.board import Picture
from tests.bench import world
from tests.bench.floor import Go, Hold, Stage, Written
from tests.bench.prober import BODIES, Answer, Question
from tests.bench.processes import FloorProcess, Prober, RelayProcess, run_floor, run_prober, run_relay
from tests.bench.summary import Median, Summary, difference, median, quantile, summarise
from tests.rig.addresses import next_loopback
from tests.rig.envoy import envoy_path, run_static

SETTLE = 0.02
"""Seconds of rest between samples."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two; times in milliseconds.

    From the event, or the write: `delivered` until the last bytes of the response are with Envoy, `answered` until the
    first right answer. `working` is from the one to the other, which is all Envoy's. `acked` is push to ACK, `size`
    the median of the bytes that were delivered.
    """

    delivered: Summary
    working: Summary
    answered: Summary
    acked: Summary
    size: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One sort of change among `routes` routes; times in milliseconds.

    `added` is the difference of the quantiles of `delivered`. `later` is the median by which the first right answer
    came later than that of the neighbouring sample of the floor. `handed` is the part that is all meshgw's: from the
    event until the response is given to gRPC, and `cpu` what the event loop's thread computed in that time, waiting for
    a core left out.
    """

    routes: int
    meshgw: Side
    floor: Side
    added: dict[str, float]
    later: Median
    handed: Summary
    cpu: Summary
    requests: int
    errors: int
    slowest_request: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One size: the comparisons by sort of change, push to ACK of the cold start by type, and the cost of a look."""

    changes: dict[str, Comparison]
    cold: dict[str, float]
    start: float
    scan: float


class Sample(NamedTuple):
    """One change, in seconds, as `Side` and `Comparison` say."""

    delivered: float
    answered: float
    acked: float
    size: int
    handed: float = 0.0
    cpu: float = 0.0


class Recorder(Metrics):
    """The application's metrics, which also keep the latest times of each type."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: dict[str, tuple[int, int]] = {}
        self.seconds: dict[str, list[float]] = {}
        self.news = asyncio.Event()

    def pushed(self, group: str, type_url: str, size: int, resources: int) -> None:
        """Note when a response is given to gRPC."""
        self.handed[type_url] = time.perf_counter_ns(), time.thread_time_ns()
        super().pushed(group, type_url, size, resources)

    def acked(self, group: str, type_url: str, seconds: float) -> None:
        """Keep the time."""
        super().acked(group, type_url, seconds)
        self.seconds.setdefault(type_url, []).append(seconds)
        self.news.set()


class NoBoard:
    """A board that nobody looks at; pictures are made for it all the same."""

    def show(self, picture: Picture) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to do."""


class Change(NamedTuple):
    """One change: what makes it, what shows it, and the resource that changes."""

    write: Callable[[], str]
    app: str
    path: str
    body: str
    type_url: str
    name: str

    def question(self, address: str) -> Question:
        """Return the question whose right answer shows it."""
        return Question(
            address=address, port=world.PORT, host=f"{self.app}.example.com", path=self.path, body=self.body
        )


class Rig:
    """Everything that runs for one size."""

    def __init__(
        self, app: Application, recorder: Recorder, folder: world.Folder, prober: Prober, relay: RelayProcess
    ) -> None:
        self.app, self.recorder, self.folder, self.prober, self.relay = app, recorder, folder, prober, relay
        self.seen = scan(folder.paths)
        self.addresses: tuple[str, str] = ("", "")
        self.floor: FloorProcess
        self.floor_relay: RelayProcess
        self.answers: list[Answer] = []

    async def through_meshgw(self, change: Change) -> Sample:
        """Return the times from the event that a file has changed."""
        type_url = change.type_url
        await self.relay.ask()
        await self.prober.arm(change.question(self.addresses[0]))
        change.write()
        before, self.seen = self.seen, scan(self.folder.paths)
        event = compare(self.seen, before)
        acks = self.recorder.seconds.setdefault(type_url, [])
        known = len(acks)
        began, computed = time.perf_counter_ns(), time.thread_time_ns()
        self.app.reload(event)
        answer: Answer = await self.prober.read(Answer)
        while len(acks) == known:
            self.recorder.news.clear()
            await asyncio.wait_for(self.recorder.news.wait(), 10)
        self.answers.append(answer)
        handed, computed_then = self.recorder.handed[type_url]
        delivered = await self.relay.ask()
        return Sample(
            delivered=(delivered.at - began) / 1e9,
            answered=(answer.at - began) / 1e9,
            acked=acks[-1],
            size=delivered.size,
            handed=(handed - began) / 1e9,
            cpu=(computed_then - computed) / 1e9,
        )

    async def over_floor(self, change: Change, resource: Resource) -> Sample:
        """Return the times from the write."""
        await self.floor.ask(Stage(resource))
        await self.floor_relay.ask()
        await self.prober.arm(change.question(self.addresses[1]))
        written: Written = await self.floor.ask(Go())
        answer: Answer = await self.prober.read(Answer)
        self.answers.append(answer)
        delivered = await self.floor_relay.ask()
        return Sample(
            delivered=(delivered.at - written.at) / 1e9,
            answered=(answer.at - written.at) / 1e9,
            acked=(written.acked - written.at) / 1e9,
            size=delivered.size,
        )

    def resource(self, change: Change) -> Resource:
        """Return what meshgw has given its Envoy."""
        found = self.app.control.graph.get(RESOURCES, world.resource_key(change.type_url, change.name))
        assert found is not None, change.name
        return found


async def measure(size: int, *, changes: int, warm: int = 5) -> Latency:
    """Return the latencies at one size."""
    began = time.perf_counter()
    async with _rig(size) as rig:
        start = time.perf_counter() - began
        cold = {SHORT_NAMES[kind]: 1000 * seconds[0] for kind, seconds in rig.recorder.seconds.items() if seconds}
        look = time.perf_counter()
        scan(rig.folder.paths)
        look = time.perf_counter() - look
        endpoints = await _compare(rig, size, changes, warm, _endpoint_change)
        routes = await _compare(rig, size, changes, warm, _route_change)
        compared = {"one route changed": routes, "one endpoint changed": endpoints}
    return Latency(changes=compared, cold=cold, start=round(start, 3), scan=round(1000 * look, 3))


def _route_change(rig: Rig, size: int, turn: int) -> Change:
    app, path = _app(size, turn), f"/edit-{turn}"
    return Change(lambda: rig.folder.write_route(app, path), app, path, "", ROUTE_CONFIGURATION, f"http/{world.PORT}")


def _endpoint_change(rig: Rig, size: int, turn: int) -> Change:
    app, other = _app(size, turn), (turn // size + 1) % 2
    port = rig.prober.ports[other]
    return Change(
        lambda: rig.folder.write_endpoints(app, port), app, "/v1", BODIES[other], ENDPOINTS, world.cluster(app)
    )


def _app(size: int, turn: int) -> str:
    return world.application(turn * 7919 % size)


async def _compare(rig: Rig, size: int, samples: int, warm: int, kind: Callable[[Rig, int, int], Change]) -> Comparison:
    """Return both sides of as many changes; the floor makes each one turn after meshgw."""
    ours: list[Sample] = []
    bare: list[Sample] = []
    rig.answers.clear()

    async def lead(change: Change) -> None:
        ours.append(await rig.through_meshgw(change))
        await asyncio.sleep(SETTLE)

    async def follow(change: Change, resource: Resource) -> None:
        bare.append(await rig.over_floor(change, resource))
        await asyncio.sleep(SETTLE)

    former = kind(rig, size, 0)
    await lead(former)
    ours.clear()
    for turn in range(1, warm + samples + 1):
        change, resource = kind(rig, size, turn), rig.resource(former)
        if turn % 2:
            await follow(former, resource)
            await lead(change)
        else:
            await lead(change)
            await follow(former, resource)
        former = change
    del ours[:warm], bare[:warm]
    meshgw, floor = _side(ours), _side(bare)
    return Comparison(
        routes=size,
        meshgw=meshgw,
        floor=floor,
        added=difference(meshgw.delivered, floor.delivered),
        later=median(one.answered - other.answered for one, other in zip(ours, bare, strict=True)),
        handed=summarise(sample.handed for sample in ours),
        cpu=summarise(sample.cpu for sample in ours),
        requests=sum(answer.requests for answer in rig.answers),
        errors=sum(answer.errors for answer in rig.answers),
        slowest_request=round(1000 * max(answer.slowest for answer in rig.answers), 3),
    )


def _side(samples: list[Sample]) -> Side:
    return Side(
        delivered=summarise(sample.delivered for sample in samples),
        working=summarise(sample.answered - sample.delivered for sample in samples),
        answered=summarise(sample.answered for sample in samples),
        acked=summarise(sample.acked for sample in samples),
        size=int(quantile(sorted(sample.size for sample in samples), 0.5)),
    )


@contextlib.asynccontextmanager
async def _rig(size: int) -> AsyncIterator[Rig]:
    async with contextlib.AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshgw-bench-")))
        prober = await stack.enter_async_context(run_prober())
        addresses = next_loopback(), next_loopback()
        folder = world.Folder(scratch / "files")
        folder.fill(size, port=prober.ports[0], address=addresses[0])
        recorder = Recorder()
        app = _application(folder.path, scratch / "run", recorder)
        server, app.runtime.xds_socket = app.runtime.xds_socket, scratch / "relay.sock"
        relay = await stack.enter_async_context(run_relay(app.runtime.xds_socket, server))
        await stack.enter_async_context(_live(app))
        rig = Rig(app, recorder, folder, prober, relay)
        rig.addresses = addresses
        app.reload(compare(rig.seen, None))
        server, socket = scratch / "floor.sock", scratch / "floor-relay.sock"
        rig.floor = await stack.enter_async_context(run_floor(server))
        rig.floor_relay = await stack.enter_async_context(run_relay(socket, server))
        await stack.enter_async_context(_second_envoy(rig, socket))
        yield rig


def _application(files: Path, runtime: Path, recorder: Recorder) -> Application:
    settings = RunSettings(
        paths=(str(files),),
        envoy=envoy_path(),
        runtime_dir=runtime,
        concurrency=1,
        metrics_port=None,
        poll=86_400,  # the benchmark itself hands the events over
    )
    return Application(settings, NoBoard(), metrics=recorder)


@contextlib.asynccontextmanager
async def _live(app: Application) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.run(stop))
        await asyncio.wait_for(app.live.wait(), 120)
        yield
        stop.set()


@contextlib.asynccontextmanager
async def _second_envoy(rig: Rig, socket: Path) -> AsyncIterator[None]:
    """Run an Envoy that the floor feeds with all that meshgw gives to its own."""
    given = rig.app.control.graph.by(RESOURCES, "gateway", world.GATEWAY)
    await rig.floor.ask(Hold(tuple(_moved(resource, rig.addresses[1]) for _key, resource in given)))
    node = str(world.GATEWAY)
    bootstrap = build_bootstrap(Bootstrap(node_id=node, cluster=node, xds=f"unix:{socket}", admin="unix:/replaced"))
    async with run_static(bootstrap, within=60):
        yield


def _moved(resource: Resource, address: str) -> Resource:
    """Return the resource; a listener at another address, as the first Envoy has its own."""
    if resource.type_url != LISTENER:
        return resource
    listener = listener_pb2.Listener.FromString(resource.body)
    listener.address.socket_address.address = address
    return Resource.of(LISTENER, resource.name, listener.SerializeToString(deterministic=True))


def main() -> None:
    """Measure the size given as first argument with the changes given as second."""
    configure(level="error")
    found = asyncio.run(measure(int(sys.argv[1]), changes=int(sys.argv[2])))
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
