"""The demo as a program: what it checks, that two of it run at once, and that nothing of it remains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.rig.clients import request
from tests.rig.waiting import eventually

CHECKS = [
    "allowed identity",
    "denied identity",
    "no client certificate",
    "wrong destination identity",
    "around the waypoint",
    "split 90/10",
    "header x-version: v2",
    "route edited under load",
    "certificates rotated under load",
]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A temporary directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="meshgw-envoy-") as path:
        yield Path(path)


class Program:
    """A running demo. Its standard error is collected as it comes."""

    def __init__(self, process: asyncio.subprocess.Process, scratch: Path) -> None:
        self.process, self.scratch = process, scratch
        self.said = ""
        self._output = b""

    async def read(self) -> None:
        """Collect both streams to their end."""

        async def errors() -> None:
            while line := await self.process.stderr.readline():
                self.said += line.decode()

        self._output, _ = await asyncio.gather(self.process.stdout.read(), errors())

    async def until_said(self, text: str) -> None:
        """Wait for progress."""
        await eventually(lambda: text in self.said, what=f"the demo says {text!r}", within=60)

    async def exit_code(self, *, within: float = 60) -> int:
        """Wait for its end."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    @property
    def result(self) -> dict[str, Any]:
        """The JSON it printed."""
        document: dict[str, Any] = json.loads(self._output)
        return document

    @property
    def output(self) -> str:
        """What it printed."""
        return self._output.decode()

    def remains(self) -> list[str]:
        """Return what is left of it: folders, and processes that have its folder in their command line."""
        folders = [str(path) for path in self.scratch.glob("meshgw-demo-*")]
        return folders + [line for line in _command_lines() if f"{self.scratch}/meshgw-demo-" in line]


@asynccontextmanager
async def demo(envoy: Path | str, scratch: Path, *arguments: str) -> AsyncIterator[Program]:
    """Start a demo; it is read in the background, and killed if it still runs at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "meshgw", "demo", "--envoy", str(envoy), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    program = Program(process, scratch)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(program.read(), name="demo output")
            try:
                yield program
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    finally:
        process._transport.close()  # type: ignore[attr-defined]  # asyncio leaves it to the collector


def _command_lines() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines


@pytest.mark.timeout(180)
async def test_two_demos_at_once_meet_every_expectation_and_leave_nothing(envoy: Path, scratch: Path) -> None:
    async with demo(envoy, scratch, "-o", "json") as one, demo(envoy, scratch, "-o", "json") as other:
        codes = await asyncio.gather(one.exit_code(), other.exit_code())
    for program in (one, other):
        assert [check["name"] for check in program.result["checks"]] == CHECKS, program.said
        assert [check for check in program.result["checks"] if not check["passed"]] == [], program.said
        assert program.result["passed"] is True
        assert program.remains() == []
    assert codes == [0, 0]
    figures = {check["name"]: check["figures"] for check in one.result["checks"]}
    assert figures["split 90/10"]["v1"] + figures["split 90/10"]["v2"] == 200
    assert figures["denied identity"]["status"] == 403
    assert figures["wrong destination identity"] == {"status": 503, "reached": 0}
    assert figures["route edited under load"]["requests"] > 100
    assert figures["route edited under load"]["failed"] == 0
    assert figures["certificates rotated under load"]["requests"] > 10


@pytest.mark.timeout(180)
async def test_a_kept_demo_follows_its_files_until_it_is_interrupted(envoy: Path, scratch: Path) -> None:
    async with demo(envoy, scratch, "--keep") as program:
        await program.until_said("stays up")
        await program.until_said("holds at once")
        frontend, stranger = (
            ("127.0.0.1", int(re.search(pattern, program.said)[1]))  # type: ignore[index]
            for pattern in (r"curl -i http://127.0.0.1:(\d+)/ .*as frontend", r"http://127.0.0.1:(\d+)/ .*as stranger")
        )
        assert (await request(frontend)).status == 200
        assert (await request(stranger)).status == 403
        route = Path(re.search(r"manifests in (\S+);", program.said)[1]) / "policy.yaml"  # type: ignore[index]
        route.write_text(route.read_text().replace("sa/frontend", "sa/stranger"))

        async def swapped() -> bool:
            return (await request(stranger)).status == 200 and (await request(frontend)).status == 403

        await eventually(swapped, what="the policy lets the other in")
        program.process.send_signal(signal.SIGINT)
        assert await program.exit_code() == 0
    assert program.output.count("\nok ") == len(CHECKS), program.output
    assert "\x1b" not in program.output + program.said
    assert program.remains() == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", ["starting the waypoint", "starting node proxies", "route edited under load"])
async def test_a_demo_that_is_terminated_leaves_nothing(envoy: Path, scratch: Path, moment: str) -> None:
    async with demo(envoy, scratch, "-o", "json") as program:
        await program.until_said(moment)
        program.process.send_signal(signal.SIGTERM)
        assert await program.exit_code(within=20) == 130
    assert "Traceback" not in program.said
    assert program.remains() == []


async def test_an_envoy_that_does_not_run_is_one_clear_line(scratch: Path) -> None:
    async with demo("/bin/false", scratch) as program:
        assert await program.exit_code() == 1
    assert program.said.strip().splitlines() == [
        "Error: --envoy /bin/false does not answer --version as Envoy does; name an Envoy binary"
    ]
    assert program.remains() == []


async def test_a_waypoint_that_cannot_run_is_one_clear_line(scratch: Path, tmp_path: Path) -> None:
    broken = tmp_path / "envoy"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] || exit 1\necho "envoy  version: 0/1.40.0/Clean/RELEASE"\n')
    broken.chmod(0o755)
    async with demo(broken, scratch) as program:
        assert await program.exit_code(within=20) == 1
    assert program.said.strip().splitlines()[-1].startswith("Error: the waypoint cannot run")
    assert "Traceback" not in program.said
    assert program.remains() == []
