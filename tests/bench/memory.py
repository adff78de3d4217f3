"""The whole product as a user runs it: how long `meshgw run` takes until it serves, and what memory it holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.bench import world
from tests.rig.addresses import next_loopback
from tests.rig.envoy import envoy_path


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """One size: seconds from the start of the process to a live proxy, and MiB of the controller (not of Envoy).

    `started` is resident memory once it serves, `edited` after some edits of routes and endpoints, `peak` the most
    that ever was.
    """

    routes: int
    seconds: float
    started: float
    edited: float
    peak: float
    edits: int


async def measure(size: int, *, edits: int) -> Footprint:
    """Run the command over a folder of `size` routes, and look at its process."""
    with tempfile.TemporaryDirectory(prefix="meshgw-bench-") as scratch:
        folder = world.Folder(Path(scratch, "files"))
        folder.fill(size, port=8080, address=next_loopback())
        options = ["--runtime-dir", f"{scratch}/run", "--envoy", str(envoy_path()), "--concurrency", "1"]
        command = [
            sys.executable,
            "-m",
            "meshgw",
            "run",
            "-f",
            str(folder.path),
            *options,
            "--no-metrics",
            "-o",
            "json",
        ]
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *command, "--log-level", "error", stdout=asyncio.subprocess.PIPE, limit=2**24
        )
        try:
            async with asyncio.timeout(180):
                await _live(process)
            seconds = time.perf_counter() - began
            started = _resident(process.pid)["VmRSS"]
            async with asyncio.TaskGroup() as tasks:
                drain = tasks.create_task(_drain(process))
                await _edit(folder, size, edits)
                after = _resident(process.pid)
                drain.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
    return Footprint(
        routes=size,
        seconds=round(seconds, 2),
        started=started,
        edited=after["VmRSS"],
        peak=after["VmHWM"],
        edits=edits,
    )


async def _live(process: asyncio.subprocess.Process) -> None:
    """Wait until the pictures that the command prints show a live proxy."""
    assert process.stdout is not None
    async for line in process.stdout:
        gateways: list[dict[str, Any]] = json.loads(line)["gateways"]
        if gateways and gateways[0]["proxy"] == "live":
            return
    raise RuntimeError("the command ended")


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    async for _line in process.stdout:
        pass


async def _edit(folder: world.Folder, size: int, edits: int) -> None:
    """Edit routes and endpoints, slowly enough that each is a reload of its own."""
    for number in range(edits):
        app = world.application(number * 7919 % size)
        folder.write_route(app, f"/edit-{number}")
        folder.write_endpoints(app, 9000 + number)
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)


def _resident(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if line.startswith("Vm"))
    return {name: round(int(found[name].split()[0]) / 1024, 1) for name in ("VmRSS", "VmHWM")}


def main() -> None:
    """Measure the size given as first argument with the edits given as second."""
    found = asyncio.run(measure(int(sys.argv[1]), edits=int(sys.argv[2])))
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
