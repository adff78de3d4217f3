"""Children that die with their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meshgw.standalone import launch
from meshgw.standalone.process import start_time
from tests.rig.waiting import eventually

PARENT = """
import subprocess, sys
from meshgw.standalone import launch
child = subprocess.Popen(launch.command(["/bin/sleep", "60"]), stdin=subprocess.DEVNULL, start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
"""


async def test_a_killed_parent_takes_the_child_along() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        child = int(await parent.stdout.readline())
        name = Path(f"/proc/{child}/comm")
        await eventually(lambda: name.read_text() == "sleep\n", what="the child became sleep")
    finally:
        parent.kill()
        await parent.wait()
    await eventually(lambda: start_time(child) is None, what="the child is gone")


def test_a_parent_that_is_gone_already_starts_nothing() -> None:
    command = launch.command([sys.executable, "-c", "print('ran')"])
    command[command.index(str(os.getpid()))] = "1"
    outcome = subprocess.run(command, capture_output=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (1, b"")


def test_what_cannot_run_is_said_in_one_line(tmp_path: object) -> None:
    outcome = subprocess.run(launch.command([f"{tmp_path}/none"]), capture_output=True, check=False, text=True)
    assert outcome.returncode == 127
    assert outcome.stderr == f"cannot run Envoy: {tmp_path}/none: No such file or directory\n"


def test_other_systems_run_the_program_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.sys, "platform", "darwin")
    assert launch.command(["envoy"]) == ["envoy"]


class Kernel:
    """Stands in for the C library: `answer` is what prctl returns."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.calls: list[tuple[int, ...]] = []

    def prctl(self, *arguments: int) -> int:
        self.calls.append(arguments)
        return self.answer


def test_the_tie_is_made_before_becoming_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, ran = Kernel(0), []
    monkeypatch.setattr("ctypes.CDLL", lambda *_arguments, **_options: kernel)
    monkeypatch.setattr(launch.os, "execv", lambda path, arguments: ran.append((path, arguments, len(kernel.calls))))
    launch.main(os.getppid(), ["envoy", "-c", "x"])
    assert kernel.calls == [(1, signal.SIGKILL, 0, 0, 0)]
    assert ran == [("envoy", ["envoy", "-c", "x"], 1)]
    with pytest.raises(SystemExit):
        launch.main(-1, ["envoy"])
    assert len(ran) == 1


def test_a_kernel_that_cannot_tie_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda *_arguments, **_options: Kernel(-1))
    monkeypatch.setattr(launch.os, "execv", lambda *_arguments: pytest.fail("ran untied"))
    with pytest.raises(OSError, match="PR_SET_PDEATHSIG"):
        launch.main(os.getppid(), ["envoy"])
