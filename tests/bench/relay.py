"""A relay between one Envoy and its xDS server, a process of its own: it knows when a response is with Envoy.

Forwards the bytes of a unix socket both ways. Every line on stdin is a question, answered by a line of JSON.
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

    def count(self, chunk: bytes) -> int:
        """Return how many of the next bytes of the connection are of DATA frames, their headers left out."""
        at = found = 0
        while at < len(chunk):
            if not self._left:
                at, start = at + _HEADER - len(self._header), at
                self._header += chunk[start:at]
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


class Relay:
    """Forwards every connection to `listen` to the socket at `connect`, and notes what is delivered from there."""

    def __init__(self, listen: str, connect: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(listen)
        self._listener.listen()
        self._connect = connect
        self._at = self._size = 0
        self._lock = threading.Lock()  # held while a chunk is on its way: a question waits until it is noted

    def run(self) -> None:
        """Forward for good."""
        while True:
            client, _ = self._listener.accept()
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._connect)
            except OSError:  # not there yet: Envoy tries again
                client.close()
                continue
            frames = Frames()
            _start(_forward, client, server, server.sendall)
            _start(_forward, server, client, lambda chunk, to=client, frames=frames: self._deliver(chunk, to, frames))

    def ask(self) -> Delivered:
        """Return what was delivered since the last question."""
        with self._lock:
            found = Delivered(at=self._at, size=self._size)
            self._at = self._size = 0
        return found

    def _deliver(self, chunk: bytes, to: socket.socket, frames: Frames) -> None:
        with self._lock:
            to.sendall(chunk)
            at = time.perf_counter_ns()
            if size := frames.count(chunk):
                self._at = at
                self._size += size


def _forward(source: socket.socket, to: socket.socket, deliver: Callable[[bytes], None]) -> None:
    """Forward until either end is gone, then let go of both."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK):
            deliver(chunk)
    for side in (source, to):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


def _start(target: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


def _say(message: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Relay from the socket given first to that given second; says at once that it listens. Ends when stdin does."""
    relay = Relay(sys.argv[1], sys.argv[2])
    _start(relay.run)
    _say(relay.ask())
    for _question in sys.stdin.buffer:
        _say(relay.ask())


if __name__ == "__main__":
    main()
