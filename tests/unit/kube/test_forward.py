"""One request to a port of a pod, through a server that forwards as the API server and the kubelet do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path

import pytest
import yaml
from aiohttp import WSMsgType, web

from meshgw.api.meta import Key
from meshgw.kube.client import ApiError, Client, KubeSettings, UnreachableError, connect
from meshgw.kube.forward import PROTOCOL, get_from_pod, parse_answer

POD = Key("shop", "edge-0")
PATH = "/api/v1/namespaces/shop/pods/edge-0/portforward"


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
        self.authorized = True
        self.speaks: tuple[str, ...] = (PROTOCOL,)
        self.split = 1 << 16
        self.tokens: list[str] = []

    async def forward(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization", ""))
        if not self.authorized:
            return web.json_response({"kind": "Status", "reason": "Forbidden"}, status=403)
        opened = web.WebSocketResponse(protocols=self.speaks)
        await opened.prepare(request)
        port = int(request.query["ports"])
        for channel in (0, 1):
            await opened.send_bytes(bytes((channel,)) + port.to_bytes(2, "little"))
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

    async def version(self, _request: web.Request) -> web.Response:
        return web.json_response({"gitVersion": "v1.35.4"}, headers={"Date": formatdate(1_800_000_000, usegmt=True)})


@pytest.fixture
async def node() -> AsyncIterator[tuple[Node, int]]:
    made = Node()
    app = web.Application()
    app.router.add_get(PATH, made.forward)
    app.router.add_get("/version", made.version)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield made, runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def client(node: tuple[Node, int], tmp_path: Path) -> AsyncIterator[Client]:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{node[1]}"}}],
        "users": [{"name": "x", "user": {"token": "s3cret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    async with connect(KubeSettings(kubeconfig=str(path))) as made:
        yield made


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


def chunked(*parts: bytes) -> bytes:
    body = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


@pytest.mark.parametrize("split", [1, 7, 1 << 16])
@pytest.mark.parametrize("stay", [False, True])
@pytest.mark.parametrize(
    "form",
    [
        lambda body: chunked(body, b"!"),
        lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body + b"!",
    ],
    ids=["chunked", "length"],
)
async def test_a_whole_answer_comes_back_however_it_is_cut(
    node: tuple[Node, int], client: Client, split: int, *, stay: bool, form: Callable[[bytes], bytes]
) -> None:
    body = b"line\r\n\r\n0\r\n\r\n" * 20
    node[0].split = split
    async with program(form(body), stay=stay) as port:
        node[0].ports[19000] = port
        assert await get_from_pod(client, POD, 19000, "/config_dump", within=5.0) == (200, body + b"!")
    assert node[0].tokens == ["Bearer s3cret"]


async def test_an_answer_may_end_with_the_connection(node: tuple[Node, int], client: Client) -> None:
    async with program(b"HTTP/1.1 503 Busy\r\n\r\nlater") as port:
        node[0].ports[19000] = port
        assert await get_from_pod(client, POD, 19000, "/") == (503, b"later")


async def test_a_port_that_nobody_has_says_so(client: Client) -> None:
    with pytest.raises(UnreachableError, match="connection refused"):
        await get_from_pod(client, POD, 19000, "/")


async def test_an_answer_that_is_cut_is_no_answer(node: tuple[Node, int], client: Client) -> None:
    async with program(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") as port:
        node[0].ports[19000] = port
        with pytest.raises(UnreachableError, match="ended within"):
            await get_from_pod(client, POD, 19000, "/")


async def test_silence_is_bounded(node: tuple[Node, int], client: Client) -> None:
    async with program(b"", stay=True) as port:
        node[0].ports[19000] = port
        with pytest.raises(UnreachableError, match="no answer within"):
            await get_from_pod(client, POD, 19000, "/", within=0.2)


async def test_a_refusal_is_the_api_servers(node: tuple[Node, int], client: Client) -> None:
    node[0].authorized = False
    with pytest.raises(ApiError) as raised:
        await get_from_pod(client, POD, 19000, "/")
    assert raised.value.status == 403
    assert "s3cret" not in str(raised.value)


async def test_a_server_of_another_protocol_is_left(node: tuple[Node, int], client: Client) -> None:
    node[0].speaks = ("else",)
    with pytest.raises(UnreachableError, match="does not speak"):
        await get_from_pod(client, POD, 19000, "/")


async def test_the_servers_clock_is_in_its_answers(client: Client) -> None:
    assert (await client.date()).timestamp() == 1_800_000_000


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200", b"junk\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nopen"])
def test_what_is_not_whole_is_not_parsed(data: bytes) -> None:
    assert parse_answer(data) is None
