"""Children that die with their parent."""

from __future__ import annotations

import asyncio
import os
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
