"""An HTTP echo backend: HTTP/1.1, h2c, HTTP/2 over TLS and WebSocket on one port.

It answers with JSON (see `Echo`). The request steers it: a path with `/status/NNN`, and query parameters `status=`,
`delay=` (seconds before the answer), `size=` (bytes of padding), `fail=N&id=X` (the first N requests with this id get
`code=`, default 503, or a reset when `code=reset`), `reset=1`; the header `X-Echo-Set-Header: a:1, b:2` adds response
headers.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
import msgspec
from websockets.frames import Opcode
from websockets.http11 import Request as WebSocketRequest
from websockets.server import ServerProtocol

from tests.rig.http2 import Http2Connection, Http2Stream
from tests.rig.servers import StreamServer, reset
from tests.rig.tls import ServerTls, TlsInfo

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STATUS = re.compile(r"/status/(\d{3})(?=/|$)")


class Echo(msgspec.Struct, frozen=True):
    """What a backend saw of one request; header names are lower case, values in order."""

    pod: str
    namespace: str
    method: str
    path: str
    host: str
    proto: str
    headers: dict[str, list[str]]
    body: str = ""
    tls: TlsInfo | None = None
    connection: int = 0

    def header(self, name: str) -> str | None:
        """Return the values of `name` joined by commas, None when absent."""
        values = self.headers.get(name.lower())
        return None if values is None else ",".join(values)


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class EchoBackend(StreamServer):
    """One echo pod; `hits` records every HTTP request it received, mirrors included."""

    def __init__(
        self,
        name: str = "echo",
        *,
        namespace: str = "default",
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ServerTls | None = None,
    ) -> None:
        super().__init__(host=host, port=port, tls=tls)
        self.name, self.namespace = name, namespace
        self.hits: list[Echo] = []
        self._failures: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def count(self, path: str | None = None) -> int:
        """Return how many requests arrived, of those whose path (with query) starts with `path`."""
        return sum(1 for hit in self.hits if path is None or hit.path.startswith(path))

    async def wait_hits(
        self, number: int = 1, match: Callable[[Echo], bool] = lambda _hit: True, *, within: float = 5.0
    ) -> list[Echo]:
        """Return the matching requests as soon as there are `number`; TimeoutError otherwise."""
        async with asyncio.timeout(within):
            while len(found := [hit for hit in self.hits if match(hit)]) < number:
                self._changed.clear()
                await self._changed.wait()
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Find out the protocol and speak it."""
        head = await _read_head(reader)
        connection = self.connections
        if head.startswith(PREFACE[:18]):
            link = Http2Connection(reader, writer, on_stream=lambda s: self._http2(s, link, connection))
            await link.start()
            await link.run(head)
        else:
            await self._http1(reader, writer, head, connection)

    async def _http1(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, connection: int
    ) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
        http.receive_data(head)
        while (request := await _next_http1(http, reader, writer)) is not None:
            event, body = request
            if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in event.headers):
                await self._websocket(reader, writer, _head_of(event) + http.trailing_data[0], connection)
                return
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
            host = next((value for name, value in headers if name == "host"), "")
            echo = self._record(
                method=event.method.decode(),
                path=event.target.decode("latin-1"),
                host=host,
                proto=f"HTTP/{event.http_version.decode()}",
                headers=headers,
                body=body,
                tls=self.tls_info(writer),
                connection=connection,
            )
            answer = await self._answer(echo)
            if answer is None:
                reset(writer)
                return
            head_only = event.method == b"HEAD" or answer.status in (204, 304)
            payload = b"" if head_only else answer.body
            writer.write(
                http.send(h11.Response(status_code=answer.status, headers=answer.headers, reason=b"Echo"))
                + (http.send(h11.Data(data=payload)) or b"")
                + (http.send(h11.EndOfMessage()) or b"")
            )
            await writer.drain()
            if http.our_state is not h11.DONE:
                return
            http.start_next_cycle()

    async def _http2(self, stream: Http2Stream, link: Http2Connection, connection: int) -> None:
        fields = await stream.headers
        pseudo = {name: value for name, value in fields if name.startswith(":")}
        headers = [(name, value) for name, value in fields if not name.startswith(":")]
        body = await stream.read_all()
        host = pseudo.get(":authority") or next((value for name, value in headers if name == "host"), "")
        echo = self._record(
            method=pseudo[":method"],
            path=pseudo.get(":path", ""),
            host=host,
            proto="HTTP/2",
            headers=headers,
            body=body,
            tls=self.tls_info(link.writer),
            connection=connection,
        )
        answer = await self._answer(echo)
        if answer is None:
            await stream.reset()
            return
        await stream.send_headers([(":status", str(answer.status)), *answer.headers])
        await stream.write(b"" if pseudo[":method"] == "HEAD" else answer.body, end=True)

    async def _websocket(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, connection: int
    ) -> None:
        protocol = ServerProtocol()
        data = head
        while True:
            protocol.receive_data(data) if data else protocol.receive_eof()
            for event in protocol.events_received():
                if isinstance(event, WebSocketRequest):
                    headers = [(name.lower(), value) for name, value in event.headers.raw_items()]
                    self._record(
                        method="GET",
                        path=event.path,
                        host=event.headers.get("Host", ""),
                        proto="HTTP/1.1",
                        headers=headers,
                        body=b"",
                        tls=self.tls_info(writer),
                        connection=connection,
                    )
                    protocol.send_response(protocol.accept(event))
                elif event.opcode is Opcode.TEXT:
                    protocol.send_text(event.data)
                elif event.opcode is Opcode.BINARY:
                    protocol.send_binary(event.data)
            for chunk in protocol.data_to_send():
                if chunk:
                    writer.write(chunk)
            await writer.drain()
            if protocol.close_expected() or not data:
                return
            data = await reader.read(65536)

    def _record(
        self,
        *,
        method: str,
        path: str,
        host: str,
        proto: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        tls: TlsInfo | None,
        connection: int,
    ) -> Echo:
        grouped: dict[str, list[str]] = {}
        for name, value in headers:
            grouped.setdefault(name.lower(), []).append(value)
        echo = Echo(
            pod=self.name,
            namespace=self.namespace,
            method=method,
            path=path,
            host=host,
            proto=proto,
            headers=grouped,
            body=body[:4096].decode("latin-1"),
            tls=tls,
            connection=connection,
        )
        self.hits.append(echo)
        self._changed.set()
        return echo

    async def _answer(self, echo: Echo) -> _Answer | None:
        """Return the response, None for a reset."""
        url = urlsplit(echo.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if delay := float(query.get("delay", 0)):
            await asyncio.sleep(delay)
        status = int(query.get("status", 200))
        if found := _STATUS.search(url.path):
            status = int(found[1])
        if "reset" in query:
            return None
        if "fail" in query:
            key = query.get("id", url.path)
            self._failures[key] += 1
            if self._failures[key] <= int(query["fail"]):
                code = query.get("code", "503")
                if code == "reset":
                    return None
                status = int(code)
        document: dict[str, Any] = msgspec.to_builtins(echo)
        if size := int(query.get("size", 0)):
            document["padding"] = "x" * size
        body = json.dumps(document).encode()
        headers = [("content-type", "application/json"), ("x-echo-pod", self.name)]
        if status not in (204, 304):
            headers.append(("content-length", str(len(body))))
        return _Answer(status, headers + _extra_headers(echo), body)


def _extra_headers(echo: Echo) -> list[tuple[str, str]]:
    wanted = echo.header("x-echo-set-header") or ""
    pairs = [item.split(":", 1) for item in wanted.split(",") if ":" in item]
    return [(name.strip().lower(), value.strip()) for name, value in pairs]


def _head_of(request: h11.Request) -> bytes:
    """Return the request's head as bytes again, for the WebSocket protocol to parse."""
    lines = [request.method + b" " + request.target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in request.headers]
    return b"\r\n".join([*lines, b"", b""])


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = await reader.read(65536)
        if not chunk:
            raise ConnectionResetError("closed before a request")
        head += chunk
    return head


async def _next_http1(
    http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[h11.Request, bytes] | None:
    request: h11.Request | None = None
    body = b""
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError:
            return None
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                go_on = http.send(h11.InformationalResponse(status_code=100, headers=[]))
                writer.write(go_on or b"")
            http.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, body
        else:
            return None
