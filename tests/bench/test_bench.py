from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.bench import world
from tests.bench.report import Results, judge, render
from tests.bench.summary import Summary, difference, quantile, summarise


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
    assert judge(results) == []  # the targets are for more routes
    assert "| one route changed | 100 | floor |" in render(results)
