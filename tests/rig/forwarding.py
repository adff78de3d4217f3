"""A server that forwards ports of pods as the API server and the kubelet do, to programs on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import yaml
from aiohttp import WSMsgType, web

from meshgw.kube.client import Client, KubeSettings, connect
from meshgw.kube.forward import PROTOCOL


class _Closing:
    """Closes a connection and waits until it is."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def aclose(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Node:
    """Forwards to programs on loopback: `ports` are pod ports and where they really are."""

    def __init__(self) -> None:
        self.ports: dict[int, int] = {}
        self.pods: list[str] = []
        self.gone: set[str] = set()
        self.closes = b""
        self.authorized = True
        self.speaks: tuple[str, ...] = (PROTOCOL,)
        self.split = 1 << 16
        self.tokens: list[str] = []

    @contextlib.asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[Client]:
        """Serve until the block ends; gives a client with a token, whose kubeconfig is in the folder."""
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/portforward", self.forward)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods", self.list_pods)
        app.router.add_get("/version", self.version)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            path = folder / "kubeconfig"
            path.write_text(yaml.safe_dump(_kubeconfig(runner.addresses[0][1])))
            async with connect(KubeSettings(kubeconfig=str(path))) as client:
                yield client
        finally:
            await runner.cleanup()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization", ""))
        if not self.authorized:
            return web.json_response({"kind": "Status", "reason": "Forbidden"}, status=403)
        if request.match_info["pod"] in self.gone:
            return web.json_response({"kind": "Status", "reason": "NotFound"}, status=404)
        opened = web.WebSocketResponse(protocols=self.speaks)
        await opened.prepare(request)
        port = int(request.query["ports"])
        for channel in (0, 1):
            await opened.send_bytes(bytes((channel,)) + port.to_bytes(2, "little"))
        if self.closes:
            await opened.send_bytes(b"\1" + self.closes)
            await opened.close()
            return opened
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[port])
        except (OSError, KeyError):
            await opened.send_bytes(b"\1connection refused")
            await opened.close()
            return opened
        async with contextlib.aclosing(_Closing(writer)), asyncio.TaskGroup() as tasks:
            down = tasks.create_task(self._down(reader, opened))
            async for message in opened:
                assert message.type is WSMsgType.BINARY
                assert message.data[0] == 0
                writer.write(message.data[1:])
            down.cancel()
        return opened

    async def _down(self, reader: asyncio.StreamReader, opened: web.WebSocketResponse) -> None:
        while data := await reader.read(self.split):
            with contextlib.suppress(ConnectionError):
                await opened.send_bytes(b"\0" + data)
        await opened.close()

    async def list_pods(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": [{"metadata": {"name": name}} for name in self.pods]})

    async def version(self, _request: web.Request) -> web.Response:
        return web.json_response({"gitVersion": "v1.35.4"}, headers={"Date": formatdate(1_800_000_000, usegmt=True)})


def _kubeconfig(port: int) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "x", "user": {"token": "s3cret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }


@contextlib.asynccontextmanager
async def program(answer: bytes, *, stay: bool = False) -> AsyncIterator[int]:
    """A program that gives one answer to whoever sends a request, and hangs up unless it is to stay."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.aclosing(_Closing(writer)):
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
                if stay:
                    await reader.read()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
