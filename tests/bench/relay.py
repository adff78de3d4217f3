"""A relay between one Envoy and its xDS server, a process of its own: it knows when a response is with Envoy.

Forwards bytes both ways, unread: HTTP/2 in plain text on unix sockets, or inside of TLS on TCP ports. Every line on
stdin is a question, answered by a line of JSON.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable

import msgspec

CHUNK = 256 * 1024
"""Bytes read at once, which is more than a unix socket holds."""

_HEADER = 9
_DATA = 0
_RECORD_HEADER = 5
_SMALL = 128
"""Bytes of a TLS record that holds no response, but pings, windows and settings."""


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """When the last bytes of a response were handed to Envoy since the last question, and how many they were.

    `at` is CLOCK_MONOTONIC in nanoseconds, 0 if there were none.
    """

    at: int
    size: int


class Frames:
    """Where the HTTP/2 frames of a server begin and end (RFC 9113, section 4.1): pings and windows are no response."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0  # bytes of the frame under way

    def count(self, chunk: memoryview) -> int:
        """Return how many of the next bytes of the connection are of DATA frames, their headers left out."""
        at = found = 0
        while at < len(chunk):
            if not self._left:
                at, start = at + _HEADER - len(self._header), at
                self._header += bytes(chunk[start:at])
                if len(self._header) == _HEADER:
                    self._left = int.from_bytes(self._header[:3], "big")
                    if not self._left:
                        self._header = b""
                continue
            taken = min(self._left, len(chunk) - at)
            found += taken if self._header[3] == _DATA else 0
            at += taken
            self._left -= taken
            if not self._left:
                self._header = b""
        return found


class Records:
    """Where the TLS records of a server begin and end (RFC 8446, section 5): small ones are no response."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0  # bytes of the record under way
        self._counts = False

    def count(self, chunk: memoryview) -> int:
        """Return how many of the next bytes of the connection are of records that are not small."""
        at = found = 0
        while at < len(chunk):
            if not self._left:
                at, start = at + _RECORD_HEADER - len(self._header), at
                self._header += bytes(chunk[start:at])
                if len(self._header) == _RECORD_HEADER:
                    self._left = int.from_bytes(self._header[3:], "big")
                    self._counts = self._left > _SMALL
                    self._header = b""
                continue
            taken = min(self._left, len(chunk) - at)
            found += taken if self._counts else 0
            at += taken
            self._left -= taken
        return found


class Relay:
    """Forwards every connection to `listen` to `connect`, and notes what is delivered from there.

    Both are paths of unix sockets, or both `host:port` of TLS servers.
    """

    def __init__(self, listen: str, connect: str) -> None:
        self._family, address = _address(listen)
        self._listener = socket.socket(self._family)
        if self._family == socket.AF_INET:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(address)
        self._listener.listen()
        self._connect = _address(connect)[1]
        self._at = self._size = 0
        self._lock = threading.Lock()  # held while a chunk is on its way: a question waits until it is noted

    def run(self) -> None:
        """Forward for good."""
        while True:
            client, _ = self._listener.accept()
            server = socket.socket(self._family)
            try:
                server.connect(self._connect)
            except OSError:  # not there yet: Envoy tries again
                client.close()
                continue
            counter: Frames | Records = Frames()
            if self._family == socket.AF_INET:
                counter = Records()
                for side in (client, server):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _start(_forward, client, server, server.sendall)
            _start(_forward, server, client, lambda chunk, to=client, of=counter: self._deliver(chunk, to, of))

    def ask(self) -> Delivered:
        """Return what was delivered since the last question."""
        with self._lock:
            found = Delivered(at=self._at, size=self._size)
            self._at = self._size = 0
        return found

    def _deliver(self, chunk: memoryview, to: socket.socket, counter: Frames | Records) -> None:
        with self._lock:
            to.sendall(chunk)
            at = time.perf_counter_ns()
            if size := counter.count(chunk):
                self._at = at
                self._size += size


def _address(text: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    host, _, port = text.rpartition(":")
    return (socket.AF_INET, (host, int(port))) if host and "/" not in text else (socket.AF_UNIX, text)


def _forward(source: socket.socket, to: socket.socket, deliver: Callable[[memoryview], None]) -> None:
    """Forward until either end is gone, then let go of both."""
    room = memoryview(bytearray(CHUNK))  # used again and again: memory that is new for each chunk costs faults
    with contextlib.suppress(OSError):
        while size := source.recv_into(room):
            deliver(room[:size])
    for side in (source, to):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


def _start(target: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


def _say(message: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Relay from the address given first to that given second; says at once that it listens. Ends when stdin does."""
    relay = Relay(sys.argv[1], sys.argv[2])
    _start(relay.run)
    _say(relay.ask())
    for _question in sys.stdin.buffer:
        _say(relay.ask())


if __name__ == "__main__":
    main()
