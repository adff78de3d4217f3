"""What stands between a controller and its API server, a process of its own: it knows when an event was handed over.

Ends TLS on both sides and forwards the bytes as they are. Speaks JSON lines on stdin and stdout: a `Question` is
answered by `Heard`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from tests.bench.processes import Lines, run_module
from tests.rig.waiting import eventually

CHUNK = 256 * 1024
"""Bytes read at once."""
_EVENT = re.compile(rb'\{"type":"(?:ADDED|MODIFIED|DELETED)","object":.*?"resourceVersion":"(\d+)"')
"""The first version in an event is the object's own: what manages its fields comes before and has none."""


class Question(msgspec.Struct, frozen=True):
    """When was the event of this resource version handed over?"""

    version: str = ""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """When the event began to be handed over (CLOCK_MONOTONIC, nanoseconds), 0 if it was not.

    `silence` is for how many seconds nothing has passed in either direction.
    """

    at: int
    silence: float


class Events:
    """The versions of objects in the events of one connection's answers, wherever these are cut."""

    def __init__(self, seen: dict[str, int]) -> None:
        self._seen = seen
        self._rest = b""

    def note(self, chunk: bytes, at: int) -> None:
        """Take the next bytes, which come at `at`; an event has come with the last byte of its line."""
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            self._rest += tail
            return
        for line in (self._rest + head).split(b"\n"):
            if found := _EVENT.search(line):
                self._seen.setdefault(found[1].decode(), at)
        self._rest = tail


_Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Recorder:
    """Forwards connections to a port of TLS to another, and notes the events that pass."""

    def __init__(self, upstream: tuple[str, int], trust: ssl.SSLContext) -> None:
        self._upstream, self._trust = upstream, trust
        self._seen: dict[str, int] = {}
        self._last = time.monotonic()

    def answer(self, question: Question) -> Heard:
        """Return what there is to say."""
        return Heard(at=self._seen.get(question.version, 0), silence=time.monotonic() - self._last)

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either end is gone."""
        try:
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection(*self._upstream, ssl=self._trust, limit=CHUNK)
                try:
                    await self._join((reader, back), (there, writer))
                finally:
                    back.transport.abort()
        finally:
            writer.transport.abort()

    async def _join(self, up: _Way, down: _Way) -> None:
        """Forward both ways until one of them ends."""
        ends = (
            asyncio.create_task(self._pump(*up, None)),
            asyncio.create_task(self._pump(*down, Events(self._seen))),
        )
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, events: Events | None) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK):
                self._last = time.monotonic()
                if events is not None:
                    events.note(chunk, time.perf_counter_ns())
                to.write(chunk)
                await to.drain()


class RecorderProcess(Lines):
    """A recorder's process."""

    async def ask(self, version: str = "") -> Heard:
        """Return when an event was handed over, and since when nothing has passed."""
        self.write(msgspec.json.encode(Question(version)))
        found: Heard = await self.read(Heard)
        return found

    async def handed(self, version: str) -> int:
        """Return when an event was handed over that must have been."""
        if not (heard := await self.ask(version)).at:
            raise AssertionError(f"the event of version {version} was not seen")
        return heard.at

    async def quiet(self, seconds: float, *, within: float = 60.0) -> None:
        """Return once nothing has passed for some seconds."""

        async def silent() -> bool:
            return (await self.ask()).silence >= seconds

        await eventually(silent, what=f"{seconds} s of silence", within=within, interval=seconds / 5)


@contextlib.asynccontextmanager
async def run_recorder(listen: str, upstream: str, folder: Path) -> AsyncIterator[RecorderProcess]:
    """Run a recorder between two `host:port`; it listens.

    The folder has its `tls.crt` and `tls.key`, and `ca.crt`, which verifies the other side.
    """
    async with run_module("tests.bench.cluster.recorder", listen, upstream, str(folder)) as process:
        recorder = RecorderProcess(process)
        await recorder.read(Heard)
        yield recorder


async def main() -> None:
    """Forward from the first address to the second, with the files of the folder given third, until stdin ends."""
    (listen, upstream, folder), loop = sys.argv[1:], asyncio.get_running_loop()
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
    recorder = Recorder(_address(upstream), ssl.create_default_context(cafile=f"{folder}/ca.crt"))
    server = await asyncio.start_server(recorder.forward, *_address(listen), ssl=own, limit=CHUNK)
    _say(recorder.answer(Question()))
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        _say(recorder.answer(msgspec.json.decode(line, type=Question)))
    server.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _say(message: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(main())
