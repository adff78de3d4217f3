"""The results as a page, and whether they meet the targets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tests.bench.latency import Comparison, Latency
from tests.bench.machine import Machine
from tests.bench.memory import Footprint
from tests.bench.summary import Median, Summary
from tests.bench.translate import NEVER_FOR_ENDPOINTS, Change, Translation

JUDGED = 5_000
"""Routes at which the targets apply."""
OWN_LOAD = 2.0
"""Load average that a measurement may make itself."""
ROUTE, ENDPOINT = "one route changed", "one endpoint changed"
ADDED_AT_MOST = {"p50": 5.0, "p99": 20.0}
"""Milliseconds that may be added to the floor from a change to the first 200."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement as it was run: how long it took, and the load average of its last minute, its own included."""

    module: str
    routes: int
    seconds: float
    load: float


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    machine: Machine
    steps: list[Step]
    translations: list[Translation]
    footprints: list[Footprint]
    latencies: list[Latency]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One target and what was measured against it."""

    what: str
    measured: str
    target: str
    met: bool


def say(text: str) -> None:
    """Say how far the benchmark is."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def tell(verdicts: Sequence[Verdict]) -> int:
    """Say what became of the targets; return 1 when one is missed."""
    for verdict in verdicts:
        say(f"{'ok  ' if verdict.met else 'MISS'} {verdict.what}: {verdict.measured} (target {verdict.target})")
    return 0 if all(verdict.met for verdict in verdicts) else 1


def judge(results: Results) -> list[Verdict]:
    """Return a verdict on every target, at the size where they apply."""
    found = []
    for translation in results.translations:
        if translation.routes == JUDGED:
            share = translation.changes[ROUTE].time.p50 / translation.rebuild
            recomputed = sum(translation.changes[ENDPOINT].rows.get(table, 0) for table in NEVER_FOR_ENDPOINTS)
            found += [
                _verdict(
                    "one route changed, share of a full rebuild (p50)", f"1/{1 / share:.0f}", "1/100", share <= 0.01
                ),
                _verdict("routes recompiled by an endpoint change", str(recomputed), "0", recomputed == 0),
            ]
    for footprint in results.footprints:
        if footprint.routes == JUDGED:
            met = footprint.edited <= 250
            found.append(_verdict("memory of the controller", f"{footprint.edited:.0f} MiB", "250 MiB", met))
    for latency in results.latencies:
        for what, comparison in latency.changes.items():
            if comparison.routes == JUDGED:
                found += _judge_added(what, comparison)
    return found


def render(results: Results) -> str:
    """Return the page in Markdown."""
    return "\n".join(
        [
            _HEAD,
            *machine_lines(results.machine, results.steps),
            "\n## Targets\n",
            *table(
                ("At 5,000 routes", "Measured", "Target", ""),
                ((v.what, v.measured, v.target, "met" if v.met else "**missed**") for v in judge(results)),
            ),
            _LATENCY,
            *table(
                ("Change", "Routes", "", "p50", "p90", "p99", "max"),
                (row for latency in results.latencies for row in _latency_rows(latency)),
            ),
            _LATER,
            *table(
                ("Change", "Routes", "Pairs", "Median", "95 %", "Bytes", "Bytes of the floor"),
                (row for latency in results.latencies for row in _later_rows(latency)),
            ),
            _ACK,
            *table(
                ("Change", "Routes", "p50", "p90", "p99", "floor p50", "floor p99"),
                (row for latency in results.latencies for row in _ack_rows(latency)),
            ),
            _TRANSLATE,
            *table(
                ("Routes", "Built from nothing", "Rebuilt", "Resources", "Bytes"),
                (
                    (
                        f"{t.routes:,}",
                        f"{t.initial:,.0f} ms",
                        f"{t.rebuild:,.0f} ms",
                        f"{t.resources:,}",
                        f"{t.bytes:,}",
                    )
                    for t in results.translations
                ),
            ),
            "",
            *table(
                ("Change", "Routes", "p50", "p90", "p99", "Rows recomputed", "Most of them"),
                (row for translation in results.translations for row in _change_rows(translation)),
            ),
            _MEMORY,
            *table(
                ("Routes", "From start to serving", "Memory once it serves", "After edits", "Peak"),
                (
                    (
                        f"{f.routes:,}",
                        f"{f.seconds:.1f} s",
                        f"{f.started:.0f} MiB",
                        f"{f.edited:.0f} MiB",
                        f"{f.peak:.0f} MiB",
                    )
                    for f in results.footprints
                ),
            ),
            "",
        ]
    )


def _judge_added(what: str, found: Comparison) -> Iterator[Verdict]:
    """Yield the verdicts on one sort of change: the first answers must not contradict what `added` says."""
    for name, most in ADDED_AT_MOST.items():
        value, measured = found.added[name], f"{found.added[name]:.1f} ms"
        met = value <= most
        if name == "p50":
            measured += f"; first 200: {interval(found.later)} ms"
            met = met and found.later.low <= most
        yield _verdict(f"added to the floor, {what}, {name}", measured, f"{most:.0f} ms", met)


_HEAD = """\
# Performance

<!-- Written by `make bench`. -->

Measured by `make bench`; the raw figures are in `tests/bench/results`. Every number is of one run on one machine, times
are in milliseconds. Each route has its own host name, Service and EndpointSlice, and one rule with two matches, a
header filter and timeouts; all are on one Gateway.
"""

_LATENCY = """
## From a change to traffic

From the moment the application is told that a file has changed (polling is left out) until a client's first right
answer through Envoy. The *floor* is the same Envoy with the same settings (one worker), fed in the same run by a server
that does nothing but write the same bytes, ready-made: from the write. It writes each change one turn after meshgw, and
which of the two goes first alternates.

Most of the time of a route change is Envoy's, which builds the whole table of routes anew. That work is the same on
both sides, but at 5,000 routes it takes a tenth longer or shorter from one time to the next for no reason of its input,
so that the difference of two such times cannot show 5 ms. Therefore both are also measured at the point from which on
the two Envoys do the same with the same bytes: a relay between Envoy and its server notes when the last bytes of the
response were *delivered*. The client asks every 2 ms, so that on two cores it stands in nobody's way. *Added* is the
difference of the quantiles of that, and is held against the targets. *Envoy* is the rest, from delivered to the first
200. *In meshgw* is what happens before the response is given to gRPC: reading the file, all steps, and joining the
bytes; its CPU time leaves out waiting for a core.
"""

_LATER = """
By how much the first 200 came later than the floor's, by pairs of neighbouring samples: the median, and the interval in
which the true median is with 95 % certainty, whatever the distribution. An interval that lies above 5 ms as a whole
would contradict the target, and count as missed.
"""

_ACK = """
## Push to ACK

From the response handed to gRPC until Envoy has acknowledged it, beside the floor's.
"""

_TRANSLATE = """
## Engine and translator

From typed objects in memory to resources as bytes, without I/O. A build from nothing, and a rebuild, are the faster of
two; changes are of a different application each time. *Rows recomputed* counts calls of all steps for one change.
"""

_MEMORY = """
## The whole command

`meshgw run` over a folder with three files for each route: reading, translating, starting Envoy, until it is live; and
the resident memory of the controller, with gRPC, the typed objects, all tables and what it sends.
"""


def machine_lines(machine: Machine, steps: Iterable[Step]) -> Iterator[str]:
    """Yield what was measured on, and how quiet it was."""
    yield from _machine(machine)
    yield from _steps(steps)


def _verdict(what: str, measured: str, target: str, met: object) -> Verdict:
    return Verdict(what=what, measured=measured, target=target, met=bool(met))


def _machine(machine: Machine) -> Iterator[str]:
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    load = ", ".join(f"{value:.1f}" for value in machine.load)
    yield f"- {machine.cores} cores of {machine.cpu}, {machine.memory_gib:.0f} GiB, Linux {machine.kernel}"
    yield f"- load {load} before the start"
    yield f"- {machine.python}, Envoy {machine.envoy}, {packages}"
    yield f"- revision {machine.revision}"


def _steps(steps: Iterable[Step]) -> Iterator[str]:
    listed = ", ".join(f"{step.load:.1f} ({_name(step)})" for step in steps)
    yield f"- load in the last minute of each measurement, of which it makes up to {OWN_LOAD:.0f} itself: {listed}"
    if disturbed := [_name(step) for step in steps if step.load > OWN_LOAD]:
        yield f"- **the machine was not quiet**, and times are too long, in {'; '.join(disturbed)}"


def _name(step: Step) -> str:
    return f"{step.module.rpartition('.')[2]}, {step.routes:,}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _latency_rows(latency: Latency) -> Iterator[tuple[str, ...]]:
    for what, found in latency.changes.items():
        start = (what, f"{found.routes:,}")
        ours, bare = found.meshgw, found.floor
        yield (*start, "meshgw, delivered", *quantiles(ours.delivered))
        yield (*start, "floor, delivered", *quantiles(bare.delivered))
        yield (*start, "**added**", *(f"**{found.added[name]:.1f}**" for name in ("p50", "p90", "p99", "max")))
        yield (*start, "in meshgw", *quantiles(found.handed))
        yield (*start, "in meshgw, CPU", *quantiles(found.cpu))
        yield (*start, "meshgw, Envoy", *quantiles(ours.working))
        yield (*start, "floor, Envoy", *quantiles(bare.working))
        yield (*start, "meshgw, first 200", *quantiles(ours.answered))
        yield (*start, "floor, first 200", *quantiles(bare.answered))


def _later_rows(latency: Latency) -> Iterator[tuple[str, ...]]:
    for what, found in latency.changes.items():
        pairs = f"{found.meshgw.answered.count:,}"
        sizes = f"{found.meshgw.size:,}", f"{found.floor.size:,}"
        yield (what, f"{found.routes:,}", pairs, f"{found.later.value:.1f}", interval(found.later), *sizes)


def interval(found: Median) -> str:
    """Return the bounds of a median."""
    return f"{found.low:.1f} to {found.high:.1f}"


def _ack_rows(latency: Latency) -> Iterator[tuple[str, ...]]:
    for what, found in latency.changes.items():
        ours, bare = found.meshgw.acked, found.floor.acked
        yield (what, f"{found.routes:,}", *quantiles(ours)[:3], f"{bare.p50:.1f}", f"{bare.p99:.1f}")
    routes = next(iter(latency.changes.values())).routes
    for kind, value in sorted(latency.cold.items()):
        yield (f"everything, at the start ({kind})", f"{routes:,}", f"{value:.1f}", "", "", "", "")


def _change_rows(translation: Translation) -> Iterator[tuple[str, ...]]:
    for what, change in translation.changes.items():
        yield (
            what,
            f"{translation.routes:,}",
            *quantiles(change.time, digits=2)[:3],
            f"{sum(change.rows.values()):,}",
            _most(change),
        )


def _most(change: Change, count: int = 3) -> str:
    ranked = sorted(change.rows.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{table} {rows:,}" for table, rows in ranked[:count])


def quantiles(found: Summary, digits: int = 1) -> tuple[str, str, str, str]:
    """Return the cells of a row of p50, p90, p99 and the maximum."""
    p50, p90, p99, most = (f"{value:.{digits}f}" for value in (found.p50, found.p90, found.p99, found.max))
    return p50, p90, p99, most
