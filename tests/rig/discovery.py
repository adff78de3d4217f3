"""A discovery service that says nothing but who called: gRPC over TLS, with a certificate that can be replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from tests.rig.certs import Leaf
from tests.rig.waiting import eventually

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class Discovery:
    """Answers each first request for a type by nothing at all, which makes a proxy ready, and records each stream.

    `callers` has the authorization header of each stream, in order. A `silent` one answers nothing.
    """

    def __init__(self, leaf: Leaf, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.callers: list[str] = []
        self.nodes: list[str] = []
        self.silent = False
        self.port = port
        self._host, self._leaf = host, leaf
        self._hang_up = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def restart(self, leaf: Leaf) -> None:
        """Serve again, on the same port, with another certificate."""
        await self._stop()
        self._leaf = leaf
        await self._start()

    def hang_up(self) -> None:
        """End the streams, so that proxies open others."""
        self._hang_up.set()
        self._hang_up = asyncio.Event()

    async def next_caller(self, *, within: float = 10.0) -> str:
        """Wait for one more stream than there are now and return its authorization header."""
        known = len(self.callers)
        await eventually(lambda: len(self.callers) > known, what="another stream", within=within)
        return self.callers[-1]

    async def _start(self) -> None:
        self._server = server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=DeltaDiscoveryRequest.FromString,
            response_serializer=DeltaDiscoveryResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {"DeltaAggregatedResources": handler}),)
        )
        credentials = grpc.ssl_server_credentials([(self._leaf.key, self._leaf.chain)])
        self.port = server.add_secure_port(f"{self._host}:{self.port}", credentials)
        await server.start()

    async def _stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=0)
            self._server = None

    async def _serve(
        self,
        requests: AsyncIterator[DeltaDiscoveryRequest],
        context: grpc.aio.ServicerContext[DeltaDiscoveryRequest, DeltaDiscoveryResponse],
    ) -> AsyncIterator[DeltaDiscoveryResponse]:
        metadata = dict(context.invocation_metadata() or ())
        self.callers.append(str(metadata.get("authorization", "")))
        hang_up = asyncio.create_task(self._hang_up.wait())
        answered: set[str] = set()
        try:
            while True:
                request = asyncio.create_task(anext(aiter(requests), None))
                await asyncio.wait((hang_up, request), return_when=asyncio.FIRST_COMPLETED)
                if hang_up.done() or (received := request.result()) is None:
                    request.cancel()
                    return
                if received.node.id:
                    self.nodes.append(received.node.id)
                if received.type_url not in answered and not self.silent:
                    answered.add(received.type_url)
                    yield DeltaDiscoveryResponse(type_url=received.type_url, nonce="1")
        finally:
            hang_up.cancel()
