"""The processes beside the one that measures: the prober, the floor, and a relay before each xDS server."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.floor import Go, Hold, Report, Stage, pack, receive
from tests.bench.prober import Armed, Question
from tests.bench.relay import Delivered


class Lines:
    """A process that speaks lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def write(self, line: bytes) -> None:
        """Say a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")

    async def read(self, kind: Any) -> Any:
        """Return what it says next."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        return msgspec.json.decode(line, type=kind)


class Prober(Lines):
    """The probing process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__(process)
        self.ports: list[int] = []

    async def arm(self, question: Question) -> None:
        """Start asking; returns once the wrong answer was seen."""
        self.write(msgspec.json.encode(question))
        await self.read(Armed)


class RelayProcess(Lines):
    """A relay's process."""

    async def ask(self) -> Delivered:
        """Return what was delivered since the last question."""
        self.write(b"")
        found: Delivered = await self.read(Delivered)
        return found


class FloorProcess:
    """The floor's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, command: Hold | Stage | Go) -> Any:
        """Return its report."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(pack(command))
        await self._process.stdin.drain()
        return await receive(self._process.stdout, Report)


@contextlib.asynccontextmanager
async def run_prober(host: str = "127.0.0.1") -> AsyncIterator[Prober]:
    """Run the prober, whose backends listen on an address."""
    async with run_module("tests.bench.prober", host) as process:
        prober = Prober(process)
        prober.ports = await prober.read(list[int])
        yield prober


@contextlib.asynccontextmanager
async def run_relay(listen: Path | str, connect: Path | str) -> AsyncIterator[RelayProcess]:
    """Run a relay from one address to another; it listens."""
    async with run_module("tests.bench.relay", str(listen), str(connect)) as process:
        relay = RelayProcess(process)
        await relay.read(Delivered)
        yield relay


@contextlib.asynccontextmanager
async def run_floor(listen: Path | str, *credentials: Path) -> AsyncIterator[FloorProcess]:
    """Run the floor; on `host:port` with the folder of its certificate."""
    async with run_module("tests.bench.floor", str(listen), *map(str, credentials)) as process:
        yield FloorProcess(process)


@contextlib.asynccontextmanager
async def run_module(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a module of the benchmark until the block ends; it ends by itself when its stdin does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**28,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()
