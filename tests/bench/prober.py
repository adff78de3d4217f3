"""The client of the latency benchmark, a process of its own: asks one URL again and again until the answer is right.

It also holds two backends, whose answers are `one` and `two`. Speaks JSON lines on stdin and stdout: a `Question` is
answered by `Armed` once a wrong answer was seen, and by `Answer` when the right one came.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

import msgspec

BODIES = ("one", "two")
PAUSE = 0.002
"""Seconds between two requests: asking without a pause would take a core from what is measured."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Ask `http://host:port/path` until status is 200 and the body the given one, if any."""

    address: str
    port: int
    host: str
    path: str
    body: str
    patience: float = 20.0


class Armed(msgspec.Struct, frozen=True, kw_only=True):
    """The wrong answer was seen: the change can come."""

    status: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """When the right answer was complete (CLOCK_MONOTONIC, nanoseconds), after how many requests.

    `slowest` is the longest of them in seconds; `errors` counts statuses of 5xx and lost connections.
    """

    at: int
    requests: int
    slowest: float
    errors: int


class Connection:
    """One keep-alive connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body; OSError when the connection is lost."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=10)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(request)
            data = b""
            while b"\r\n\r\n" not in data:
                data += self._receive()
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
            while len(body) < length:
                body += self._receive()
        except OSError:
            self._socket.close()
            self._socket = None
            raise
        return int(head[9:12]), body

    def _receive(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        return data


def serve(listener: socket.socket, body: bytes) -> None:
    """Answer every request on every connection with one body, for good."""
    response = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(connection, response), daemon=True).start()


def _answer(connection: socket.socket, response: bytes) -> None:
    with connection:
        data = b""
        while True:
            received = connection.recv(65536)
            if not received:
                return
            data += received
            while b"\r\n\r\n" in data:  # requests have no bodies
                data = data.partition(b"\r\n\r\n")[2]
                connection.sendall(response)


def probe(connection: Connection, question: Question) -> Answer:
    """Ask until the answer is right; says once that it was wrong."""
    request = f"GET {question.path} HTTP/1.1\r\nhost: {question.host}\r\n\r\n".encode()
    wanted = question.body.encode()
    requests, errors, slowest, armed = 0, 0, 0.0, False
    deadline = time.perf_counter() + question.patience
    while True:
        if armed:
            time.sleep(PAUSE)
        began = time.perf_counter()
        requests += 1
        try:
            status, body = connection.ask(request)
        except OSError:
            errors += 1
            status, body = 0, b""
        at = time.perf_counter_ns()
        slowest = max(slowest, at / 1e9 - began)
        errors += status >= 500
        if status == 200 and body == (wanted or body):
            return Answer(at=at, requests=requests, slowest=slowest, errors=errors)
        if not armed:
            armed = True
            _say(Armed(status=status))
        if began > deadline:
            raise TimeoutError(f"no {question.body!r} from {question.host}{question.path}: {status} {body!r}")


def _say(message: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Start the backends on the address given as argument, print their ports; answer questions until stdin ends."""
    ports = []
    for body in BODIES:
        listener = socket.create_server((sys.argv[1], 0))
        ports.append(listener.getsockname()[1])
        threading.Thread(target=serve, args=(listener, body.encode()), daemon=True).start()
    _say(ports)
    connections: dict[tuple[str, int], Connection] = {}
    for line in sys.stdin.buffer:
        question = msgspec.json.decode(line, type=Question)
        address = (question.address, question.port)
        if address not in connections:
            connections[address] = Connection(address)
        _say(probe(connections[address], question))


if __name__ == "__main__":
    main()
