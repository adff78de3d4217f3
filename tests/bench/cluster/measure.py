"""A change at the API server until the first request that sees it: through the controller, and over the bare floor.

The controller's clock starts when it is about to be handed the event, the floor's immediately before it writes the same
bytes; it does so one turn later. Besides, what the controller takes and writes, and what it takes to start.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from meshgw.emit.resource import Resource
from meshgw.kube.client import path_of
from meshgw.observe.log import configure
from tests.bench import world
from tests.bench.cluster.life import Life, usage
from tests.bench.cluster.objects import gateway, kind_of
from tests.bench.cluster.rig import PATIENCE, Change, Rig, Sample, run_proxies, run_rig
from tests.bench.prober import Answer
from tests.bench.summary import Median, Summary, difference, median, quantile, summarise
from tests.cluster.controllers import condition
from tests.rig.waiting import eventually

QUIET: Final = 1.5
"""Seconds without a byte after which a controller that has started has nothing more to do."""
PAUSE: Final = 0.3
"""Seconds without a byte after which all that follows from a change is done."""
REST: Final = 5.0
"""Seconds for which a controller is watched doing nothing, fewer for few changes."""
PROGRESS: Final = 25
"""Changes after which something is said."""
RESTART: Final = 1_000_000
"""The turn of the change that nobody sees."""


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


async def measure(size: int, *, kind: str, changes: int, warm: int = 5, crowd: int = 0) -> Run:
    """Return what was measured at one size in one kind of place; with `crowd` endpoints of each application at last."""
    began = time.perf_counter()
    async with run_rig(size, kind) as rig:
        _say(f"{3 * size:,} objects are there after {time.perf_counter() - began:.0f} s")
        first = await _live(rig, size)
        _say(f"the controller has written all that there is to say after {first.written or 0.0:.1f} s")
        async with run_proxies(rig):
            endpoints = await _compare(rig, size, changes, warm, rig.endpoint_change)
            routes = await _compare(rig, size, changes, warm, rig.route_change)
            idle = await _idle(rig, min(REST, changes / 10))
            after = usage(rig.pid).resident
            again = await _restart(rig, size)
            _say(f"started again, the Gateway is programmed after {again.programmed or 0.0:.1f} s")
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
            await rig.recorder.quiet(PAUSE)
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
        if turn % PROGRESS == 0:
            _say(f"{turn} of {warm + samples} changes of {_short(former)}s")
    await rig.recorder.quiet(PAUSE)
    meshgw, floor = _side(ours), _side(bare)
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


async def _live(rig: Rig, endpoints: int) -> Life:
    """Start a controller and return its life."""
    began = time.time()
    await rig.start()
    await rig.controller.ready(within=PATIENCE)
    ready = time.time() - began
    await rig.recorder.quiet(QUIET, within=PATIENCE)
    used, writes = usage(rig.pid), rig.audit.writes()
    return Life(
        endpoints=endpoints,
        ready=round(ready, 2),
        written=round(rig.audit.last - began, 2) if writes and rig.audit.last else None,
        cpu=used.cpu,
        resident=used.resident,
        peak=used.peak,
        writes=writes,
    )


async def _restart(rig: Rig, size: int) -> Life:
    """Return the life after one in which nobody saw a route and the Gateway change."""
    await rig.end()
    rig.audit.writes()
    change = rig.route_change(size, RESTART)
    await rig.prober.arm(change.question(rig.target))
    await rig.objects.patch(change.document)
    moved = await rig.objects.patch(gateway(rig.controller.class_(), rig.place.port, listeners=2))
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
    async with asyncio.TaskGroup() as tasks:
        life = tasks.create_task(_live(rig, size))
        at = tasks.create_task(programmed())
        answer = tasks.create_task(rig.prober.read(Answer))
    return msgspec.structs.replace(
        life.result(),
        served=round(answer.result().at / 1e9 - began, 2),
        programmed=round(at.result() - began, 2),
    )


async def _crowd(rig: Rig, size: int, crowd: int) -> Life:
    """Return the life of a controller that starts with so many endpoints of each application."""
    await rig.end()
    for number in range(size):
        document = world.endpoint_slice(world.application(number), address=rig.place.host, port=rig.prober.ports[0])
        (one,) = document["endpoints"]
        others = (f"10.{160 + turn}.{number // 250}.{number % 250 + 1}" for turn in range(1, crowd))
        document["endpoints"] = [one, *({**one, "addresses": [address]} for address in others)]
        await rig.objects.patch(document)
    rig.audit.writes()
    return await _live(rig, size * crowd)


async def _idle(rig: Rig, seconds: float) -> float:
    """Return the CPU seconds per second of a controller for which nothing changes."""
    before, began = usage(rig.pid).cpu, time.perf_counter()
    await asyncio.sleep(seconds)  # the measurement itself
    return round((usage(rig.pid).cpu - before) / (time.perf_counter() - began), 4)


def _side(samples: list[Sample]) -> Side:
    return Side(
        delivered=summarise(sample.delivered for sample in samples),
        working=summarise(sample.answered - sample.delivered for sample in samples),
        answered=summarise(sample.answered for sample in samples),
        size=int(quantile(sorted(sample.size for sample in samples), 0.5)),
    )


def _short(change: Change) -> str:
    return change.type_url.rpartition(".")[2]


def _say(text: str) -> None:
    sys.stderr.write(f"      {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Measure in a kind of place so many routes, with so many changes and endpoints."""
    configure(level="error")
    kind = sys.argv[1]
    size, changes, crowd = map(int, sys.argv[2:])
    found = asyncio.run(measure(size, kind=kind, changes=changes, crowd=crowd))
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
