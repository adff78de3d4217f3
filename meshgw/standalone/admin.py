"""A client of Envoy's admin interface."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any
from urllib.parse import quote

import msgspec

_PARTIAL = re.compile(r"^listener\.admin\.|\.worker_\d+\.|\.main_thread\.")
"""The admin interface's own connections, and counts per thread, which the listener's count includes."""


class Admin:
    """Calls one Envoy's admin interface at `unix:/path` or `127.0.0.1:port`; failures are OSError or TimeoutError."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def call(self, path: str, *, method: str = "GET", within: float = 5.0) -> tuple[int, str]:
        """Return status and body."""
        async with asyncio.timeout(within):
            reader, writer = await self._connect()
            try:
                writer.write(f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
                await writer.drain()
                return _parse(await reader.read())
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def state(self, *, within: float = 2.0) -> str | None:
        """Return the server's state (LIVE, DRAINING, INITIALIZING, ...), None while nobody answers."""
        try:
            _, body = await self.call("/ready", within=within)
        except (OSError, TimeoutError):
            return None
        return body.strip()

    async def active_connections(self) -> int:
        """Return the downstream connections open on all listeners, the admin interface's own left out."""
        pattern = quote(r"^listener\..*\.downstream_cx_active$")
        _, body = await self.call(f"/stats?format=json&filter={pattern}")
        document: dict[str, Any] = msgspec.json.decode(body)
        return sum(
            int(item["value"])
            for item in document.get("stats", ())
            if "value" in item and not _PARTIAL.search(item["name"])
        )

    async def drain(self) -> None:
        """Ask clients to leave with their next response, and accept no new connections."""
        await self.call("/drain_listeners?graceful", method="POST")
        await self.call("/drain_listeners", method="POST")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.address.startswith("unix:"):
            return await asyncio.open_unix_connection(self.address.removeprefix("unix:"))
        host, _, port = self.address.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port))


def _parse(answer: bytes) -> tuple[int, str]:
    """Return status and body of a whole HTTP/1.1 response that ended with the connection."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    fields = head.decode("latin-1").split("\r\n")
    words = fields[0].split(" ", 2)
    if not separator or len(words) < 2 or not words[1].isdigit():
        raise ConnectionError("the admin interface gave no HTTP answer")
    if any(field.lower().replace(" ", "") == "transfer-encoding:chunked" for field in fields[1:]):
        body = _unchunk(body)
    return int(words[1]), body.decode(errors="replace")


def _unchunk(body: bytes) -> bytes:
    parts: list[bytes] = []
    while True:
        size, separator, rest = body.partition(b"\r\n")
        if not separator:
            raise ConnectionError("the admin interface's answer ended early")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            return b"".join(parts)
        parts.append(rest[:length])
        body = rest[length + 2 :]
