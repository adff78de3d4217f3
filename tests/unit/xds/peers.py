"""A server in this process, and ADS clients that do only what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from meshgw.xds.cache import Cache
from meshgw.xds.server import SERVICE, AdsServer
from tests.unit.xds.playbook import authorize_all

DEADLINE = 20.0
NAME = "meshgw.meshgw-system.svc"
"""What the server's certificate says it is."""


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def pushed(self, group: str, type_url: str, size: int, resources: int) -> None:
        self.told.append(("pushed", group, type_url, size > 0, resources))

    def acked(self, group: str, type_url: str, seconds: float) -> None:
        self.told.append(("acked", group, type_url, seconds))

    def nacked(self, group: str, type_url: str) -> None:
        self.told.append(("nacked", group, type_url))

    def connected(self, proxies: int) -> None:
        self.told.append(("connected", proxies))

    def refused(self, code: str) -> None:
        self.told.append(("refused", code))


class Proxy:
    """An ADS client that does only what it is told."""

    def __init__(self, channel: grpc.aio.Channel, *, delta: bool = True, metadata: Any = ()) -> None:
        self.response_type = discovery_pb2.DeltaDiscoveryResponse if delta else discovery_pb2.DiscoveryResponse
        self.request_type = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest
        method = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
        self.call: Any = channel.stream_stream(f"/{SERVICE}/{method}")(metadata=metadata)

    async def send(self, request: Any) -> None:
        await self.call.write(request.SerializeToString())

    async def receive(self) -> Any:
        async with asyncio.timeout(DEADLINE):
            data = await self.call.read()
        assert data is not grpc.aio.EOF, await self.call.code()
        return self.response_type.FromString(data)

    async def ask(self, request: Any) -> Any:
        await self.send(request)
        return await self.receive()

    async def answer(self, response: Any, *, error: str = "") -> None:
        request = self.request_type(type_url=response.type_url, response_nonce=response.nonce)
        if error:
            request.error_detail.message = error
        await self.send(request)

    async def ending(self) -> tuple[grpc.StatusCode, str]:
        """How the server ended the stream."""
        async with asyncio.timeout(DEADLINE):
            return await self.call.code(), await self.call.details()


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[AdsServer]:
    server = AdsServer(options.pop("cache", None) or Cache(), **{"authorize": authorize_all, **options})
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.run())
        await server.started.wait()
        try:
            yield server
        finally:
            task.cancel()


@asynccontextmanager
async def connected(
    server: AdsServer, *, delta: bool = True, options: Any = (), roots: bytes | None = None, metadata: Any = ()
) -> AsyncIterator[Proxy]:
    """A proxy with a connection of its own, by TLS if it trusts `roots`."""
    async with open_channel(server.address, roots, options) as channel:
        proxy = Proxy(channel, delta=delta, metadata=metadata)
        try:
            yield proxy
        finally:
            proxy.call.cancel()


def open_channel(address: str, roots: bytes | None = None, options: Any = ()) -> grpc.aio.Channel:
    """A channel that shares its connection with no other."""
    options = [*options, ("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", NAME)]
    if roots is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots), options=options)


async def until(condition: Any) -> None:
    """Wait, within the deadline, for something no event tells of."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what gRPC does on its own sets no event of ours
            await asyncio.sleep(0.005)


def names(response: Any) -> list[str]:
    return [resource.name for resource in response.resources]
