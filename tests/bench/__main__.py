"""Run all measurements, one process each, and write the results and the table."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tests.bench.latency import Latency
from tests.bench.machine import describe
from tests.bench.memory import Footprint
from tests.bench.page import PAGE, replace_first
from tests.bench.report import Results, Step, judge, render, say, tell
from tests.bench.translate import Translation

HERE = Path(__file__).parent

Plan = dict[str, tuple[tuple[int, int], ...]]
"""Module to the sizes it measures, each with its number of changes."""
FULL: Plan = {
    "tests.bench.translate": ((1_000, 100), (5_000, 100), (20_000, 20)),
    "tests.bench.memory": ((5_000, 50),),
    "tests.bench.latency": ((1_000, 100), (5_000, 200)),
}
QUICK: Plan = {
    "tests.bench.translate": ((100, 6),),
    "tests.bench.memory": ((100, 3),),
    "tests.bench.latency": ((100, 6),),
}


def main() -> int:
    """Return 1 when a target is missed; `--quick` judges and writes nothing but `--output`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run of the benchmark itself: few routes")
    parser.add_argument("--output", type=Path, help="file for the results (default: tests/bench/results)")
    options = parser.parse_args()
    began = time.monotonic()
    results = _measure(QUICK if options.quick else FULL)
    say(f"all done in {time.monotonic() - began:.0f} s")
    path = options.output or (None if options.quick else _default_path(results))
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
        say(f"wrote {path}")
    if options.quick:
        return 0
    PAGE.write_text(replace_first(PAGE.read_text(), render(results)))
    say(f"wrote {PAGE}")
    return tell(judge(results))


def _measure(plan: Plan) -> Results:
    runs = [(module, size, changes) for module, sizes in plan.items() for size, changes in sizes]
    found: dict[str, list[bytes]] = {module: [] for module in plan}
    machine, steps = describe(), []
    for number, (module, size, changes) in enumerate(runs, 1):
        say(f"[{number}/{len(runs)}] {module} with {size} routes, {changes} changes of each kind ...")
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", module, str(size), str(changes)], stdout=subprocess.PIPE, check=True
        )
        found[module].append(done.stdout)
        seconds, load = time.monotonic() - began, os.getloadavg()[0]
        steps.append(Step(module=module, routes=size, seconds=round(seconds, 1), load=round(load, 2)))
        say(f"      {seconds:.0f} s, load {load:.1f}")
    return Results(
        machine=machine,
        steps=steps,
        translations=[msgspec.json.decode(item, type=Translation) for item in found["tests.bench.translate"]],
        footprints=[msgspec.json.decode(item, type=Footprint) for item in found["tests.bench.memory"]],
        latencies=[msgspec.json.decode(item, type=Latency) for item in found["tests.bench.latency"]],
    )


def _default_path(results: Results) -> Path:
    day = dt.datetime.now(dt.UTC).date().isoformat()
    return HERE / "results" / f"{day}-{results.machine.name}.json"


if __name__ == "__main__":
    sys.exit(main())
