"""Whole instances over a folder of YAML: in this process, or as `meshgw run` in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpcore

from meshgw.api.meta import Key
from meshgw.config import MeshSettings, RunSettings
from meshgw.ir.finding import Finding
from meshgw.standalone.application import Application
from meshgw.standalone.board import Picture
from tests.envoy.gateway import OFFSET, Document, Manifest, gateway, listener, manifest
from tests.rig.clients import Target, request
from tests.rig.envoy import envoy_path
from tests.rig.waiting import eventually


class Folder:
    """A folder of YAML files, each replaced as a whole as an editor or a ConfigMap mount would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, *documents: Manifest) -> None:
        """Write or replace a file."""
        self.write_text(name, manifest(*documents))

    def write_text(self, name: str, text: str) -> None:
        """Write or replace a file with any text."""
        unfinished = self.path / f".{name}.new"
        unfinished.write_text(text)
        unfinished.replace(self.path / f"{name}.yaml")

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self.path / f"{name}.yaml").unlink()


class Pictures:
    """A board that keeps what it is shown."""

    def __init__(self) -> None:
        self.last = Picture()
        self._changed = asyncio.Event()

    def show(self, picture: Picture) -> None:
        """Keep a picture."""
        self.last = picture
        self._changed.set()

    def close(self) -> None:
        """Nothing to do."""

    async def wait(self, check: Callable[[Picture], bool], *, within: float = 5.0) -> Picture:
        """Return the first picture that passes."""
        try:
            async with asyncio.timeout(within):
                while not check(self.last):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within} s; last: {self.last}") from None
        return self.last


class Instance(Folder):
    """A running application and its folder; its Gateways listen on `address`."""

    def __init__(self, path: Path, address: str, app: Application, board: Pictures) -> None:
        super().__init__(path)
        self.address, self.app, self.board = address, app, board

    def target(self, port: int = 80) -> Target:
        """Return where a listener's port is bound."""
        return self.address, port + OFFSET if port < 1024 else port

    def pid(self, name: str = "gw", namespace: str = "default") -> int | None:
        """Return the process id of a Gateway's Envoy."""
        assert self.app.fleet is not None
        return self.app.fleet.pid(Key(namespace, name))

    def findings(self, code: str = "") -> list[Finding]:
        """Return the findings whose code begins like this."""
        return [finding for finding in self.app.findings() if finding.code.startswith(code)]

    async def found(self, code: str, *, within: float = 5.0) -> Finding:
        """Wait until a finding of this code is shown, and return the first."""
        await self.board.wait(lambda picture: any(f["code"] == code for f in picture.findings), within=within)
        return self.findings(code)[0]

    async def gone(self, code: str, *, within: float = 5.0) -> None:
        """Wait until no finding of this code is shown."""
        await self.board.wait(lambda picture: all(f["code"] != code for f in picture.findings), within=within)

    async def live(self, *, within: float = 40.0) -> None:
        """Wait until every Gateway's Envoy has its configuration."""
        async with asyncio.timeout(within):
            await self.app.live.wait()


def placed(address: str, *listeners: Document, name: str = "gw", **spec: Any) -> Document:
    """Return a Gateway that asks for a loopback address of its own."""
    addresses = [{"type": "IPAddress", "value": address}]
    return gateway(*(listeners or (listener(),)), name=name, addresses=addresses, **spec)


@contextlib.asynccontextmanager
async def application(
    address: str, *documents: Manifest, mesh: MeshSettings | None = None, live: bool = True, **settings: Any
) -> AsyncIterator[Instance]:
    """Run an application in this process over a folder with one file, `main`, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mgw-") as scratch:
        root = Path(scratch)
        folder = root / "in"
        folder.mkdir()
        board = Pictures()
        options = RunSettings(
            paths=(str(folder),),
            envoy=envoy_path(),
            runtime_dir=root / "run",
            port_offset=OFFSET,
            concurrency=1,
            mesh=mesh,
            metrics_port=None,
            poll=0.02,
            **settings,
        )
        Folder(folder).write("main", *documents)
        app = Application(options, board)
        instance = Instance(folder, address, app, board)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(app.run(stop), name="application")
            try:
                if live:
                    await instance.live()
                yield instance
            finally:
                stop.set()
                _, pending = await asyncio.wait({running}, timeout=20)
                if pending:
                    stacks = "\n".join(str(task.get_stack(limit=1)) + str(task) for task in asyncio.all_tasks())
                    running.cancel()
                    raise AssertionError(f"it did not stop within 20 s\n{stacks}")


class Command(Folder):
    """`meshgw run -o json` in a process of its own; `lines` are what it printed."""

    def __init__(self, path: Path, runtime: Path, address: str, *options: str) -> None:
        super().__init__(path)
        self.runtime, self.address, self.options = runtime, address, options
        self.lines: list[dict[str, Any]] = []
        self.errors = ""
        self.process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._progress = asyncio.Event()

    def target(self, port: int = 80) -> Target:
        """Return where a listener's port is bound."""
        return self.address, port + OFFSET if port < 1024 else port

    async def start(self) -> None:
        """Start it."""
        arguments = ["run", "-f", str(self.path), "-o", "json", "--runtime-dir", str(self.runtime)]
        arguments += ["--envoy", str(envoy_path()), "--port-offset", str(OFFSET), "--concurrency", "1", "--no-metrics"]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "meshgw",
            *arguments,
            *self.options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        loop = asyncio.get_running_loop()
        self._readers = [loop.create_task(self._read_lines()), loop.create_task(self._read_errors())]

    async def live(self, *, within: float = 40.0) -> None:
        """Wait until it shows every Envoy live."""
        await self.wait(
            lambda line: bool(line["gateways"]) and all(g["proxy"] == "live" for g in line["gateways"]), within=within
        )

    async def wait(self, check: Callable[[dict[str, Any]], bool], *, within: float = 10.0) -> dict[str, Any]:
        """Return the last line once it passes."""
        try:
            async with asyncio.timeout(within):
                while not (self.lines and check(self.lines[-1])):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within} s; last: {self.lines[-1:]}; {self.errors[-3000:]}") from None
        return self.lines[-1]

    async def serving(self, *, within: float = 40.0, **options: Any) -> None:
        """Wait until a request to it is answered with 200."""

        async def answered() -> bool:
            with contextlib.suppress(httpcore.NetworkError, httpcore.RemoteProtocolError):
                return (await request(self.target(), within=1.0, **options)).status == 200
            return False

        await eventually(answered, within=within)

    async def end(self, number: signal.Signals = signal.SIGTERM, *, within: float = 40.0) -> int:
        """Signal it, wait until it is gone, and return its exit status."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await self.ended(within=within)

    async def ended(self, *, within: float = 40.0) -> int:
        """Wait until it ends by itself and return its exit status."""
        assert self.process is not None
        async with asyncio.timeout(within):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code

    def envoys(self) -> list[int]:
        """Return the ids of the Envoys that run for it, by their state files."""
        states = [json.loads(path.read_text()) for path in self.runtime.glob("*/state.json")]
        return [state["pid"] for state in states if alive(state["pid"])]

    async def _read_lines(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))
            self._progress.set()

    async def _read_errors(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.errors += line.decode()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@contextlib.asynccontextmanager
async def command(address: str, *documents: Manifest, options: tuple[str, ...] = ()) -> AsyncIterator[Command]:
    """Prepare a folder with one file, `main`, and a command over it that is not started; ends all that was."""
    with tempfile.TemporaryDirectory(prefix="mgw-") as scratch:
        root = Path(scratch)
        folder = root / "in"
        folder.mkdir()
        made = Command(folder, root / "run", address, *options)
        made.write("main", *documents)
        try:
            yield made
        finally:
            if made.process is not None and made.process.returncode is None:
                await made.end(signal.SIGKILL)
            for pid in made.envoys():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
