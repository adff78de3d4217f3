"""`meshgw controller` as a process of the test: real settings by its flags, its log at hand when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpcore

from tests.cluster.access import Access
from tests.rig.addresses import free_ports
from tests.rig.waiting import eventually

GATEWAY_API: Final = "gateway.networking.k8s.io/v1"
CLASSES = {"meshgw": "ingress", "meshgw-waypoint": "waypoint"}


class Controller:
    """One replica. `host` is where proxies and tests reach it; `name` tells this installation from others.

    `program` is what starts `meshgw`, as it stands here if not given.
    """

    def __init__(
        self,
        access: Access,
        folder: Path,
        name: str,
        *,
        host: str = "127.0.0.1",
        program: Sequence[str] = (sys.executable, "-m", "meshgw"),
    ) -> None:
        self.access, self.folder, self.name, self.host, self.program = access, folder, name, host, program
        self.xds, self.health, self.metrics = free_ports(3)
        self.log_path = folder / f"{name}.log"
        self.process: asyncio.subprocess.Process | None = None

    @property
    def controller_name(self) -> str:
        """That of the GatewayClasses of this installation."""
        return f"meshgw.dev/{self.name}"

    def prepare(self) -> None:
        """Make the namespace and the classes of this installation."""
        self.access.create_namespace(self.name)
        for class_, role in CLASSES.items():
            self.access.apply(
                {
                    "apiVersion": GATEWAY_API,
                    "kind": "GatewayClass",
                    "metadata": {"name": self.class_(class_), "labels": {"meshgw.dev/role": role}},
                    "spec": {"controllerName": self.controller_name},
                }
            )

    def class_(self, name: str = "meshgw") -> str:
        """Return the name of a class of this installation."""
        return f"{self.name}-{name}"

    async def start(self, *options: str) -> None:
        """Start it."""
        arguments = {
            "--kubeconfig": str(self.access.kubeconfig),
            "--home": self.name,
            "--controller-name": self.controller_name,
            "--xds-listen": f"{self.host}:{self.xds}",
            "--xds-address": f"{self.host}:{self.xds}",
            "--health-listen": f"127.0.0.1:{self.health}",
            "--proxies-listen": "127.0.0.1:0",
            "--metrics-listen": f"127.0.0.1:{self.metrics}",
            "--shutdown-delay": "0",
            "--log-format": "json",
        }
        flat = [text for pair in arguments.items() for text in pair]
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.program,
                "controller",
                *flat,
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self, *, within: float = 60.0) -> None:
        """Wait until it serves."""
        try:
            await eventually(self._is_ready, what="the controller is ready", within=within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-6000:]}") from None

    async def end(self, number: signal.Signals = signal.SIGTERM, *, within: float = 20.0) -> int:
        """Signal it, wait until it is gone, and return its exit status."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(within):
            return await self.process.wait()

    def log(self) -> str:
        """Return what it logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    async def ask(self, path: str, port: int) -> tuple[int, str]:
        """Return status and body of a request to its health or metrics port."""
        async with httpcore.AsyncConnectionPool() as pool:
            answer = await pool.request("GET", f"http://127.0.0.1:{port}{path}")
            return answer.status, answer.content.decode()

    async def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.returncode is not None:
            raise RuntimeError(f"it ended with {self.process.returncode}:\n{self.log()[-6000:]}")
        try:
            status, text = await self.ask("/readyz", self.health)
        except httpcore.NetworkError:
            return False
        assert status == 200, text
        return True


@contextlib.asynccontextmanager
async def run_controller(
    access: Access, folder: Path, name: str, *options: str, host: str = "127.0.0.1"
) -> AsyncIterator[Controller]:
    """Run a replica of an installation of its own until the block ends; yields once it serves."""
    controller = Controller(access, folder, name, host=host)
    await asyncio.to_thread(controller.prepare)
    await controller.start(*options)
    try:
        await controller.ready()
        yield controller
    finally:
        if controller.process is not None and controller.process.returncode is None:
            assert await controller.end() == 0, controller.log()[-6000:]


def condition(document: Mapping[str, Any], type_: str) -> tuple[str, str, str]:
    """Return status, reason and message of a condition of an object, empty if it is not there."""
    for found in document.get("status", {}).get("conditions", ()):
        if found["type"] == type_:
            return found["status"], found["reason"], found["message"]
    return "", "", ""
