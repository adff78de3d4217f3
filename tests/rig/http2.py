"""HTTP/2 over asyncio streams with the sans-io `h2` library: enough for echo backends and HBONE at both ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

Headers = Sequence[tuple[str, str]]


class StreamResetError(ConnectionError):
    """The peer reset this stream; `code` is the HTTP/2 error code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"HTTP/2 stream reset with code {code}")
        self.code = code


class Http2Stream:
    """One stream: headers received, a byte stream each way."""

    def __init__(self, link: Http2Connection, stream_id: int) -> None:
        self.link = link
        self.id = stream_id
        self.headers: asyncio.Future[list[tuple[str, str]]] = asyncio.get_running_loop().create_future()
        self.trailers: list[tuple[str, str]] = []
        self._incoming: asyncio.Queue[bytes | int] = asyncio.Queue()
        self._ended = False

    async def read(self) -> bytes:
        """Return the next received bytes, `b""` at the end; raises StreamResetError."""
        if self._ended:
            return b""
        item = await self._incoming.get()
        if isinstance(item, int):
            self._ended = True
            raise StreamResetError(item)
        self._ended = not item
        return item

    async def read_all(self) -> bytes:
        """Return everything up to the end of the stream."""
        chunks = []
        while chunk := await self.read():
            chunks.append(chunk)
        return b"".join(chunks)

    async def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        """Send a header block (also used for trailers)."""
        self.link.state.send_headers(self.id, list(headers), end_stream=end)
        await self.link.flush()

    async def write(self, data: bytes, *, end: bool = False) -> None:
        """Send `data`, waiting for the peer's flow-control window."""
        state = self.link.state
        while data:
            room = min(state.local_flow_control_window(self.id), state.max_outbound_frame_size, len(data))
            if room <= 0:
                await self.link.window_opened()
                continue
            state.send_data(self.id, data[:room])
            data = data[room:]
            await self.link.flush()
        if end:
            state.end_stream(self.id)
            await self.link.flush()

    async def reset(self, code: int = h2.errors.ErrorCodes.INTERNAL_ERROR) -> None:
        """Reset the stream."""
        self.link.state.reset_stream(self.id, code)
        await self.link.flush()

    def feed(self, item: bytes | int) -> None:
        """Queue received bytes, `b""` for the end, or a reset code."""
        if isinstance(item, int) and not self.headers.done():
            self.headers.set_exception(StreamResetError(item))
            self.headers.exception()  # a reset stream may have nobody waiting for its headers
        self._incoming.put_nowait(item)


class Http2Connection:
    """One connection; a server passes `on_stream`, called in a task of its own for each request."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        on_stream: Callable[[Http2Stream], Awaitable[None]] | None = None,
    ) -> None:
        self.reader, self.writer = reader, writer
        self.state = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=on_stream is None, header_encoding="utf-8")
        )
        self.streams: dict[int, Http2Stream] = {}
        self._on_stream = on_stream
        self._window = asyncio.Event()
        self._closed = False

    async def start(self, settings: dict[h2.settings.SettingCodes, int] | None = None) -> None:
        """Send the preface and our settings."""
        if settings:
            self.state.update_settings(settings)
        self.state.initiate_connection()
        self.state.increment_flow_control_window(2**24)
        await self.flush()

    async def open(self, headers: Headers, *, end: bool = False) -> Http2Stream:
        """Start a request (client side)."""
        if self._closed:
            raise ConnectionResetError("the HTTP/2 connection is closed")
        stream = Http2Stream(self, self.state.get_next_available_stream_id())
        self.streams[stream.id] = stream
        await stream.send_headers(headers, end=end)
        return stream

    async def run(self, head: bytes = b"") -> None:
        """Read until the connection ends; `head` was read from it before."""
        try:
            async with asyncio.TaskGroup() as tasks:
                data = head or await self.reader.read(65536)
                while data:
                    try:
                        events = self.state.receive_data(data)
                    except h2.exceptions.ProtocolError:
                        break
                    for event in events:
                        self._receive(event, tasks)
                    await self.flush()
                    data = await self.reader.read(65536)
                self.abandon()
        except* (ConnectionError, h2.exceptions.ProtocolError):
            pass
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Fail all open streams: the connection is gone."""
        self._closed = True
        for stream in self.streams.values():
            stream.feed(int(h2.errors.ErrorCodes.CONNECT_ERROR))
        self.streams.clear()
        self._window.set()

    async def flush(self) -> None:
        """Write what the protocol state wants to send."""
        data = self.state.data_to_send()
        if data:
            self.writer.write(data)
            await self.writer.drain()

    async def window_opened(self) -> None:
        """Wait until the peer grants more window."""
        if self._closed:
            raise ConnectionResetError("the HTTP/2 connection is closed")
        self._window.clear()
        await self._window.wait()

    def _receive(self, event: Any, tasks: asyncio.TaskGroup) -> None:
        match event:
            case h2.events.RequestReceived():
                stream = self.streams[event.stream_id] = Http2Stream(self, event.stream_id)
                stream.headers.set_result(list(event.headers))
                tasks.create_task(self._serve(stream), name=f"h2 stream {stream.id}")
            case h2.events.ResponseReceived():
                self._on(event.stream_id, lambda s: s.headers.set_result(list(event.headers)))
            case h2.events.TrailersReceived():
                self._on(event.stream_id, lambda s: s.trailers.extend(event.headers))
            case h2.events.DataReceived():
                self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.data:
                    self._on(event.stream_id, lambda s: s.feed(event.data))
            case h2.events.StreamEnded():
                self._on(event.stream_id, lambda s: s.feed(b""))
                if self._on_stream is None:
                    self.streams.pop(event.stream_id, None)
            case h2.events.StreamReset():
                self._on(event.stream_id, lambda s: s.feed(int(event.error_code)))
                self.streams.pop(event.stream_id, None)
                self._window.set()
            case _:
                self._receive_control(event)

    def _receive_control(self, event: Any) -> None:
        if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self._window.set()
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.abandon()

    def _on(self, stream_id: int, act: Callable[[Http2Stream], Any]) -> None:
        if stream := self.streams.get(stream_id):
            act(stream)

    async def _serve(self, stream: Http2Stream) -> None:
        assert self._on_stream is not None
        try:
            await self._on_stream(stream)
        except (ConnectionError, h2.exceptions.ProtocolError):
            pass  # the peer went away or reset the stream; nobody is left to tell
        finally:
            self.streams.pop(stream.id, None)
