from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.bench.cluster.life import Audit, Life, usage
from tests.bench.cluster.measure import Comparison, Run, Side
from tests.bench.cluster.recorder import Events
from tests.bench.cluster.report import Results, judge, render
from tests.bench.page import CLUSTER, replace_cluster, replace_first
from tests.bench.report import ENDPOINT, ROUTE
from tests.bench.summary import Median
from tests.bench.test_bench import MACHINE, summary


def event(version: int, type_: str = "MODIFIED") -> bytes:
    fields = {"f:metadata": {"f:labels": {}}}
    metadata = {"generation": 7, "managedFields": [{"fieldsV1": fields}], "name": "x", "resourceVersion": str(version)}
    document = {"type": type_, "object": {"kind": "HTTPRoute", "metadata": metadata, "spec": {"resourceVersion": "0"}}}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("step", [1, 3, 100, 10_000])
def test_an_event_has_come_with_the_last_byte_of_its_line(step: int) -> None:
    stream = event(5) + b"\r\n" + event(6, "BOOKMARK") + event(7, "ADDED") + b'{"resourceVersion":"8"}\n' + event(9)
    seen: dict[str, int] = {}
    events = Events(seen)
    for at in range(0, len(stream), step):
        events.note(stream[at : at + step], at + step)
    assert set(seen) == {"5", "7", "9"}
    if step == 1:
        assert seen["5"] == len(event(5))
        assert seen["9"] == len(stream)


def test_the_first_event_of_a_version_counts() -> None:
    seen: dict[str, int] = {}
    Events(seen).note(event(5), 10)
    Events(seen).note(event(5), 20)
    assert seen == {"5": 10}


def test_writes_are_those_of_one_user_to_objects_since_the_last_look(tmp_path: Path) -> None:
    def line(user: str, verb: str, resource: str, subresource: str = "") -> bytes:
        reference = {"resource": resource, **({"subresource": subresource} if subresource else {})}
        event = {"verb": verb, "user": {"username": user}, "objectRef": reference}
        return json.dumps({**event, "stageTimestamp": "2026-01-01T00:00:00.250000Z"}).encode() + b"\n"

    log = tmp_path / "audit.log"
    log.write_bytes(
        line("us", "patch", "httproutes", "status")
        + line("us", "get", "httproutes")
        + line("them", "patch", "httproutes", "status")
        + line("us", "update", "leases")
        + b'{"verb":"get","user":{}}\n'
        + line("us", "patch", "services")[:20]
    )
    audit = Audit(log, "us")
    assert audit.writes() == {"httproutes/status": 1}
    with log.open("ab") as more:
        more.write(line("us", "patch", "services")[20:] + line("us", "patch", "services"))
    assert audit.writes() == {"services": 2}
    assert audit.last == 1767225600.25
    assert audit.writes() == {}


def test_usage_is_that_of_the_whole_process() -> None:
    before = usage(os.getpid())
    size = 64 << 20
    block = bytearray(size)
    block[::4096] = b"x" * (size // 4096)
    while usage(os.getpid()).cpu < before.cpu + 0.05:
        pass
    after = usage(os.getpid())
    assert after.peak >= after.resident > before.resident + 32 > 32


def comparison(*, p50: float = 4.0, p99: float = 9.0, written: int = 0) -> Comparison:
    side = Side(delivered=summary(), working=summary(), answered=summary(), size=1)
    return Comparison(
        routes=1_000,
        changes=10,
        meshgw=side,
        floor=side,
        added={"p50": p50, "p90": 8.0, "p99": p99, "max": 30.0},
        later=Median(value=3.0, low=1.0, high=6.0),
        cpu=7.0,
        writes={"httproutes/status": written} if written else {},
        requests=1,
        errors=0,
    )


def life(*, endpoints: int = 1_000, resident: float = 140.0, written: int = 1) -> Life:
    writes = {"httproutes/status": written}
    return Life(endpoints=endpoints, ready=2.0, written=4.0, cpu=3.0, resident=resident, peak=resident, writes=writes)


def results_of(
    route: Comparison | None = None, endpoint: Comparison | None = None, again: Life | None = None
) -> Results:
    run = Run(
        routes=1_000,
        first=life(written=1_000),
        changes={ROUTE: route or comparison(written=10), ENDPOINT: endpoint or comparison()},
        idle=0.005,
        after=150.0,
        again=again or life(),
        crowded=life(endpoints=10_000, resident=149.0),
    )
    larger = msgspec.structs.replace(run, routes=2_000, again=life(resident=240.0), crowded=None)
    return Results(place="local", machine=MACHINE, steps=[], runs=[run, larger])


@pytest.mark.parametrize(
    ("results", "missed"),
    [
        (results_of(), []),
        (results_of(route=comparison(p50=5.0, p99=20.0, written=10)), []),
        (results_of(route=comparison(p50=5.1)), ["added from watch event to push, one route changed of 1,000, p50"]),
        (
            results_of(endpoint=comparison(p99=20.1)),
            ["added from watch event to push, one endpoint changed of 1,000, p99"],
        ),
        (results_of(route=comparison(written=11)), ["writes for 10 times one route changed of 1,000"]),
        (results_of(endpoint=comparison(written=1)), ["writes for 10 times one endpoint changed of 1,000"]),
        (results_of(again=life(written=2)), ["statuses of routes written at a restart, one of 1,000 changed"]),
    ],
)
def test_what_is_later_or_writes_more_than_it_may_misses_its_target(results: Results, missed: list[str]) -> None:
    assert [verdict.what for verdict in judge(results) if not verdict.met] == missed


def test_the_part_shows_what_routes_and_endpoints_take() -> None:
    part = render(results_of())
    assert "| a route | 1,000 and 2,000 routes, after a restart | 102.4 KiB |" in part
    assert "| an endpoint | 1,000 and 10,000 endpoints of 1,000 routes | 1.02 KiB |" in part
    assert "| one route changed | 1,000 | 10 | 7.0 ms | 10 |  |" in part
    assert "| 1,000 | 1,000 | first | 2.0 s |  |  | 4.0 s | 3.0 s | 140 MiB | 140 MiB | 1,000 |  |" in part


def test_each_benchmark_writes_its_part_of_the_page_and_leaves_the_other() -> None:
    first = replace_first("old\n", "one\n")
    assert first == "one\n"
    both = replace_cluster(first, "two\n")
    assert both == f"one\n\n{CLUSTER}two\n"
    assert replace_first(both, "three\n") == f"three\n\n{CLUSTER}two\n"
    assert replace_cluster(both, "four\n") == f"one\n\n{CLUSTER}four\n"


@pytest.mark.apiserver
@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_quick_run_measures_everything_in_a_cluster(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "tests.bench.cluster", "--quick", "--output", str(output)]
    done = subprocess.run(command, timeout=240, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    results = msgspec.json.decode(output.read_bytes(), type=Results)
    (run,) = results.runs
    assert run.first.writes["httproutes/status"] == run.routes
    assert run.again.writes["httproutes/status"] == 1
    assert run.again.programmed is not None
    assert run.again.served is not None
    assert run.crowded is not None
    assert run.crowded.endpoints == 3 * run.routes
    assert "httproutes/status" not in run.crowded.writes
    for what, found in run.changes.items():
        assert found.errors == 0
        assert found.writes == ({"httproutes/status": found.changes} if what == ROUTE else {})
        assert abs(found.meshgw.size - found.floor.size) < 100  # the same bytes but for version and nonce
        assert 0 < found.meshgw.delivered.min < found.meshgw.answered.max
    assert results.place == "apiserver"
    assert judge(results) == []  # the targets are for more routes
    assert "| one route changed | 20 | floor, delivered |" in render(results)
