"""The applications of the demo: HTTP servers that say which version they are."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from meshgw.demo.plan import APP_PORT, Workload
from meshgw.standalone.lock import InUseError

_LONGEST_HEAD = 65_536


class Backend:
    """One application; `requests` counts what reached it."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        """Listen; raises InUseError when the address is taken."""
        try:
            self._server = await asyncio.start_server(self._serve, self.workload.address, APP_PORT, limit=_LONGEST_HEAD)
        except OSError as error:
            raise InUseError(f"{self.workload.authority} cannot be listened on: {error.strerror or error}") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.transport.abort()
            await asyncio.gather(*self._open.values())
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this as one
        self._open[writer] = task
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the peer left in the middle of a request, or sent none
        finally:
            del self._open[writer]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; returns whether the connection stays."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        await reader.readexactly(int(fields.get("content-length", "0")))
        self.requests += 1
        body = f"{self.workload.name} answers {lines[0].rpartition(' ')[0]}\n".encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
            + f"x-workload: {self.workload.name}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + (b"" if lines[0].startswith("HEAD ") else body)
        )
        await writer.drain()
        return fields.get("connection", "").lower() != "close"
