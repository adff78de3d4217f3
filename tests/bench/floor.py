"""The bare floor: the least that can feed an Envoy. A process of its own that writes ready-made bytes on command.

It computes nothing between a command and the write. Speaks length-prefixed MessagePack on stdin and stdout.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
from envoy.service.discovery.v3 import discovery_pb2

from meshgw.emit.resource import Resource
from meshgw.xds.server import SERVICE
from meshgw.xds.wire import delta_response, encode

_LENGTH = struct.Struct("<I")


class Hold(msgspec.Struct, frozen=True, tag=True):
    """Have these resources: answer subscriptions with them."""

    resources: tuple[Resource, ...]


class Stage(msgspec.Struct, frozen=True, tag=True):
    """Make one resource's response ready."""

    resource: Resource


class Go(msgspec.Struct, frozen=True, tag=True):
    """Write what is staged."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The command is done."""


class Written(msgspec.Struct, frozen=True, tag=True):
    """When the write began and when it was acknowledged (CLOCK_MONOTONIC, nanoseconds)."""

    at: int
    acked: int


Command = Hold | Stage | Go
Report = Ready | Written


def pack(message: Command | Report) -> bytes:
    """Return a message as a frame."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader, kind: Any) -> Any:
    """Return the next message."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return msgspec.msgpack.decode(await reader.readexactly(length), type=kind)


class Floor:
    """One stream, no state but what was staged."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Resource]] = {}
        self._context: Any = None
        self._staged = b""
        self._nonce = 0
        self._acked: asyncio.Future[int] | None = None

    async def stream(self, _requests: object, context: Any) -> None:
        """Answer what is asked for from what is held, and note acknowledgements of what was pushed."""
        self._context = context
        while (data := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            now = time.perf_counter_ns()
            request = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
            if request.HasField("error_detail"):
                raise RuntimeError(request.error_detail.message)
            pushed = request.response_nonce == f"push-{self._nonce}"
            if pushed and self._acked is not None and not self._acked.done():
                self._acked.set_result(now)
            held = self._held.get(request.type_url, {})
            names: Any = request.resource_names_subscribe
            if not request.response_nonce and not names:
                names = held
            found = [held[name] for name in names if name in held]
            if found or (names is held and not request.response_nonce):
                await context.write(_response(request.type_url, "held", found))

    def hold(self, command: Hold) -> None:
        """Hold resources."""
        for resource in command.resources:
            self._held.setdefault(resource.type_url, {})[resource.name] = resource

    def stage(self, command: Stage) -> None:
        """Encode a push."""
        self.hold(Hold((command.resource,)))
        self._nonce += 1
        self._staged = _response(command.resource.type_url, f"push-{self._nonce}", [command.resource])

    async def push(self) -> Written:
        """Write it and wait for the acknowledgement."""
        self._acked = asyncio.get_running_loop().create_future()
        at = time.perf_counter_ns()
        await self._context.write(self._staged)
        return Written(at, await self._acked)


def _response(type_url: str, nonce: str, resources: list[Resource]) -> bytes:
    return delta_response(type_url=type_url, version=nonce, nonce=nonce, entries=map(encode, resources))


def _credentials(folder: Path) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([((folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes())])


async def main() -> None:
    """Serve on the address given as argument until stdin ends.

    That is a unix socket; or `host:port`, with the folder of `tls.crt` and `tls.key` as second argument.
    """
    floor = Floor()
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    handlers = {"DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(floor.stream)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    match sys.argv[1:]:
        case [path]:
            server.add_insecure_port(f"unix:{path}")
        case [address, folder]:
            server.add_secure_port(address, _credentials(Path(folder)))
    await server.start()
    reader = asyncio.StreamReader(limit=2**28)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while True:
            command = await receive(reader, Command)
            report: Report = Ready()
            match command:
                case Hold():
                    floor.hold(command)
                case Stage():
                    floor.stage(command)
                case Go():
                    report = await floor.push()
            sys.stdout.buffer.write(pack(report))
            sys.stdout.buffer.flush()
    except asyncio.IncompleteReadError:
        await server.stop(grace=None)


if __name__ == "__main__":
    asyncio.run(main())
