"""Echo backends of every protocol on loopback; each is an async context manager with `host`, `port` and `address`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from tests.rig.http_echo import Echo, EchoBackend
from tests.rig.servers import StreamServer
from tests.rig.tls import ServerTls, TlsInfo

__all__ = ["Backends", "Echo", "EchoBackend", "GrpcBackend", "TcpBackend", "UdpBackend"]


class TcpBackend(StreamServer):
    """A TCP (or TLS) server that speaks first (`banner`, then a newline) unless `banner` is empty, then echoes."""

    def __init__(
        self, banner: str = "", *, host: str = "127.0.0.1", port: int = 0, tls: ServerTls | None = None
    ) -> None:
        super().__init__(host=host, port=port, tls=tls)
        self.banner = banner
        self.received: list[bytes] = []
        self.handshakes: list[TlsInfo] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greet, then echo until the peer is done."""
        if info := self.tls_info(writer):
            self.handshakes.append(info)
        if self.banner:
            writer.write(f"{self.banner}\n".encode())
            await writer.drain()
        while data := await reader.read(65536):
            self.received.append(data)
            writer.write(data)
            await writer.drain()


class UdpBackend(asyncio.DatagramProtocol):
    """A UDP server that answers each datagram with `name: ` and the datagram."""

    def __init__(self, name: str = "udp", *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.name, self.host, self.port = name, host, port
        self.received: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._lost = asyncio.Event()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.host, self.port

    async def start(self) -> Self:
        """Bind."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, self.port))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def stop(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()
            await self._lost.wait()
            self._transport = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one datagram."""
        self.received.append(data)
        assert self._transport is not None
        self._transport.sendto(f"{self.name}: ".encode() + data, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let `stop` go on."""
        self._lost.set()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class GrpcBackend(grpc.GenericRpcHandler):
    """A gRPC server that takes any method and echoes.

    Each request message is answered by one message of JSON: `pod`, `method`, `metadata`, `message`. Request metadata
    steers it: `x-echo-status: N` fails with that code, `x-echo-delay: S` waits, `x-echo-fail: N` with `x-echo-id`
    fails the first N calls with UNAVAILABLE.
    """

    def __init__(
        self, name: str = "grpc", *, host: str = "127.0.0.1", port: int = 0, tls: ServerTls | None = None
    ) -> None:
        self.name, self.host, self.port, self.tls = name, host, port, tls
        self.calls: list[tuple[str, dict[str, str]]] = []
        self._failures: dict[str, int] = {}
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.host, self.port

    async def start(self) -> Self:
        """Bind and serve."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        target = f"{self.host}:{self.port}"
        if self.tls is None:
            self.port = self._server.add_insecure_port(target)
        else:
            identity = self.tls.identity
            credentials = grpc.ssl_server_credentials(
                [(identity.key, identity.chain)], self.tls.client_ca, self.tls.client_ca is not None
            )
            self.port = self._server.add_secure_port(target, credentials)
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Stop at once."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler for any method."""
        method = str(handler_call_details.method)

        async def call(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            metadata = {key: str(value) for key, value in context.invocation_metadata()}
            self.calls.append((method, metadata))
            await self._obey(metadata, context)
            async for message in messages:
                echo = {"pod": self.name, "method": method, "metadata": metadata, "message": message.decode("latin-1")}
                yield json.dumps(echo).encode()

        return grpc.stream_stream_rpc_method_handler(call)

    async def _obey(self, metadata: dict[str, str], context: Any) -> None:
        if delay := float(metadata.get("x-echo-delay", 0)):
            await asyncio.sleep(delay)
        if "x-echo-status" in metadata:
            code = next(c for c in grpc.StatusCode if c.value[0] == int(metadata["x-echo-status"]))
            await context.abort(code, f"asked for {code.name}")
        if "x-echo-fail" not in metadata:
            return
        key = metadata.get("x-echo-id", "")
        self._failures[key] = self._failures.get(key, 0) + 1
        if self._failures[key] <= int(metadata["x-echo-fail"]):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class Backends:
    """Starts backends for one test and stops them all when it leaves."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def echo(
        self, name: str = "echo", *, host: str = "127.0.0.1", port: int = 0, tls: ServerTls | None = None
    ) -> EchoBackend:
        """Return a started HTTP, h2c and WebSocket echo backend."""
        return await self._stack.enter_async_context(EchoBackend(name, host=host, port=port, tls=tls))

    async def tcp(
        self, banner: str = "", *, host: str = "127.0.0.1", port: int = 0, tls: ServerTls | None = None
    ) -> TcpBackend:
        """Return a started TCP or TLS echo backend."""
        return await self._stack.enter_async_context(TcpBackend(banner, host=host, port=port, tls=tls))

    async def udp(self, name: str = "udp", *, host: str = "127.0.0.1", port: int = 0) -> UdpBackend:
        """Return a started UDP echo backend."""
        return await self._stack.enter_async_context(UdpBackend(name, host=host, port=port))

    async def grpc(
        self, name: str = "grpc", *, host: str = "127.0.0.1", port: int = 0, tls: ServerTls | None = None
    ) -> GrpcBackend:
        """Return a started gRPC echo backend."""
        return await self._stack.enter_async_context(GrpcBackend(name, host=host, port=port, tls=tls))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
