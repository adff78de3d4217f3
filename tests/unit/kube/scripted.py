"""An API server that says what it is told to, byte by byte: for what a real one cannot be made to say."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from meshgw.kube.client import Client, KubeSettings, connect

CUT = object()
"""In an answer: the connection breaks here."""
HANG = object()
"""In an answer: nothing more comes."""


class Script:
    """Answers by what a request line has in it, each once and in order; what was asked is in `requests`."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.end = asyncio.Event()
        self._answers: list[tuple[str, int, tuple[Any, ...], str]] = []

    def on(self, part: str, *pieces: Any, status: int = 200, header: str = "") -> None:
        """Answer the next request with that in it by these pieces; documents become lines of JSON."""
        self._answers.append((part, status, pieces, header))

    def _take(self, line: str) -> tuple[int, tuple[Any, ...], str]:
        for number, (part, status, pieces, header) in enumerate(self._answers):
            if part in line:
                del self._answers[number]
                return status, pieces, header
        return 200, (HANG,), ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *rest = head.decode().strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
                await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append(first.removesuffix(" HTTP/1.1"))
                self.headers.append(headers)
                status, pieces, header = self._take(first)
                writer.write(f"HTTP/1.1 {status} X\r\n{header}Transfer-Encoding: chunked\r\n\r\n".encode())
                for piece in pieces:
                    if piece is HANG:
                        await self.end.wait()
                        return
                    if piece is CUT:
                        return
                    data = piece if isinstance(piece, bytes) else json.dumps(piece).encode() + b"\n"
                    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def scripted(folder: Path, *, token: str = "") -> AsyncIterator[tuple[Script, Client]]:
    """Give a script, and a client of the server that follows it."""
    script = Script()
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        await script.handle(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    path = folder / "scripted.conf"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": token} if token else {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    async with connect(KubeSettings(kubeconfig=str(path)), environ={}) as client:
        yield script, client
        script.end.set()
    server.close()
    await asyncio.gather(*handlers)


def config_map(name: str, version: int, *, uid: str = "", value: str = "") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mesh": value or str(version)}}


def event(kind: str, document: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": document}


def bookmark(version: int, *, end: bool = False) -> dict[str, Any]:
    annotations = {"k8s.io/initial-events-end": "true"} if end else {}
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version), "annotations": annotations}})


def failure(code: int, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
