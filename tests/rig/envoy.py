"""Real Envoy for tests: run one from a static configuration, or ask whether it accepts one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpcore
import msgspec

from meshgw.standalone.envoy import find_envoy
from tests.rig.waiting import eventually

Config = Mapping[str, Any]


@cache
def envoy_path() -> Path:
    """Return the Envoy under test: `$MESHGW_TEST_ENVOY`, else what the product finds (fetched when absent)."""
    return find_envoy(os.environ.get("MESHGW_TEST_ENVOY")).path


class Admin:
    """Envoy's admin interface on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def text(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """Return status and body."""
        async with httpcore.AsyncConnectionPool(uds=str(self.path)) as pool:
            limits = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), 5.0)}
            try:
                answer = await pool.request(method, f"http://admin{path}", extensions=limits)
            except httpcore.NetworkError as error:
                raise ConnectionError(str(error)) from error
            return answer.status, answer.content.decode()

    async def json(self, path: str) -> Any:
        """Return a JSON document."""
        return msgspec.json.decode((await self.text(path))[1])

    async def stats(self, pattern: str = "") -> dict[str, int]:
        """Return counters and gauges whose name matches the regular expression `pattern`."""
        document = await self.json(f"/stats?format=json&filter={pattern}")
        return {item["name"]: item["value"] for item in document["stats"] if "name" in item and "value" in item}

    async def ready(self) -> bool:
        """Whether the server is LIVE."""
        status, _ = await self.text("/ready")
        return status == 200


@dataclass
class RunningEnvoy:
    """An Envoy started by the rig."""

    process: asyncio.subprocess.Process
    admin: Admin
    log_path: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def log(self) -> str:
        """Return what it logged."""
        return self.log_path.read_text(errors="replace")

    async def wait_log(self, text: str, *, within: float = 5.0) -> None:
        """Wait until `text` is in the log."""
        await eventually(lambda: text in self.log(), what=f"{text!r} in Envoy's log", within=within)


@dataclass(frozen=True)
class Verdict:
    """Whether Envoy accepts a configuration, and its complaint if not."""

    ok: bool
    error: str = ""

    def __bool__(self) -> bool:
        return self.ok


@contextlib.asynccontextmanager
async def run_static(
    config: Config, *, concurrency: int = 1, log_level: str = "warning", within: float = 15.0, wait: bool = True
) -> AsyncIterator[RunningEnvoy]:
    """Run Envoy with `config` (its admin is replaced by a private unix socket) until the block ends.

    Yields once it is LIVE, or at once with `wait=False`; fails with its log when it ends before that.
    """
    with tempfile.TemporaryDirectory(prefix="meshgw-rig-") as scratch:
        folder = Path(scratch)
        admin = Admin(folder / "admin.sock")
        document = {**config, "admin": {"address": {"pipe": {"path": str(admin.path), "mode": 0o600}}}}
        (folder / "envoy.json").write_text(json.dumps(document))
        log_path = folder / "envoy.log"
        process = await _start(
            ["-c", str(folder / "envoy.json"), "-l", log_level, "--concurrency", str(concurrency)], log_path
        )
        envoy = RunningEnvoy(process, admin, log_path)
        try:
            if wait:
                await _await_live(envoy, within)
            yield envoy
        finally:
            await _stop(process)


@contextlib.asynccontextmanager
async def run_files(folder: Path, *arguments: str, log_level: str = "warning") -> AsyncIterator[Path]:
    """Run Envoy with `envoy.json` of a folder as it is until the block ends; yields its log at once."""
    log_path = folder / "envoy.log"
    command = ["-c", str(folder / "envoy.json"), "-l", log_level, "--concurrency", "1", *arguments]
    process = await _start(command, log_path)
    try:
        yield log_path
    finally:
        await _stop(process)


async def validate(config: Config, *, within: float = 30.0) -> Verdict:
    """Return Envoy's verdict (`--mode validate`) on a whole configuration."""
    with tempfile.TemporaryDirectory(prefix="meshgw-rig-") as scratch:
        path, log_path = Path(scratch) / "envoy.json", Path(scratch) / "envoy.log"
        path.write_text(json.dumps(config))
        process = await _start(["-c", str(path), "--mode", "validate", "-l", "error"], log_path)
        try:
            async with asyncio.timeout(within):
                code = await process.wait()
        finally:
            await _stop(process)
        return Verdict(code == 0, "" if code == 0 else log_path.read_text(errors="replace").strip())


async def validate_many(configs: Iterable[tuple[str, Config]], *, parallel: int = 2) -> dict[str, Verdict]:
    """Return the verdict for each named configuration, `parallel` Envoys at a time."""
    slots = asyncio.Semaphore(parallel)

    async def one(config: Config) -> Verdict:
        async with slots:
            return await validate(config)

    async with asyncio.TaskGroup() as tasks:
        running = {name: tasks.create_task(one(config)) for name, config in configs}
    return {name: task.result() for name, task in running.items()}


async def _start(arguments: list[str], log_path: Path) -> asyncio.subprocess.Process:
    from meshgw.standalone import launch

    with log_path.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *launch.command([str(envoy_path()), *arguments, "--disable-hot-restart"]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def _await_live(envoy: RunningEnvoy, within: float) -> None:
    def alive() -> None:
        if envoy.process.returncode is not None:
            raise RuntimeError(f"Envoy ended with {envoy.process.returncode}:\n{envoy.log()[-4000:]}")

    async def live() -> bool:
        alive()
        return envoy.admin.path.exists() and await envoy.admin.ready()

    try:
        await eventually(live, what="Envoy is LIVE", within=within)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{envoy.log()[-4000:]}") from None


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
