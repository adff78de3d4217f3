"""`meshgw demo`: what it prints and how it ends, with a mesh that is not there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshgw.cli.demo import command
from meshgw.demo import checks, mesh
from meshgw.demo.nodes import DemoError
from meshgw.demo.verdict import Outcome
from meshgw.standalone import envoy
from meshgw.standalone.envoy import EnvoyBinary
from meshgw.standalone.lock import InUseError

GOOD = Outcome(name="split", expected="90/10", observed="180 to 20", passed=True, seconds=0.5, figures={"v1": 180})
BAD = Outcome(name="denied", expected="403", observed="200", passed=False)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the demo have these outcomes, or fail to set up."""

    def play(*outcomes: Outcome, error: Exception | None = None) -> None:
        @asynccontextmanager
        async def nothing(_envoy: EnvoyBinary, _progress: object) -> AsyncIterator[None]:
            if error is not None:
                raise ExceptionGroup("tasks", [ExceptionGroup("inner", [error])])
            yield None

        async def run(_mesh: object, _progress: object) -> AsyncIterator[Outcome]:
            for outcome in outcomes:
                yield outcome

        monkeypatch.setattr(mesh, "ambient_mesh", nothing)
        monkeypatch.setattr(checks, "run_checks", run)
        monkeypatch.setattr(envoy, "find_envoy", lambda _given: EnvoyBinary(Path("/envoy"), "1.40.0", "given"))

    return play


def test_a_demo_that_meets_every_expectation_ends_with_0(play: Callable[..., None]) -> None:
    play(GOOD)
    result = CliRunner().invoke(command, ["-o", "json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["passed"] is True
    assert document["checks"][0]["figures"] == {"v1": 180}


def test_a_failed_expectation_ends_with_1_and_is_named(play: Callable[..., None]) -> None:
    play(GOOD, BAD)
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert "failed: denied\n" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["RESULT", "CHECK", "EXPECTED", "OBSERVED", "SECONDS"]
    assert lines[1].split()[:2] == ["ok", "split"]
    assert lines[2].split()[:2] == ["FAILED", "denied"]
    assert "\x1b" not in result.output


@pytest.mark.parametrize("error", [DemoError("the waypoint cannot run"), InUseError("127.0.15.10 is in use")])
def test_a_mesh_that_cannot_be_set_up_is_one_line(play: Callable[..., None], error: Exception) -> None:
    play(error=error)
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: {error}"
    assert result.stdout == ""
