"""Requests to an API server: raw bytes in, raw bytes out, every one with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import msgspec

from meshgw import __version__
from meshgw.kube.access import Access, Entry, KubeSettings
from meshgw.kube.errors import AccessError, ApiError, IdleError, UnreachableError
from meshgw.kube.paths import path_of, resource_path

if TYPE_CHECKING:
    import aiohttp

    from meshgw.kube.guarded import GuardedBody

__all__ = [
    "AccessError",
    "ApiError",
    "Client",
    "IdleError",
    "KubeSettings",
    "UnreachableError",
    "connect",
    "path_of",
    "resource_path",
]

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"

GUARD: Final[ContextVar[Callable[[], object] | None]] = ContextVar("guard", default=None)
"""Asked by each request with a body right before that is sent; what it raises, the request raises."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_DIAL: Final = 10.0
_MAX_LINE: Final = 64 << 20
_MAX_MESSAGE: Final = 1000
_FAREWELL: Final = 100
_DELETE_OPTIONS: Final = b'{"apiVersion":"v1","kind":"DeleteOptions"}'


class _Status(msgspec.Struct, frozen=True):
    """The API server's account of a failure."""

    reason: str = ""
    message: str = ""


class Client:
    """An API server under one identity. Made by `connect`."""

    def __init__(self, entry: Entry, session: aiohttp.ClientSession) -> None:
        self._entry = entry
        self._session = session

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = _NOTHING,
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        timeout: float = 30.0,  # noqa: ASYNC109 - handed on to the library
    ) -> bytes:
        """Return the body of the answer; raises `ApiError`, `UnreachableError`, or `AccessError` for want of tokens."""
        async with self._send(
            method, path, query, body=body, content_type=content_type, accept=accept, total=timeout
        ) as answer:
            return await answer.read()

    async def lines(
        self, path: str, *, query: Mapping[str, str], idle: float, accept: str = JSON
    ) -> AsyncGenerator[bytes]:
        """Yield the lines of a stream as they come; see `batches`."""
        async with contextlib.aclosing(self.batches(path, query=query, idle=idle, accept=accept)) as found:
            async for batch in found:
                for line in batch:
                    yield line

    async def batches(
        self, path: str, *, query: Mapping[str, str], idle: float, accept: str = JSON
    ) -> AsyncGenerator[list[bytes]]:
        """Yield the complete lines of a stream, those together that came together, until the server ends it.

        The first batch is empty: it says that the stream is open.

        Raises as `request`, `IdleError` after `idle` seconds of silence, `UnreachableError` if the stream is cut.
        """
        async with self._send("GET", path, query, accept=accept, idle=idle) as answer:
            yield []
            rest: list[bytes] = []
            size = 0
            async for chunk in answer.content.iter_any():
                head, newline, tail = chunk.rpartition(b"\n")
                if newline:
                    yield b"".join((*rest, head)).split(b"\n")
                    rest, size = [], 0
                rest.append(tail)
                size += len(tail)
                if size > _MAX_LINE:
                    raise UnreachableError(f"GET {path}: a line of more than {_MAX_LINE >> 20} MiB")
            if size:
                raise UnreachableError(f"GET {path}: the stream was cut within a line")

    async def date(self) -> datetime:
        """Return what time it is at the server, to the second; raises as `request`."""
        async with self._send("GET", "/version", _NOTHING, total=_DIAL) as answer:
            try:
                return parsedate_to_datetime(answer.headers.get("Date", ""))
            except ValueError:
                raise UnreachableError("GET /version: the answer has no date") from None

    @contextlib.asynccontextmanager
    async def socket(
        self, path: str, *, query: Mapping[str, str], protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Give a WebSocket that speaks a subprotocol; raises as `request`."""
        import aiohttp  # noqa: PLC0415 - a sixth of a second that `--help` must not pay
        import yarl  # noqa: PLC0415 - the same

        access = await self._entry.access()
        headers = {"Authorization": access.authorization} if access.authorization else {}
        url = yarl.URL(access.host + path, encoded=True).with_query(dict(query))
        with _errors(f"GET {path}", idle=False):
            try:
                opened = await self._session.ws_connect(
                    url,
                    protocols=(protocol,),
                    headers=headers,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                    ssl=access.tls if access.tls is not None else True,
                    server_hostname=access.server_name or None,
                    proxy=access.proxy or None,
                    max_msg_size=_MAX_LINE,
                )
            except aiohttp.WSServerHandshakeError as refused:
                # The library reads no body of a refusal.
                raise ApiError(refused.status, "", f"{path} was refused") from None
        async with opened:
            if opened.protocol != protocol:
                raise UnreachableError(f"GET {path}: the server does not speak {protocol}")
            yield opened

    @contextlib.asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        total: float | None = None,
        idle: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give an answer that is a success."""
        import aiohttp  # noqa: PLC0415 - a sixth of a second that `--help` must not pay
        import yarl  # noqa: PLC0415 - the same

        guarded = None
        guard = GUARD.get()
        if guard is not None and method == "DELETE" and body is None:
            body = _DELETE_OPTIONS  # something to be guarded
        if guard is not None and body is not None:
            from meshgw.kube.guarded import GuardedBody  # noqa: PLC0415 - it needs the library too

            guarded = GuardedBody(body, guard)
        limits = aiohttp.ClientTimeout(total=total, sock_connect=_DIAL, sock_read=idle)
        access = await self._entry.access()
        for last in (False, True):
            headers = {"Accept": accept, "Accept-Encoding": "identity"}
            if access.authorization:
                headers["Authorization"] = access.authorization
            if body is not None:
                headers["Content-Type"] = content_type
            url = yarl.URL(access.host + path, encoded=True).with_query(dict(query))
            with _errors(f"{method} {path}", idle=idle is not None, guarded=guarded):
                async with self._session.request(
                    method,
                    url,
                    data=guarded or body,
                    headers=headers,
                    timeout=limits,
                    ssl=access.tls if access.tls is not None else True,
                    server_hostname=access.server_name or None,
                    proxy=access.proxy or None,
                    allow_redirects=False,
                ) as answer:
                    if answer.status < 300:
                        yield answer
                        return
                    error = await _refusal(answer, access)
            if error.status != 401 or last:
                raise error
            renewed = await self._entry.access(refused=access)
            if renewed is access:
                raise error
            access = renewed


@contextlib.contextmanager
def _errors(call: str, *, idle: bool, guarded: GuardedBody | None = None) -> Iterator[None]:
    """Turn what the library raises into errors of ours, which hold neither headers nor bodies."""
    import aiohttp  # noqa: PLC0415 - loaded already

    try:
        yield
    except (ApiError, UnreachableError):
        raise
    except aiohttp.ConnectionTimeoutError:
        raise UnreachableError(f"{call}: no connection within {_DIAL:.0f} s") from None
    except TimeoutError:
        raise (IdleError if idle else UnreachableError)(f"{call}: no answer in time") from None
    except aiohttp.ClientConnectorCertificateError as problem:
        cause = _line(problem.certificate_error)
        raise UnreachableError(f"{call}: {problem.host}:{problem.port} is not trusted: {cause}") from None
    except aiohttp.ClientConnectorError as problem:  # its own text names an SSLContext
        cause = _line(problem.os_error.strerror or problem.os_error)
        raise UnreachableError(f"{call}: no connection to {problem.host}:{problem.port}: {cause}") from None
    except (aiohttp.ClientError, ssl.SSLError, OSError) as problem:
        if guarded is not None and guarded.refusal is not None:
            raise guarded.refusal from None
        raise UnreachableError(f"{call}: {type(problem).__name__}: {_line(problem)}".rstrip(": ")) from None


def _line(problem: object) -> str:
    return str(problem).replace("\n", " ")


async def _refusal(answer: aiohttp.ClientResponse, access: Access) -> ApiError:
    body = await answer.content.read(1 << 20)
    try:
        status = msgspec.json.decode(body, type=_Status)
    except msgspec.DecodeError:
        status = _Status(message=body[:_MAX_MESSAGE].decode("utf-8", "replace"))
    message = status.message[:_MAX_MESSAGE]
    token = access.authorization.rpartition(" ")[2]
    if token:
        message = message.replace(token, "[token]")
    after = answer.headers.get("Retry-After", "")
    retry_after = float(after) if after.isdecimal() else 0.0
    return ApiError(answer.status, status.reason or answer.reason or "", message, retry_after=retry_after)


@contextlib.asynccontextmanager
async def connect(
    settings: KubeSettings | None = None, *, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Client]:
    """Give a client of the API server; raises `AccessError` if it is not configured. Nothing is sent yet."""
    import aiohttp  # noqa: PLC0415 - a sixth of a second that `--help` must not pay

    entry = Entry(settings or KubeSettings(), environ=environ)
    await entry.access()
    sockets: WeakSet[socket.socket] = WeakSet()

    def make(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        sockets.add(made)
        return made

    # Every watch holds a connection; the number of requests in flight is the callers' business.
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, socket_factory=make)
    agent = f"meshgw/{__version__}"
    async with aiohttp.ClientSession(
        connector=connector, headers={"User-Agent": agent}, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        try:
            yield Client(entry, session)
        finally:
            await _close(sockets)


async def _close(sockets: WeakSet[socket.socket]) -> None:
    """Close connections without the farewells of TLS, for which a server that does not answer would have 30 s."""
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    for _ in range(_FAREWELL):
        if all(each.fileno() < 0 for each in sockets):
            return
        await asyncio.sleep(0)
