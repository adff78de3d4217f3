"""HTTP to a port of a pod through the API server: what `kubectl port-forward` does, for one request.

The API server hands a WebSocket of subprotocol `v4.channel.k8s.io` on to the node's kubelet, which connects to
the port from within the pod; so ports of 127.0.0.1 are reached too. Every message begins with its channel: 0 are the
bytes of the first port, 1 is what went wrong; the first message of each holds the port and says nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
from typing import TYPE_CHECKING, Final, cast

from meshgw.api.meta import Key
from meshgw.kube.client import Client
from meshgw.kube.errors import ApiError, UnreachableError
from meshgw.kube.paths import resource_path

if TYPE_CHECKING:
    import socket

    import aiohttp

PROTOCOL: Final = "v4.channel.k8s.io"
_DATA: Final = 0
_ERROR: Final = 1
_MAX_ANSWER: Final = 256 << 20


async def get_from_pod(client: Client, pod: Key, port: int, path: str, *, within: float = 30.0) -> tuple[int, bytes]:
    """Return status and body of a GET on a port of a pod; raises `ApiError`, `UnreachableError` if nobody answers."""
    forward = resource_path("v1", "pods", namespace=pod.namespace, name=pod.name, subresource="portforward")
    request = f"GET {path} HTTP/1.1\r\nHost: {pod.name}\r\nConnection: close\r\n\r\n".encode()
    try:
        async with (
            asyncio.timeout(within),
            client.socket(forward, query={"ports": str(port)}, protocol=PROTOCOL) as opened,
        ):
            with contextlib.suppress(ConnectionResetError):  # what is wrong has been said before it was closed
                await opened.send_bytes(bytes((_DATA,)) + request)
            return await _answer(opened, f"{pod}:{port}")
    except TimeoutError:
        raise UnreachableError(f"{pod}:{port}: no answer within {within:.0f} s") from None
    except ApiError as refused:
        if refused.status == 404:
            raise ApiError(404, "NotFound", f"there is no pod {pod}") from None
        if refused.status == 403:
            raise ApiError(403, "Forbidden", f"pods/portforward is not allowed in {pod.namespace}") from None
        raise


async def _answer(opened: aiohttp.ClientWebSocketResponse, where: str) -> tuple[int, bytes]:
    """Read until the answer is whole."""
    import aiohttp  # noqa: PLC0415 - loaded already

    received = bytearray()
    begun: set[int] = set()
    async for message in opened:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel not in begun:
            begun.add(channel)
            data = data[2:]  # the port, twice a byte
        if channel == _ERROR and data:
            raise UnreachableError(f"{where}: {data.decode('utf-8', 'replace').strip()}")
        if channel == _DATA and data:
            received += data
            if len(received) > _MAX_ANSWER:
                raise UnreachableError(f"{where}: an answer of more than {_MAX_ANSWER >> 20} MiB")
            if _may_be_whole(received) and (answer := parse_answer(bytes(received))) is not None:
                return answer
    answer = parse_answer(bytes(received), ended=True)
    if answer is None:
        raise UnreachableError(f"{where}: the connection ended before an answer was whole")
    return answer


def _may_be_whole(received: bytearray) -> bool:
    """Whether parsing is worth it: an answer of known length, or one whose last chunk may have come."""
    head, separator, _body = bytes(received[:65536]).partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return len(received) - len(head) - 4 >= int(value)
    return received.endswith(b"0\r\n\r\n")


def parse_answer(data: bytes, *, ended: bool = False) -> tuple[int, bytes] | None:
    """Return status and body of a whole HTTP/1.1 answer, None if some of it is missing; `ended`: nothing more comes."""
    response = http.client.HTTPResponse(cast("socket.socket", _Received(data)))
    try:
        response.begin()
        if not ended and response.length is None and not response.chunked:
            return None
        return response.status, response.read()
    except (http.client.HTTPException, ValueError, OSError):
        return None


class _Received:
    """Bytes in the place of the socket that the library reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        """Return the bytes as a file."""
        return io.BytesIO(self._data)
