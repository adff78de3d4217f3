"""Clients for behaviour tests: HTTP/1.1, HTTP/2, h2c, TLS, TCP, UDP, gRPC and WebSocket.

A target is `(host, port)`, the place to connect to; the Host header, SNI and authority are given apart from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import grpc
import grpc.aio
import httpcore
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from tests.rig.http_echo import Echo
from tests.rig.tls import ClientTls, TlsInfo, describe

Target = tuple[str, int]
HttpVersion = Literal["1.1", "2"]
Headers = dict[str, str] | Sequence[tuple[str, str]]


class Response(msgspec.Struct, frozen=True):
    """An HTTP response; header names are lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    version: str

    def header(self, name: str) -> str | None:
        """Return the values of `name` joined by commas, None when absent."""
        values = self.header_values(name)
        return ",".join(values) if values else None

    def header_values(self, name: str) -> list[str]:
        """Return each value of `name`."""
        return [value for key, value in self.headers if key == name.lower()]

    def json(self) -> Any:
        """Return the body decoded."""
        return msgspec.json.decode(self.body)

    @property
    def echo(self) -> Echo:
        """What the echo backend saw."""
        return msgspec.json.decode(self.body, type=Echo)

    @property
    def pod(self) -> str | None:
        """The backend that answered, None when the proxy answered itself."""
        return self.header("x-echo-pod")


class HttpClient:
    """A client with keep-alive connections to one target.

    `http="2"` over plain text speaks h2c with prior knowledge. The request path goes out byte for byte.
    """

    def __init__(
        self,
        target: Target,
        *,
        tls: ClientTls | None = None,
        http: HttpVersion = "1.1",
        network: httpcore.AsyncNetworkBackend | None = None,
        local_address: str | None = None,
        within: float = 10.0,
    ) -> None:
        self.target, self.tls, self.within = target, tls, within
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls.context() if tls else None,
            http1=http == "1.1",
            http2=http == "2",
            network_backend=network,
            local_address=local_address,
            max_connections=100,
        )

    async def request(
        self,
        method: str,
        path: str = "/",
        *,
        host: str | None = None,
        headers: Headers = (),
        body: bytes | None = None,
        within: float | None = None,
    ) -> Response:
        """Return the response; raises httpcore errors for refused, reset or timed-out requests."""
        address, port = self.target
        name = host if host is not None else f"{address}:{port}"
        pairs = list(headers.items() if isinstance(headers, dict) else headers)
        if body is not None:
            pairs.append(("content-length", str(len(body))))
        limit = self.within if within is None else within
        extensions: dict[str, Any] = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), limit)}
        if self.tls is not None:
            extensions["sni_hostname"] = self.tls.sni or (name.rsplit(":", 1)[0] if host else address)
        request = httpcore.Request(
            method,
            httpcore.URL(
                scheme=b"https" if self.tls else b"http", host=address.encode(), port=port, target=path.encode()
            ),
            headers=[("host", name), *pairs],
            content=body,
            extensions=extensions,
        )
        response = await self._pool.handle_async_request(request)
        try:
            content = await response.aread()
        finally:
            await response.aclose()
        return Response(
            status=response.status,
            headers=[(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in response.headers],
            body=content,
            version=response.extensions["http_version"].decode(),
        )

    async def get(self, path: str = "/", **options: Any) -> Response:
        """Return the response to a GET; options as for `request`."""
        return await self.request("GET", path, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()


async def request(
    target: Target,
    path: str = "/",
    *,
    method: str = "GET",
    host: str | None = None,
    headers: Headers = (),
    body: bytes | None = None,
    http: HttpVersion = "1.1",
    tls: ClientTls | None = None,
    within: float = 10.0,
) -> Response:
    """Send one request on a connection of its own."""
    async with HttpClient(target, tls=tls, http=http, within=within) as client:
        return await client.request(method, path, host=host, headers=headers, body=body)


async def send_raw(target: Target, data: bytes, *, tls: ClientTls | None = None, within: float = 5.0) -> bytes:
    """Send `data` as it is, half-close, and return everything received until the peer closes."""
    async with tcp(target, tls=tls, within=within) as (reader, writer), asyncio.timeout(within):
        writer.write(data)
        if writer.can_write_eof():
            writer.write_eof()
        return await reader.read()


@contextlib.asynccontextmanager
async def tcp(
    target: Target, *, tls: ClientTls | None = None, within: float = 5.0, local_address: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a TCP connection, or TLS with `tls`; yields reader and writer."""
    async with asyncio.timeout(within):
        reader, writer = await asyncio.open_connection(
            *target,
            ssl=tls.context() if tls else None,
            server_hostname=(tls.sni or target[0]) if tls else None,
            local_addr=(local_address, 0) if local_address else None,
        )
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


async def tcp_exchange(
    target: Target,
    data: bytes,
    *,
    tls: ClientTls | None = None,
    banner: bool = False,
    within: float = 5.0,
) -> tuple[bytes, bytes]:
    """Return the server's first line (`b""` unless `banner`) and as many echoed bytes as were sent.

    Raises asyncio.IncompleteReadError or OSError when the connection ends before that.
    """
    async with tcp(target, tls=tls, within=within) as (reader, writer), asyncio.timeout(within):
        greeting = await reader.readuntil(b"\n") if banner else b""
        writer.write(data)
        await writer.drain()
        return greeting.rstrip(b"\n"), await reader.readexactly(len(data))


async def tls_handshake(target: Target, tls: ClientTls, *, within: float = 5.0) -> tuple[TlsInfo, bytes]:
    """Return the handshake's facts and the server's certificate (DER); raises ssl.SSLError or OSError on refusal.

    With TLS 1.3 a server refuses the client's certificate after the client's handshake is done, so this also waits
    briefly for an alert.
    """
    async with tcp(target, tls=tls, within=within) as (reader, writer):
        session: ssl.SSLObject = writer.get_extra_info("ssl_object")
        facts = describe(session, tls.sni)
        certificate = session.getpeercert(binary_form=True) or b""
        if facts.version == "TLSv1.3":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.15):
                    if not await reader.read(1):
                        raise ConnectionResetError("closed by the server after the handshake")
        return facts, certificate


async def udp_exchange(target: Target, data: bytes, *, within: float = 3.0) -> bytes:
    """Return the answer to one datagram; TimeoutError when there is none."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, target)
        async with asyncio.timeout(within):
            await loop.sock_sendall(client, data)
            return await loop.sock_recv(client, 65536)


class GrpcResult(msgspec.Struct, frozen=True):
    """The outcome of one gRPC call; `messages` are the decoded JSON echoes."""

    code: grpc.StatusCode
    details: str
    messages: list[dict[str, Any]]
    headers: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether the status is OK."""
        return self.code is grpc.StatusCode.OK

    @property
    def pod(self) -> str:
        """The backend that answered."""
        return str(self.messages[0]["pod"])


async def grpc_call(
    target: Target,
    method: str = "/echo.Echo/Say",
    *,
    messages: Sequence[bytes] = (b"hello",),
    metadata: Sequence[tuple[str, str]] = (),
    authority: str | None = None,
    tls: ClientTls | None = None,
    within: float = 5.0,
) -> GrpcResult:
    """Call `method` with `messages` on a channel of its own; failures are a result, not an exception."""
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    if authority:
        options.append(("grpc.default_authority", authority))
    address = f"{target[0]}:{target[1]}"
    if tls is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        identity = tls.identity
        credentials = grpc.ssl_channel_credentials(
            tls.ca, identity.key if identity else None, identity.chain if identity else None
        )
        if tls.sni:
            options.append(("grpc.ssl_target_name_override", tls.sni))
        channel = grpc.aio.secure_channel(address, credentials, options=options)
    async with channel:
        call = channel.stream_stream(method)(iter(messages), metadata=tuple(metadata), timeout=within)
        received: list[dict[str, Any]] = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            received.extend([msgspec.json.decode(message) async for message in call])
        code, details = await call.code(), await call.details()
        initial = await call.initial_metadata()
        return GrpcResult(code, details or "", received, {str(k): str(v) for k, v in initial or ()})


@contextlib.asynccontextmanager
async def websocket(
    target: Target,
    path: str = "/",
    *,
    host: str | None = None,
    headers: Headers = (),
    tls: ClientTls | None = None,
    within: float = 5.0,
) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket: `send` and `recv` on what it yields; raises websockets.InvalidStatus when refused."""
    address, port = target
    scheme = "wss" if tls else "ws"
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    options: dict[str, Any] = {"ssl": tls.context(), "server_hostname": tls.sni or host or address} if tls else {}
    async with connect(
        f"{scheme}://{host or address}{path}" if host else f"{scheme}://{address}:{port}{path}",
        host=address,
        port=port,
        additional_headers=pairs,
        open_timeout=within,
        close_timeout=1.0,
        proxy=None,
        compression=None,
        **options,
    ) as connection:
        yield connection
