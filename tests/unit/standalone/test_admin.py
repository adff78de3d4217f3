"""The client of Envoy's admin interface, against scripted answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshgw.standalone.admin import Admin
from tests.rig.servers import StreamServer


class Scripted(StreamServer):
    """Answers each request with what `answer` makes of its first line."""

    def __init__(self, answer: Callable[[str], bytes]) -> None:
        super().__init__()
        self.answer = answer
        self.lines: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n")[0].decode()
        self.lines.append(line)
        writer.write(self.answer(line))
        await writer.drain()


@asynccontextmanager
async def scripted(answer: bytes | Callable[[str], bytes]) -> AsyncIterator[tuple[Admin, Scripted]]:
    async with Scripted(answer if callable(answer) else lambda _line: answer) as server:
        yield Admin(f"{server.host}:{server.port}"), server


def body(text: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()


async def test_chunked_answers_are_joined() -> None:
    answer = b"HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nINITI\r\n6;x=1\r\nALIZIN\r\n0\r\n\r\n"
    async with scripted(answer) as (admin, _):
        assert await admin.call("/ready") == (503, "INITIALIZIN")


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5"]
)
async def test_broken_answers_are_connection_errors(answer: bytes) -> None:
    async with scripted(answer) as (admin, _):
        with pytest.raises(ConnectionError):
            await admin.call("/x")


async def test_state_is_the_text_of_ready() -> None:
    async with scripted(body("LIVE\n")) as (admin, server):
        assert await admin.state() == "LIVE"
        assert server.lines == ["GET /ready HTTP/1.1"]


async def test_nobody_there_is_no_state(tmp_path: Path) -> None:
    assert await Admin(f"unix:{tmp_path}/none.sock").state() is None


async def test_active_connections_leave_the_admin_interface_out() -> None:
    stats = (
        '{"stats":[{"name":"listener.127.0.0.1_80.downstream_cx_active","value":3},'
        '{"name":"listener.127.0.0.1_80.worker_0.downstream_cx_active","value":3},'
        '{"name":"listener.admin.downstream_cx_active","value":1},'
        '{"name":"listener.127.0.0.2_80.downstream_cx_active","value":2},{"histograms":{}}]}'
    )
    async with scripted(body(stats)) as (admin, _):
        assert await admin.active_connections() == 5


async def test_drain_is_graceful_first_then_closes_the_door() -> None:
    async with scripted(body("OK\n")) as (admin, server):
        await admin.drain()
    assert server.lines == ["POST /drain_listeners?graceful HTTP/1.1", "POST /drain_listeners HTTP/1.1"]
