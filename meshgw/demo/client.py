"""Clients: single requests, steady load, and a look at who answers a TLS handshake."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec
from cryptography import x509

_WITHIN: Final = 5.0
_PAUSE: Final = 0.003
"""Between two requests of one connection under load."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One request: when (the event loop's clock, seconds), and what came of it."""

    began: float
    ended: float
    status: int = 0
    """0 without an answer."""
    workload: str = ""
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether anything but 200 came."""
        return self.status != 200


class Connection:
    """One HTTP/1.1 connection that is kept, and opened again after a failure. A client of the demo's own servers."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def get(self, headers: Mapping[str, str] | None = None) -> Sample:
        """Send a request; failures are samples too."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(_WITHIN):
                status, fields = await self._exchange(headers or {})
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            return Sample(began=began, ended=clock(), error=_reason(error))
        if fields.get("connection", "").lower() == "close":
            self.close()
        return Sample(began=began, ended=clock(), status=status, workload=fields.get("x-workload", ""))

    async def _exchange(self, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET / HTTP/1.1\r\nhost: shop\r\n{extra}\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        await reader.readexactly(int(fields["content-length"]) if "content-length" in fields else 0)
        return int(head[0].split(" ")[1]), fields


class Load:
    """Requests on several connections, one after the other on each, until the block ends."""

    def __init__(self, port: int, *, connections: int = 4) -> None:
        self.samples: list[Sample] = []
        self._port, self._connections = port, connections
        self._ended = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for number in range(self._connections):
            self._tasks.create_task(self._work(), name=f"load {number}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        await self._tasks.__aexit__(kind, error, trace)

    async def _work(self) -> None:
        async with Connection("127.0.0.1", self._port) as connection:
            while not self._ended.is_set():
                self.samples.append(await connection.get())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE):
                        await self._ended.wait()


class Greeting(NamedTuple):
    """What a TLS server did with a client that has no certificate."""

    identity: str
    serial: int
    refusal: str
    """Why the client was refused; empty if it was let in."""


async def greet(host: str, port: int) -> Greeting:
    """Shake hands without a certificate; raises OSError if there is not even a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the certificate is what is looked at
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    async with asyncio.timeout(_WITHIN):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            certificate = x509.load_der_x509_certificate(der)
            return Greeting(_identity(certificate), certificate.serial_number, await _refusal(reader))
        finally:
            writer.transport.abort()


async def _refusal(reader: asyncio.StreamReader) -> str:
    """Return why the server ended the connection; one that let us in would begin with its HTTP/2 settings."""
    try:
        return "" if await reader.read(1) else "connection closed"
    except ssl.SSLError as error:
        return (error.reason or "TLS alert").lower().replace("_", " ")
    except OSError as error:
        return _reason(error)


def _identity(certificate: x509.Certificate) -> str:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return ", ".join(names.get_values_for_type(x509.UniformResourceIdentifier))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_WITHIN:g} s"
    if isinstance(error, EOFError):
        return "connection closed without an answer"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
