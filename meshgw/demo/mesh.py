"""The whole mesh of the demo: a temporary folder, applications, the waypoint of a real instance, node proxies."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from meshgw.config import MeshSettings, RunSettings
from meshgw.demo.backend import Backend
from meshgw.demo.client import greet
from meshgw.demo.nodes import DemoError, NodeProxies
from meshgw.demo.plan import Plan, claim_plan, write_manifests
from meshgw.names import HBONE_PORT
from meshgw.standalone.application import Application
from meshgw.standalone.board import Picture
from meshgw.standalone.envoy import EnvoyBinary
from meshgw.standalone.fleet import ProxyOptions
from meshgw.standalone.runtime import RuntimeDirectory
from meshgw.standalone.supervise import Timing

_LIVE_WITHIN: Final = 30.0
_TIMING: Final = Timing(drain_within=0.5)
"""Nothing is worth waiting for when the demo ends."""

Progress = Callable[[str], None]


class Mesh:
    """A running mesh; `folder` holds the manifests it follows."""

    def __init__(self, plan: Plan, folder: Path, app: Application, nodes: NodeProxies, backends: list[Backend]) -> None:
        self.plan, self.folder, self.app, self.nodes = plan, folder, app, nodes
        self._backends = {backend.workload.name: backend for backend in backends}

    def reached(self, *workloads: str) -> int:
        """Return how many requests have reached these applications."""
        return sum(self._backends[name].requests for name in workloads)

    def renew_certificates(self) -> None:
        """Let everybody obtain a new certificate now."""
        if self.app.identities is not None:
            self.app.identities.renew()
        self.nodes.identities.renew()


class _Watch:
    """A board that nobody sees: it tells when the waypoint serves, or never will."""

    def __init__(self) -> None:
        self.picture = Picture()
        self.moved = asyncio.Event()

    def show(self, picture: Picture) -> None:
        """Take note."""
        self.picture = picture
        self.moved.set()

    def close(self) -> None:
        """Do nothing."""

    @property
    def proxies(self) -> set[str]:
        """The states of the Gateways' proxies."""
        return {line.proxy for line in self.picture.gateways}

    @property
    def complaint(self) -> str:
        """What is wrong, in one line."""
        return "; ".join(f"{found['object']}: {found['message']}" for found in self.picture.findings) or "no findings"

    async def wait_live(self) -> None:
        """Wait until the waypoint serves; raises DemoError."""
        try:
            async with asyncio.timeout(_LIVE_WITHIN):
                while self.proxies != {"live"}:
                    self.moved.clear()
                    if self.proxies & {"failed", "died"}:
                        raise DemoError(f"the waypoint cannot run ({self.complaint})")
                    await self.moved.wait()
        except TimeoutError:
            raise DemoError(f"the waypoint does not serve within {_LIVE_WITHIN:g} s ({self.complaint})") from None


@contextlib.asynccontextmanager
async def ambient_mesh(envoy: EnvoyBinary, progress: Progress) -> AsyncIterator[Mesh]:
    """Run the mesh until the block ends; nothing of it remains, however it ends.

    Raises InUseError, EnvoyError and DemoError with a message for the user.
    """
    async with contextlib.AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshgw-demo-")))
        plan = stack.enter_context(claim_plan())
        folder = root / "manifests"
        folder.mkdir()
        write_manifests(plan, folder)
        backends = [await stack.enter_async_context(Backend(workload)) for workload in plan.workloads]
        progress(f"starting the waypoint at {plan.waypoint}")
        app = await stack.enter_async_context(_waypoint(envoy, folder, root / "waypoint"))
        await _await_certificate(plan)
        progress(f"starting node proxies for {len(plan.clients)} clients and {len(plan.workloads)} workloads")
        nodes = await stack.enter_async_context(_nodes(envoy, plan, app, root / "nodes"))
        yield Mesh(plan, folder, app, nodes, backends)


@contextlib.asynccontextmanager
async def _waypoint(envoy: EnvoyBinary, folder: Path, runtime: Path) -> AsyncIterator[Application]:
    settings = RunSettings(
        paths=(str(folder),),
        envoy=envoy.path,
        runtime_dir=runtime,
        concurrency=1,
        mesh=MeshSettings(),
        metrics_port=None,
    )
    watch = _Watch()
    app = Application(settings, watch)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.run(stop), name="application")
        await watch.wait_live()
        try:
            yield app
        finally:
            stop.set()


@contextlib.asynccontextmanager
async def _nodes(envoy: EnvoyBinary, plan: Plan, app: Application, path: Path) -> AsyncIterator[NodeProxies]:
    if app.identities is None:
        raise DemoError("the application has no mesh certificates")
    runtime = RuntimeDirectory(path)
    nodes = NodeProxies(plan, app.identities.source, runtime)
    async with nodes.run(runtime, ProxyOptions(binary=envoy.path, concurrency=1, timing=_TIMING)):
        yield nodes


async def _await_certificate(plan: Plan) -> None:
    """Wait until the waypoint proves its identity; raises DemoError."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _LIVE_WITHIN
    while True:
        try:
            await greet(plan.waypoint, HBONE_PORT)
        except OSError as error:
            if clock() >= deadline:
                raise DemoError(f"the waypoint has no certificate ({error})") from None
            await asyncio.sleep(0.02)
        else:
            return
