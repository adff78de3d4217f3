"""The results in a cluster as a part of the page, and whether they meet the targets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from tests.bench.cluster.life import Life
from tests.bench.cluster.measure import Comparison, Run
from tests.bench.machine import Machine
from tests.bench.report import ADDED_AT_MOST, ENDPOINT, ROUTE, Step, Verdict, interval, machine_lines, quantiles, table

JUDGED = (1_000, 3_000)
"""Routes at which the targets apply."""
STATUSES = "httproutes/status"
KIB = 1024.0


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One run, in one of `PLACES`."""

    place: str
    machine: Machine
    steps: list[Step]
    runs: list[Run]


def judge(results: Results) -> list[Verdict]:
    """Return a verdict on every target, at the sizes where they apply."""
    found = []
    for run in results.runs:
        if run.routes in JUDGED:
            for what, comparison in run.changes.items():
                found += _judge_added(what, comparison)
            found += _judge_writes(run)
    return found


def render(results: Results) -> str:
    """Return the part in Markdown."""
    runs = results.runs
    return "\n".join(
        [
            _HEAD,
            _PLACE[results.place],
            *machine_lines(results.machine, results.steps),
            "",
            *table(
                ("Target", "Measured", "At most", ""),
                ((v.what, v.measured, v.target, "met" if v.met else "**missed**") for v in judge(results)),
            ),
            _EVENTS,
            *table(
                ("Change", "Routes", "", "p50", "p90", "p99", "max"),
                (row for run in runs for row in _latency_rows(run)),
            ),
            _LATER,
            *table(
                ("Change", "Routes", "Pairs", "Median", "95 %", "Bytes", "Bytes of the floor"),
                (row for run in runs for row in _later_rows(run)),
            ),
            _COST,
            *table(
                ("Change", "Routes", "Changes", "CPU for one", "Statuses written", "Other writes"),
                (row for run in runs for row in _cost_rows(run)),
            ),
            _LIVES,
            *table(
                (
                    "Routes",
                    "Endpoints",
                    "",
                    "Ready",
                    "Programmed",
                    "Served",
                    "All written",
                    "CPU",
                    "Memory",
                    "Peak",
                    "Statuses of routes written",
                    "Other writes",
                ),
                (row for run in runs for row in _life_rows(run)),
            ),
            _MEMORY,
            *table(("Memory of", "By the difference of", ""), _memory_rows(runs)),
            "",
        ]
    )


def _judge_added(what: str, found: Comparison) -> Iterator[Verdict]:
    """Yield the verdicts on one sort of change."""
    for name, most in ADDED_AT_MOST.items():
        value = found.added[name]
        what_at = f"added from watch event to push, {what} of {found.routes:,}, {name}"
        yield Verdict(what=what_at, measured=f"{value:.1f} ms", target=f"{most:.0f} ms", met=value <= most)


def _judge_writes(run: Run) -> Iterator[Verdict]:
    """Yield the verdicts on what is written: a status for each route that changed, and nothing else."""
    for what, comparison in run.changes.items():
        most = {ROUTE: comparison.changes, ENDPOINT: 0}[what]
        written = sum(comparison.writes.values())
        yield Verdict(
            what=f"writes for {comparison.changes:,} times {what} of {run.routes:,}",
            measured=f"{written:,}",
            target=f"{most:,}",
            met=written <= most,
        )
    again = run.again.writes.get(STATUSES, 0)
    yield Verdict(
        what=f"statuses of routes written at a restart, one of {run.routes:,} changed",
        measured=f"{again:,}",
        target="1",
        met=again <= 1,
    )


_HEAD = """
# In a cluster

Measured by `make bench-cluster`. `meshgw controller` is a process of its own, with the ServiceAccount and the
permissions of the manifests. Gateway, routes, Services and EndpointSlices are objects of a real API server, and like
those above. The Gateway's Envoy starts from what the controller deploys for it, verifies the xDS server, and proves
itself with a token that is bound to its pod.
"""

_PLACE = {
    "local": """\
The API server is that of the cluster of the tests: one node with kubelet, containerd and kube-proxy, on this machine.
The proxies are pods, with two workers each.
""",
    "apiserver": """\
The API server is alone, without nodes; the proxies are processes beside it, with one worker each.
""",
}

_EVENTS = """
## From a watch event to traffic

One object is changed at a time. The clock starts when the event's last byte is about to be handed to the controller,
which a recorder tells that stands between it and the API server; what the API server takes is left out. The *floor* is
a second Envoy with the same files and the same bytes, from a server with TLS that has them ready-made, as above: from
the write. *Delivered* is when the last bytes are with Envoy, for both by a relay that passes on TLS as it is; *added*
is the difference of the quantiles of that, and is held against the targets.
"""

_LATER = """
By how much the first 200 came later than the floor's, by pairs of neighbouring samples, as above. Here that holds more
than what meshgw adds: while its Envoy takes a route in, API server, etcd and whoever watches compute on the same cores
what follows from the change and from the status that is written; the floor's Envoy has them to itself. The bytes are
those on the wire, with TLS.
"""

_COST = """
## What a change costs

CPU time of the controller for one change, user and system, by all of its threads: reading it, the push, and writing
and reading back the status, with what it does at rest between two changes. Writes are counted in the API server's
audit log.
"""

_LIVES = """
## Starting

From the start of the process: until the replica is *ready*; until a Gateway that was changed while there was no
controller is *Programmed* again, and a route that was changed then is *served* by Envoy; and until the last write to
the API server is done. CPU time and resident memory are those once nothing has been sent for a while. *First* is a
cluster whose objects no controller has seen, so that every status has to be written.
"""

_MEMORY = """
## Memory

Resident memory of the controller, by differences: it includes the routes' Services and EndpointSlices, the typed
objects, all tables and what is sent.
"""


def _latency_rows(run: Run) -> Iterator[tuple[str, ...]]:
    for what, found in run.changes.items():
        start = (what, f"{run.routes:,}")
        ours, bare = found.meshgw, found.floor
        yield (*start, "meshgw, delivered", *quantiles(ours.delivered))
        yield (*start, "floor, delivered", *quantiles(bare.delivered))
        yield (*start, "**added**", *(f"**{found.added[name]:.1f}**" for name in ("p50", "p90", "p99", "max")))
        yield (*start, "meshgw, Envoy", *quantiles(ours.working))
        yield (*start, "floor, Envoy", *quantiles(bare.working))
        yield (*start, "meshgw, first 200", *quantiles(ours.answered))
        yield (*start, "floor, first 200", *quantiles(bare.answered))


def _later_rows(run: Run) -> Iterator[tuple[str, ...]]:
    for what, found in run.changes.items():
        sizes = f"{found.meshgw.size:,}", f"{found.floor.size:,}"
        yield (what, f"{run.routes:,}", f"{found.changes:,}", f"{found.later.value:.1f}", interval(found.later), *sizes)


def _cost_rows(run: Run) -> Iterator[tuple[str, ...]]:
    for what, found in run.changes.items():
        written = _split(found.writes)
        yield (what, f"{run.routes:,}", f"{found.changes:,}", f"{found.cpu:.1f} ms", *written)
    yield ("none", f"{run.routes:,}", "", f"{100 * run.idle:.1f} % of a core", "", "")


def _life_rows(run: Run) -> Iterator[tuple[str, ...]]:
    lives = {"first": run.first, "again": run.again, "again, more endpoints": run.crowded}
    for what, life in lives.items():
        if life is not None:
            yield (f"{run.routes:,}", f"{life.endpoints:,}", what, *_life_cells(life))


def _life_cells(life: Life) -> Iterator[str]:
    for seconds in (life.ready, life.programmed, life.served, life.written, life.cpu):
        yield "" if seconds is None else f"{seconds:.1f} s"
    for size in (life.resident, life.peak):
        yield f"{size:.0f} MiB"
    yield from _split(life.writes)


def _split(writes: dict[str, int]) -> tuple[str, str]:
    others = [f"{name} {count:,}" for name, count in writes.items() if name != STATUSES]
    return f"{writes.get(STATUSES, 0):,}", ", ".join(others)


def _memory_rows(runs: list[Run]) -> Iterator[tuple[str, ...]]:
    for one, other in itertools.pairwise(runs):
        grown = KIB * (other.again.resident - one.again.resident) / (other.routes - one.routes)
        yield "a route", f"{one.routes:,} and {other.routes:,} routes, after a restart", f"{grown:.1f} KiB"
    for run in runs:
        if run.crowded is not None:
            more = run.crowded.endpoints - run.again.endpoints
            grown = KIB * (run.crowded.resident - run.again.resident) / more
            counts = f"{run.again.endpoints:,} and {run.crowded.endpoints:,} endpoints of {run.routes:,} routes"
            yield "an endpoint", counts, f"{grown:.2f} KiB"
    for run in runs:
        changes = sum(found.changes for found in run.changes.values())
        grown = run.after - run.first.resident
        yield f"{changes:,} changes", f"before and after them, {run.routes:,} routes", f"{grown:.1f} MiB"
