"""What tests of a waypoint have in common: two services behind one, and who calls them."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator

from tests.envoy.waypoint_mesh import Mesh
from tests.rig.addresses import next_loopback
from tests.rig.backends import Backends, EchoBackend, TcpBackend
from tests.rig.clients import Response
from tests.rig.hbone import HboneClient, HboneServer, Tunnel, TunnelRefusedError
from tests.rig.http2 import StreamResetError
from tests.rig.mesh import endpoints, pod, service

ECHO, DB = "10.96.0.1:80", "10.96.0.2:3306"
BEHIND = "{istio.io/use-waypoint: waypoint}"
REFUSED = (ConnectionError, ssl.SSLError, StreamResetError)


class World:
    """An HTTP service `echo` and a TCP service `db` whose server speaks first, both on the Pod `app`."""

    def __init__(self, mesh: Mesh, echo: EchoBackend, db: TcpBackend, node: HboneServer, address: str) -> None:
        self.mesh, self.echo, self.db, self.node, self.address = mesh, echo, db, node, address

    async def get(
        self, account: str = "client", path: str = "/", *, namespace: str = "default", **options: object
    ) -> int:
        """Return the status that a client gets from `echo`."""
        async with self.mesh.client(account, namespace) as client:
            response: Response = await client.request(ECHO, path, **options)  # type: ignore[arg-type]
            return response.status

    async def connect(self, authority: str, account: str = "client", *, namespace: str = "default") -> int:
        """Return the status of a CONNECT."""
        async with self.mesh.client(account, namespace) as client:
            return await connect(client, authority)


async def connect(client: HboneClient, authority: str) -> int:
    try:
        tunnel = await client.connect(authority)
    except TunnelRefusedError as refusal:
        return refusal.status
    await tunnel.close()
    return 200


async def greeting(tunnel: Tunnel) -> bytes:
    return await tunnel.read_exactly(6)


@contextlib.asynccontextmanager
async def open_world(backends: Backends) -> AsyncIterator[World]:
    """Yield a mesh with the services, and a waypoint to run for them."""
    async with Mesh() as mesh:
        echo, db, address = await backends.echo("v1"), await backends.tcp("hello"), next_loopback()
        node = await mesh.node(address, p8080=echo.address, p3306=db.address)
        mesh.add(
            service("echo", "10.96.0.1", "[{name: http, port: 80}]"),
            endpoints("echo", {"http": 8080}, address),
            service("db", "10.96.0.2", "[{name: tcp, port: 3306}]"),
            endpoints("db", {"tcp": 3306}, address),
            pod("app", address, labels=BEHIND),
        )
        yield World(mesh, echo, db, node, address)


def allow(rules: str) -> str:
    return f"rules: [{rules}]"


def deny(rules: str) -> str:
    return f"action: DENY\n  rules: [{rules}]"
