"""HBONE for tests: a client and a server of mutual TLS 1.3 + HTTP/2 CONNECT (the tunnel of Istio ambient)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import h2.errors
import httpcore

from tests.rig.certs import Leaf
from tests.rig.clients import HttpClient, HttpVersion, Response, Target
from tests.rig.http2 import Http2Connection, Http2Stream, StreamResetError
from tests.rig.servers import StreamServer
from tests.rig.tls import ClientTls, ServerTls, TlsInfo, describe


class TunnelRefusedError(ConnectionError):
    """The CONNECT was answered with something else than 200."""

    def __init__(self, status: int, headers: list[tuple[str, str]]) -> None:
        super().__init__(f"CONNECT answered {status}")
        self.status, self.headers = status, headers


class Tunnel:
    """An open CONNECT: a byte stream to the authority."""

    def __init__(self, stream: Http2Stream, headers: list[tuple[str, str]]) -> None:
        self._stream, self.headers = stream, headers

    async def read(self) -> bytes:
        """Return the next bytes, `b""` at the end; raises StreamResetError."""
        return await self._stream.read()

    async def read_exactly(self, count: int) -> bytes:
        """Return `count` bytes; raises asyncio.IncompleteReadError at an early end."""
        data = b""
        while len(data) < count:
            chunk = await self.read()
            if not chunk:
                raise asyncio.IncompleteReadError(data, count)
            data += chunk
        return data

    async def write(self, data: bytes, *, end: bool = False) -> None:
        """Send bytes; `end` closes our side."""
        await self._stream.write(data, end=end)

    async def close(self) -> None:
        """Reset the tunnel if it is still open."""
        with contextlib.suppress(Exception):
            await self._stream.reset(h2.errors.ErrorCodes.CANCEL)


class HboneClient:
    """One mutual-TLS connection to an HBONE port; opens any number of tunnels in it.

    Entering it does the TLS handshake (ssl.SSLError or OSError when refused; with TLS 1.3 a refusal of our certificate
    may show only at the first tunnel, as ConnectionError).
    """

    def __init__(
        self,
        target: Target,
        *,
        ca: bytes | None,
        identity: Leaf | None,
        sni: str | None = None,
        alpn: tuple[str, ...] = ("h2",),
        maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        local_address: str | None = None,
    ) -> None:
        self.target = target
        self.tls = ClientTls(ca=ca, identity=identity, sni=sni, alpn=alpn, verify_name=False, maximum=maximum)
        self.info: TlsInfo | None = None
        self._local = local_address
        self._link: Http2Connection | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        reader, writer = await asyncio.open_connection(
            *self.target,
            ssl=self.tls.context(),
            server_hostname=self.tls.sni or self.target[0],
            local_addr=(self._local, 0) if self._local else None,
        )
        self.info = describe(writer.get_extra_info("ssl_object"), self.tls.sni)
        self._link = Http2Connection(reader, writer)
        await self._link.start()
        self._reading = asyncio.get_running_loop().create_task(self._link.run(), name="hbone client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._link is not None
        assert self._reading is not None
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._link.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._link.writer.wait_closed()

    async def connect(self, authority: str, *, headers: Iterable[tuple[str, str]] = (), within: float = 5.0) -> Tunnel:
        """Open a tunnel to `authority`; raises TunnelRefusedError, StreamResetError or ConnectionError."""
        assert self._link is not None
        async with asyncio.timeout(within):
            stream = await self._link.open([(":method", "CONNECT"), (":authority", authority), *headers])
            received = await stream.headers
        status = int(dict(received)[":status"])
        if status != 200:
            raise TunnelRefusedError(status, received)
        return Tunnel(stream, received)

    def http(self, authority: str, *, headers: Iterable[tuple[str, str]] = (), http: HttpVersion = "1.1") -> HttpClient:
        """Return an HTTP client whose every connection is a tunnel to `authority`."""
        address, _, port = authority.rpartition(":")
        return HttpClient((address.strip("[]"), int(port)), http=http, network=_Network(self, authority, headers))

    async def request(
        self,
        authority: str,
        path: str = "/",
        *,
        tunnel_headers: Iterable[tuple[str, str]] = (),
        http: HttpVersion = "1.1",
        **options: Any,
    ) -> Response:
        """Send one HTTP request through a tunnel of its own; options as for `HttpClient.request`."""
        async with self.http(authority, headers=tunnel_headers, http=http) as client:
            return await client.request(options.pop("method", "GET"), path, **options)


class _Network(httpcore.AsyncNetworkBackend):
    """Opens tunnels where httpcore wants TCP connections."""

    def __init__(self, client: HboneClient, authority: str, headers: Iterable[tuple[str, str]]) -> None:
        self._client, self._authority, self._headers = client, authority, tuple(headers)

    async def connect_tcp(self, host: str, port: int, **_options: Any) -> httpcore.AsyncNetworkStream:  # type: ignore[override]
        """Open a tunnel."""
        return _Stream(await self._client.connect(self._authority, headers=self._headers))

    async def sleep(self, seconds: float) -> None:
        """Wait between httpcore's retries."""
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A tunnel as httpcore's byte stream."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._rest = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's interface
        if not self._rest:
            try:
                async with asyncio.timeout(timeout):
                    self._rest = await self._tunnel.read()
            except TimeoutError as error:
                raise httpcore.ReadTimeout from error
            except ConnectionError as error:
                raise httpcore.ReadError(str(error)) from error
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's interface
        try:
            async with asyncio.timeout(timeout):
                await self._tunnel.write(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except ConnectionError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._tunnel.close()

    def get_extra_info(self, info: str) -> Any:
        return False if info == "is_readable" else None


@dataclass(frozen=True)
class Connect:
    """One CONNECT a server received."""

    authority: str
    peer: str
    headers: dict[str, str] = field(default_factory=dict)


class HboneServer(StreamServer):
    """A node proxy in miniature: terminates HBONE and dials what the authority names.

    `routes` maps authorities to where to dial (others are dialled as named); `allow` judges the peer's SPIFFE identity
    and a refused one gets 403. `connects` records every CONNECT, refused ones too.
    """

    def __init__(
        self,
        identity: Leaf,
        client_ca: bytes,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        routes: dict[str, Target] | None = None,
        allow: Callable[[str], bool] = lambda _peer: True,
    ) -> None:
        tls = ServerTls(identity, client_ca=client_ca, alpn=("h2",), minimum=ssl.TLSVersion.TLSv1_3)
        super().__init__(host=host, port=port, tls=tls)
        self.routes = routes or {}
        self.allow = allow
        self.connects: list[Connect] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the tunnels of one connection."""
        info = self.tls_info(writer)
        peer = info.peer_uris[0] if info and info.peer_uris else ""
        link = Http2Connection(reader, writer, on_stream=lambda stream: self._tunnel(stream, peer))
        await link.start()
        await link.run()

    async def _tunnel(self, stream: Http2Stream, peer: str) -> None:
        headers = dict(await stream.headers)
        authority = headers.get(":authority", "")
        self.connects.append(Connect(authority, peer, headers))
        if headers.get(":method") != "CONNECT":
            await stream.send_headers([(":status", "405")], end=True)
            return
        if not self.allow(peer):
            await stream.send_headers([(":status", "403")], end=True)
            return
        host, _, port = authority.rpartition(":")
        try:
            reader, writer = await asyncio.open_connection(*self.routes.get(authority, (host.strip("[]"), int(port))))
        except (OSError, ValueError):
            await stream.send_headers([(":status", "503")], end=True)
            return
        try:
            await stream.send_headers([(":status", "200")])
            await _splice(stream, reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _splice(stream: Http2Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def inward() -> None:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def outward() -> None:
        while data := await reader.read(65536):
            await stream.write(data)
        await stream.write(b"", end=True)

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(inward(), name="hbone inward")
            tasks.create_task(outward(), name="hbone outward")
    except* StreamResetError:
        writer.transport.abort()
    except* ConnectionError:
        await stream.reset()
