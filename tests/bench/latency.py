"""A change until the first request that sees it, on real Envoys: through meshgw, and beside it over the bare floor.

Both Envoys are the same binary with the same settings and one worker; samples alternate. meshgw's clock starts when
the application is handed the event that a file has changed, the floor's immediately before it writes the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from envoy.config.listener.v3 import listener_pb2

from meshgw.config import RunSettings
from meshgw.emit.resource import ENDPOINTS, LISTENER, ROUTE_CONFIGURATION, SHORT_NAMES, Resource
from meshgw.emit.tables import RESOURCES
from meshgw.files.scan import Scan, compare, scan
from meshgw.observe.log import configure
from meshgw.observe.metrics import Metrics
from meshgw.standalone.application import Application
from meshgw.standalone.board import Picture
from meshgw.emit.bootstrap import Bootstrap, build_bootstrap
from tests.bench import world
from tests.bench.floor import Go, Hold, Report, Stage, Written, pack, receive
from tests.bench.prober import BODIES, Answer, Armed, Question
from tests.bench.summary import Summary, difference, summarise
from tests.rig.addresses import next_loopback
from tests.rig.envoy import envoy_path, run_static

SETTLE = 0.02
"""Seconds of rest between samples."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One sort of change among `routes` routes; times in milliseconds.

    `meshgw` and `floor` run from the event, or the write, to the first right answer; `added` is the difference of
    their quantiles, and `paired` the quantiles of the differences of neighbouring samples. `handed` is the part that is
    all meshgw's: from the event until the response is given to gRPC, and `cpu` what the event loop's thread computed in
    that time, waiting for a core left out. The others are push to ACK.
    """

    routes: int
    meshgw: Summary
    floor: Summary
    added: dict[str, float]
    paired: Summary
    handed: Summary
    cpu: Summary
    meshgw_ack: Summary
    floor_ack: Summary
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
    """One change, in seconds: until the first right answer, push to ACK, and of meshgw what `Comparison` says."""

    answered: float
    acked: float
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


class Prober:
    """The probing process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.ports: list[int] = []

    async def arm(self, question: Question) -> None:
        """Start asking; returns once the wrong answer was seen."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(question) + b"\n")
        await self.read(Armed)

    async def read(self, kind: Any) -> Any:
        """Return what it says next."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        return msgspec.json.decode(line, type=kind)


class FloorProcess:
    """The floor's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, command: Hold | Stage | Go) -> Any:
        """Return its report."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(pack(command))
        await self._process.stdin.drain()
        return await receive(self._process.stdout, Report)


class Rig:
    """Everything that runs for one size."""

    def __init__(self, size: int, app: Application, recorder: Recorder, folder: world.Folder, seen: Scan) -> None:
        self.size = size
        self.app, self.recorder, self.folder, self.seen = app, recorder, folder, seen
        self.prober: Prober
        self.floor: FloorProcess
        self.addresses: tuple[str, str] = ("", "")
        self.answers: list[Answer] = []

    def question(self, address: str, app: str, path: str, body: str) -> Question:
        """Return the question whose right answer shows a change."""
        return Question(address=address, port=world.PORT, host=f"{app}.example.com", path=path, body=body)

    async def through_meshgw(self, write: Callable[[], str], question: Question, type_url: str) -> Sample:
        """Return the times from the event that a file has changed."""
        await self.prober.arm(question)
        write()
        now = scan(self.folder.paths)
        change = compare(now, self.seen)
        self.seen = now
        acks = self.recorder.seconds.setdefault(type_url, [])
        before = len(acks)
        began, computed = time.perf_counter_ns(), time.thread_time_ns()
        self.app.reload(change)
        answer: Answer = await self.prober.read(Answer)
        while len(acks) == before:
            self.recorder.news.clear()
            await asyncio.wait_for(self.recorder.news.wait(), 10)
        self.answers.append(answer)
        handed, computed_then = self.recorder.handed[type_url]
        return Sample(
            answered=(answer.at - began) / 1e9,
            acked=acks[-1],
            handed=(handed - began) / 1e9,
            cpu=(computed_then - computed) / 1e9,
        )

    async def over_floor(self, resource: Resource, question: Question) -> Sample:
        """Return the times from the write."""
        await self.floor.ask(Stage(resource))
        await self.prober.arm(question)
        written: Written = await self.floor.ask(Go())
        answer: Answer = await self.prober.read(Answer)
        self.answers.append(answer)
        return Sample(answered=(answer.at - written.at) / 1e9, acked=(written.acked - written.at) / 1e9)

    def resource(self, type_url: str, name: str) -> Resource:
        """Return what meshgw gives its Envoy."""
        found = self.app.control.graph.get(RESOURCES, world.resource_key(type_url, name))
        assert found is not None, name
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
        endpoints = await _compare(rig, changes, warm, _endpoint_change)
        routes = await _compare(rig, changes, warm, _route_change)
        compared = {"one route changed": routes, "one endpoint changed": endpoints}
    return Latency(changes=compared, cold=cold, start=round(start, 3), scan=round(1000 * look, 3))


Change = tuple[Callable[[], str], str, str, str, str]
"""What writes the file, then path and body of the probe, then type and name of the resource that changes."""


def _route_change(rig: Rig, app: str, turn: int) -> Change:
    path = f"/edit-{turn}"
    return lambda: rig.folder.write_route(app, path), path, "", ROUTE_CONFIGURATION, f"http/{world.PORT}"


def _endpoint_change(rig: Rig, app: str, turn: int) -> Change:
    other = (turn // rig.size + 1) % 2
    port = rig.prober.ports[other]
    return lambda: rig.folder.write_endpoints(app, port), "/v1", BODIES[other], ENDPOINTS, world.cluster(app)


async def _compare(rig: Rig, changes: int, warm: int, kind: Callable[[Rig, str, int], Change]) -> Comparison:
    ours: list[Sample] = []
    bare: list[Sample] = []
    rig.answers.clear()
    for turn in range(changes + warm):
        app = world.application(turn * 7919 % rig.size)
        write, path, body, type_url, name = kind(rig, app, turn)
        ours.append(await rig.through_meshgw(write, rig.question(rig.addresses[0], app, path, body), type_url))
        await asyncio.sleep(SETTLE)
        question = rig.question(rig.addresses[1], app, path, body)
        bare.append(await rig.over_floor(rig.resource(type_url, name), question))
        await asyncio.sleep(SETTLE)
    del ours[:warm], bare[:warm]
    meshgw = summarise(sample.answered for sample in ours)
    floor = summarise(sample.answered for sample in bare)
    return Comparison(
        routes=rig.size,
        meshgw=meshgw,
        floor=floor,
        added=difference(meshgw, floor),
        paired=summarise(one.answered - other.answered for one, other in zip(ours, bare, strict=True)),
        handed=summarise(sample.handed for sample in ours),
        cpu=summarise(sample.cpu for sample in ours),
        meshgw_ack=summarise(sample.acked for sample in ours),
        floor_ack=summarise(sample.acked for sample in bare),
        requests=sum(answer.requests for answer in rig.answers),
        errors=sum(answer.errors for answer in rig.answers),
        slowest_request=round(1000 * max(answer.slowest for answer in rig.answers), 3),
    )


@contextlib.asynccontextmanager
async def _rig(size: int) -> AsyncIterator[Rig]:
    async with contextlib.AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshgw-bench-")))
        prober = Prober(await stack.enter_async_context(_process("tests.bench.prober")))
        prober.ports = await prober.read(list[int])
        folder = world.Folder(scratch / "files")
        addresses = next_loopback(), next_loopback()
        folder.fill(size, port=prober.ports[0], address=addresses[0])
        recorder = Recorder()
        app = await stack.enter_async_context(_application(folder.path, scratch / "run", recorder))
        rig = Rig(size, app, recorder, folder, scan(folder.paths))
        app.reload(compare(rig.seen, None))
        rig.prober, rig.addresses = prober, addresses
        rig.floor = await stack.enter_async_context(_floor(scratch / "floor.sock", app, addresses[1]))
        yield rig


@contextlib.asynccontextmanager
async def _application(files: Path, runtime: Path, recorder: Recorder) -> AsyncIterator[Application]:
    settings = RunSettings(
        paths=(str(files),),
        envoy=envoy_path(),
        runtime_dir=runtime,
        concurrency=1,
        metrics_port=None,
        poll=86_400,  # the benchmark itself hands the events over
    )
    app = Application(settings, NoBoard(), metrics=recorder)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.run(stop))
        await asyncio.wait_for(app.live.wait(), 120)
        yield app
        stop.set()


@contextlib.asynccontextmanager
async def _floor(sock: Path, app: Application, address: str) -> AsyncIterator[FloorProcess]:
    async with _process("tests.bench.floor", str(sock)) as process:
        floor = FloorProcess(process)
        held = [
            _moved(resource, address) for _key, resource in app.control.graph.by(RESOURCES, "gateway", world.GATEWAY)
        ]
        await floor.ask(Hold(tuple(held)))
        bootstrap = build_bootstrap(
            Bootstrap(
                node_id=str(world.GATEWAY), cluster=str(world.GATEWAY), xds=f"unix:{sock}", admin="unix:/replaced"
            )
        )
        async with run_static(bootstrap, within=60):
            yield floor


def _moved(resource: Resource, address: str) -> Resource:
    """Return the resource; a listener at another address, as the first Envoy has its own."""
    if resource.type_url != LISTENER:
        return resource
    listener = listener_pb2.Listener.FromString(resource.body)
    listener.address.socket_address.address = address
    return Resource.of(LISTENER, resource.name, listener.SerializeToString(deterministic=True))


@contextlib.asynccontextmanager
async def _process(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a module of the benchmark until the block ends; it ends by itself when its stdin does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**28,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


def main() -> None:
    """Measure the size given as first argument with the changes given as second."""
    configure(level="error")
    found = asyncio.run(measure(int(sys.argv[1]), changes=int(sys.argv[2])))
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
