from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.bench import world
from tests.bench.latency import Comparison, Latency, Side
from tests.bench.machine import Machine
from tests.bench.relay import Delivered, Frames, Records, Relay
from tests.bench.report import JUDGED, Results, Step, judge, render
from tests.bench.summary import Median, Summary, difference, median, quantile, summarise


def summary(**values: float) -> Summary:
    return msgspec.convert({"count": 1, "p50": 0, "p90": 0, "p99": 0, "max": 0, "min": 0} | values, Summary)


@pytest.mark.parametrize(
    ("share", "value"),
    [(0.0, 1), (0.5, 50), (0.501, 51), (0.9, 90), (0.99, 99), (1.0, 100)],
)
def test_a_quantile_is_the_smallest_value_with_enough_below_it(share: float, value: float) -> None:
    assert quantile(list(range(1, 101)), share) == value


def test_the_quantiles_of_one_value_are_that_value() -> None:
    assert summarise([0.002]) == Summary(count=1, p50=2.0, p90=2.0, p99=2.0, max=2.0, min=2.0)


def test_seconds_in_any_order_become_milliseconds() -> None:
    found = summarise([0.003, 0.001, 0.002])
    assert (found.count, found.min, found.p50, found.max) == (3, 1.0, 2.0, 3.0)


def test_a_difference_is_that_of_the_same_quantiles() -> None:
    one, other = summary(p50=5.0, p90=6.0, p99=9.0, max=20.0), summary(p50=4.5, p90=6.5, p99=7.0, max=9.0)
    assert difference(one, other) == {"p50": 0.5, "p90": -0.5, "p99": 2.0, "max": 11.0}


@pytest.mark.parametrize(("count", "low", "high"), [(1, 1, 1), (5, 1, 5), (6, 1, 6), (10, 2, 9), (100, 40, 61)])
def test_the_interval_of_a_median_is_that_of_the_tables(count: int, low: int, high: int) -> None:
    found = median(value / 1000 for value in range(count, 0, -1))
    assert (found.low, found.value, found.high) == (low, (count + 1) // 2, high)


def comparison(*, p50: float = 4.0, p99: float = 9.0, low: float = 1.0) -> Comparison:
    side = Side(delivered=summary(), working=summary(), answered=summary(), acked=summary(), size=1)
    return Comparison(
        routes=JUDGED,
        meshgw=side,
        floor=side,
        added={"p50": p50, "p90": 8.0, "p99": p99, "max": 30.0},
        later=Median(value=3.0, low=low, high=low + 5),
        handed=summary(),
        cpu=summary(),
        requests=1,
        errors=0,
        slowest_request=1.0,
    )


MACHINE = Machine(
    name="m",
    cpu="c",
    cores=2,
    memory_gib=1.0,
    kernel="k",
    load=(0.0, 0.0, 0.0),
    python="p",
    envoy="e",
    packages={},
    revision="r",
)


def results_of(found: Comparison) -> Results:
    latency = Latency(changes={"one route changed": found}, cold={}, start=1.0, scan=1.0)
    return Results(machine=MACHINE, steps=[], translations=[], footprints=[], latencies=[latency])


@pytest.mark.parametrize(
    ("found", "met"),
    [
        (comparison(), [True, True]),
        (comparison(p50=5.0, p99=20.0, low=5.0), [True, True]),
        (comparison(p50=5.1), [False, True]),
        (comparison(p99=20.1), [True, False]),
        (comparison(low=5.1), [False, True]),
    ],
)
def test_first_answers_that_are_surely_too_late_miss_the_target_whatever_is_added(
    found: Comparison, met: list[bool]
) -> None:
    assert [verdict.met for verdict in judge(results_of(found))] == met


def test_the_page_shows_first_answers_beside_what_is_added() -> None:
    page = render(results_of(comparison()))
    assert "| 4.0 ms; first 200: 1.0 to 6.0 ms | 5 ms | met |" in page
    assert "| one route changed | 5,000 | meshgw, first 200 |" in page
    assert "| one route changed | 5,000 | 1 | 3.0 | 1.0 to 6.0 | 1 | 1 |" in page


def test_the_page_says_when_the_machine_was_not_quiet() -> None:
    steps = [Step(module=f"tests.bench.{name}", routes=5_000, seconds=1.0, load=load) for name, load in LOADS.items()]
    quiet, disturbed = (
        render(msgspec.structs.replace(results_of(comparison()), steps=part)) for part in (steps[:1], steps)
    )
    assert "not quiet" not in quiet
    assert "**the machine was not quiet**, and times are too long, in latency, 5,000\n" in disturbed


LOADS = {"memory": 2.0, "latency": 2.1}


def frame(kind: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + body


PING, DATA = frame(6, b"12345678"), frame(0, b"x" * 300)


@pytest.mark.parametrize("step", [1, 2, 7, 10, 9 + 300, 10_000])
def test_only_data_frames_count_however_they_are_cut(step: int) -> None:
    stream = frame(4, b"") + PING + DATA + frame(0, b"") + frame(0, b"y") + PING
    frames = Frames()
    counts = [frames.count(stream[at : at + step]) for at in range(0, len(stream), step)]
    assert sum(counts) == 301
    if step == 1:
        first = stream.index(b"x")
        assert counts[:first] == [0] * first
        assert counts[first] == 1


def record(size: int) -> bytes:
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + b"x" * size


@pytest.mark.parametrize("step", [1, 4, 5, 6, 100, 10_000])
def test_only_records_that_are_not_small_count_however_they_are_cut(step: int) -> None:
    stream = record(30) + record(129) + record(128) + record(0) + record(16_384 + 17) + record(22)
    records = Records()
    counts = [records.count(stream[at : at + step]) for at in range(0, len(stream), step)]
    assert sum(counts) == 129 + 16_384 + 17
    if step == 1:
        assert counts.index(1) == len(record(30)) + 5


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    relay = Relay(str(tmp_path / "listen"), str(tmp_path / "connect"))
    threading.Thread(target=relay.run, daemon=True).start()
    return relay


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(str(path))
    return client


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    return data


def test_a_relay_forwards_both_ways_and_tells_once_when_data_was_delivered(relay: Relay, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "connect"))
        listener.listen()
        with connect(tmp_path / "listen") as client, listener.accept()[0] as server:
            client.sendall(DATA)
            assert receive(server, len(DATA)) == DATA
            server.sendall(PING)
            assert receive(client, len(PING)) == PING
            assert relay.ask() == Delivered(at=0, size=0)
            began = time.perf_counter_ns()
            server.sendall(DATA)
            assert receive(client, len(DATA)) == DATA
            ended = time.perf_counter_ns()
            found = relay.ask()
            assert found.size == 300
            assert began < found.at
            assert found.at - ended < 1e9
            assert relay.ask() == Delivered(at=0, size=0)
            client.close()
            assert server.recv(1) == b""


def test_a_relay_hangs_up_while_there_is_no_server(relay: Relay, tmp_path: Path) -> None:
    with connect(tmp_path / "listen") as client:
        assert client.recv(1) == b""


def test_block_style_yaml_reads_as_what_was_written() -> None:
    for document in world.documents(1):
        assert yaml.safe_load(world.block(document)) == document
    assert yaml.safe_load(world.block({"a": [], "b": {}, "c": [[1, "x: y"], {"d": None}]})) == {
        "a": [],
        "b": {},
        "c": [[1, "x: y"], {"d": None}],
    }


def test_a_world_has_three_objects_for_each_route() -> None:
    batch = world.batch_of(world.documents(7))
    assert sorted(len(rows) for rows in batch.values()) == [1, 1, 7, 7, 7]


@pytest.mark.envoy
@pytest.mark.slow
def test_a_quick_run_measures_everything(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--output", str(output)]
    subprocess.run(command, check=True, timeout=100, capture_output=True)
    results = msgspec.json.decode(output.read_bytes(), type=Results)
    assert [found.routes for found in results.translations] == [100]
    (latency,) = results.latencies
    assert {name: found.errors for name, found in latency.changes.items()} == {
        "one route changed": 0,
        "one endpoint changed": 0,
    }
    for found in latency.changes.values():
        assert abs(found.meshgw.size - found.floor.size) < 100  # the same bytes but for version and nonce
        assert found.handed.min < found.meshgw.delivered.min < found.meshgw.answered.min
    assert judge(results) == []  # the targets are for more routes
    assert "| one route changed | 100 | floor, delivered |" in render(results)
