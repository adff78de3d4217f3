"""The way to an API server that a test can cut: a relay on loopback, and a kubeconfig that leads through it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import yaml

from tests.cluster.access import Access
from tests.cluster.pki import write_private
from tests.rig.servers import reset

_CHUNK = 1 << 16


class Link:
    """Relays connections to the API server of `access` until it is `cut`, and again after `mend`."""

    def __init__(self, access: Access, folder: Path) -> None:
        self.kubeconfig = folder / "link.conf"
        """Path of a kubeconfig of the same user, by way of this link."""

        self._access = access
        parts = urlsplit(access.url)
        self._target = parts.hostname or "", parts.port or 443
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            reset(writer)

    async def __aenter__(self) -> Self:
        await self.mend()
        document = yaml.safe_load(self._access.kubeconfig.read_text())
        for row in document["clusters"]:
            row["cluster"]["server"] = f"https://localhost:{self._port}"
        write_private(self.kubeconfig, yaml.safe_dump(document))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, to_upstream = await asyncio.open_connection(*self._target)
        except OSError:
            reset(writer)
            return
        ends = {writer, to_upstream}
        self._open |= ends
        try:
            await asyncio.gather(_copy(reader, to_upstream), _copy(upstream, writer))
        finally:
            self._open -= ends
            for each in ends:
                each.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
