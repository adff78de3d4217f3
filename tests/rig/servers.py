"""The base of the rig's stream servers: start, count connections, stop without leaving a task or socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from types import TracebackType
from typing import Self

from tests.rig.tls import ServerTls, TlsInfo, describe


class StreamServer:
    """A loopback TCP (or TLS) server; subclasses say what to do with a connection in `serve`."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, tls: ServerTls | None = None) -> None:
        self.host, self.port, self.tls = host, port, tls
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._names: dict[ssl.SSLObject, str | None] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.host, self.port

    async def start(self) -> Self:
        """Bind and listen; `port` is known afterwards."""
        context = self.tls.context() if self.tls else None
        if context is not None:
            context.sni_callback = self._remember_name
        self._server = await asyncio.start_server(self._accept, self.host, self.port, ssl=context, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Close the listener and every connection, and wait for their tasks."""
        if self._server is None:
            return
        self._server.close()
        self.drop_connections()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def drop_connections(self) -> None:
        """Abort all open connections and keep listening."""
        for writer in list(self._open):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection; returning closes it."""
        raise NotImplementedError

    def tls_info(self, writer: asyncio.StreamWriter) -> TlsInfo | None:
        """Return the handshake's facts, None on plain TCP."""
        tls = writer.get_extra_info("ssl_object")
        return describe(tls, self._names.get(tls)) if tls is not None else None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _remember_name(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self._names[tls] = name

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._open.add(writer)
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, TimeoutError):
                await self.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._open.discard(writer)
            self._tasks.discard(task)
            self._names.pop(writer.get_extra_info("ssl_object"), None)
            writer.close()
            # a cancelled connection task must end quietly: asyncio's own callback asks it for its exception
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP RST instead of a FIN."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
