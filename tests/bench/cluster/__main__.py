"""Run all measurements in a cluster, one process each, and write the results and their part of the page."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tests.bench.cluster.measure import Run
from tests.bench.cluster.places import PLACES
from tests.bench.cluster.report import Results, judge, render
from tests.bench.machine import describe
from tests.bench.page import PAGE, replace_cluster
from tests.bench.report import Step, say, tell

RESULTS = Path(__file__).parent.parent / "results"

FULL = ((1_000, 150, 30), (3_000, 100, 0))
"""Routes, changes of each kind, and endpoints of each application in the end, 0 for no such measurement."""
QUICK = ((20, 4, 3),)


def main() -> int:
    """Return 1 when a target is missed; `--quick` judges and writes nothing but `--output`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run of the benchmark itself: few routes")
    parser.add_argument("--output", type=Path, help="file for the results (default: tests/bench/results)")
    parser.add_argument("--on", choices=PLACES, help="a local cluster, or an API server alone, as for quick runs")
    options = parser.parse_args()
    began = time.monotonic()
    place = options.on or ("apiserver" if options.quick else "local")
    results = _measure(QUICK if options.quick else FULL, place)
    say(f"all done in {time.monotonic() - began:.0f} s")
    path = options.output or (None if options.quick else _default_path(results))
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
        say(f"wrote {path}")
    if options.quick:
        return 0
    PAGE.write_text(replace_cluster(PAGE.read_text(), render(results)))
    say(f"wrote {PAGE}")
    return tell(judge(results))


def _measure(plan: tuple[tuple[int, int, int], ...], place: str) -> Results:
    machine, steps, runs = describe(), [], []
    for number, (size, changes, crowd) in enumerate(plan, 1):
        say(f"[{number}/{len(plan)}] a cluster with {size:,} routes, {changes} changes of each kind ...")
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.bench.cluster.measure", place, *map(str, (size, changes, crowd))]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        runs.append(msgspec.json.decode(done.stdout, type=Run))
        seconds, load = time.monotonic() - began, os.getloadavg()[0]
        steps.append(Step(module="tests.bench.cluster", routes=size, seconds=round(seconds, 1), load=round(load, 2)))
        say(f"      {seconds:.0f} s, load {load:.1f}")
    return Results(place=place, machine=machine, steps=steps, runs=runs)


def _default_path(results: Results) -> Path:
    day = dt.datetime.now(dt.UTC).date().isoformat()
    return RESULTS / f"{day}-{results.machine.name}-cluster.json"


if __name__ == "__main__":
    sys.exit(main())
