"""A mesh on loopback for waypoint tests: a real Envoy as the waypoint, node proxies in miniature around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from meshgw.emit.bootstrap import Bootstrap, build_bootstrap
from meshgw.emit.resource import Resource
from meshgw.emit.static import emit_static
from meshgw.emit.tables import RESOURCES
from meshgw.engine import Graph
from meshgw.ir.gateway import Settings
from meshgw.ir.keys import ResourceKey
from meshgw.names import HBONE_PORT
from meshgw.xds.cache import Cache
from meshgw.xds.server import AdsServer
from tests.rig.addresses import next_loopback
from tests.rig.certs import Leaf, authority, spiffe
from tests.rig.envoy import RunningEnvoy, run_static
from tests.rig.hbone import HboneClient, HboneServer
from tests.rig.mesh import CLASS, WAYPOINT, feed, gateway, mesh_graph


@dataclass
class Mesh:
    """Documents and node proxies; `run` starts the waypoint."""

    text: str = CLASS + gateway(traffic="all")
    address: str = field(default_factory=next_loopback)
    settings: Settings = field(default_factory=lambda: Settings(mesh=True, loopback_endpoints=True))
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def graph(self) -> Graph:
        """Return the pipeline with the documents in it."""
        return mesh_graph(self.text, bind=self.address, settings=self.settings)

    def add(self, *texts: str) -> None:
        """Add documents."""
        self.text += "".join(texts)

    async def node(
        self, address: str, *, account: str = "app", allow: Callable[[str], bool] = lambda _peer: True, **routes: Any
    ) -> HboneServer:
        """Start the node proxy of a Pod; `routes` are `p<port>=(host, port)`."""
        server = HboneServer(
            spiffe(account),
            authority("mesh").root,
            host=address,
            port=HBONE_PORT,
            routes={f"{address}:{name[1:]}": target for name, target in routes.items()},
            allow=allow,
        )
        return await self._stack.enter_async_context(server)

    @contextlib.asynccontextmanager
    async def run(self, **options: Any) -> AsyncIterator[RunningEnvoy]:
        """Run the waypoint."""
        graph = self.graph()
        resources = [row for _key, row in graph.by(RESOURCES, "gateway", WAYPOINT)]
        async with run_static(emit_static(resources), **options) as envoy:
            yield envoy

    @contextlib.asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[tuple[RunningEnvoy, Callable[[str], None]]]:
        """Run the waypoint by xDS; yields it and what feeds it further documents."""
        graph, group = self.graph(), str(WAYPOINT)
        xds = f"unix:{folder / 'xds.sock'}"
        server = AdsServer(Cache(), authorize=lambda _peer, _node, _metadata: group, listen=xds)

        def publish(rows: Mapping[ResourceKey, Resource | None]) -> None:
            changes = {(key.type_url, key.name): row for key, row in rows.items()}
            server.publish(group, changes, ready=True)

        def push(text: str) -> None:
            changed = feed(graph, text).changed(RESOURCES)
            publish({key: new for key, (_old, new) in changed.items()})

        bootstrap = build_bootstrap(Bootstrap(node_id="waypoint", cluster=group, xds=xds, admin="127.0.0.1:0"))
        running = asyncio.get_running_loop().create_task(server.run(), name="xds")
        try:
            await server.started.wait()
            publish(graph.rows(RESOURCES))
            async with run_static(bootstrap) as envoy:
                yield envoy, push
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def client(self, account: str = "client", namespace: str = "default", *, leaf: Leaf | None = None) -> HboneClient:
        """Return the node proxy of a client with this identity."""
        identity = leaf or spiffe(account, namespace)
        return HboneClient((self.address, HBONE_PORT), ca=authority("mesh").root, identity=identity)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
