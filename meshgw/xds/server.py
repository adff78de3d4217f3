"""The gRPC side of the xDS server: aggregated discovery, delta and state of the world, on loopback.

Each stream has one reader and one writer. The writer asks its session for the next message only when the transport
took the last one, so a proxy that does not read stalls its own writer and nothing else, and holds no queue.
"""

import asyncio
import ipaddress
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from meshgw.emit.resource import Resource
from meshgw.xds.cache import Cache, Changes, Key
from meshgw.xds.events import Acked, Changed, Close, Command, Nacked, Received, Send, Settled, Writable
from meshgw.xds.proxy import Authorize, Limits, NoObserver, Peer, ProxyState, XdsObserver
from meshgw.xds.session import DeltaSession, StreamSession
from meshgw.xds.sotw import SotwSession

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
TICK: Final = 1.0
"""Seconds between looks at the bounds that only time can end."""


class Stream:
    """One proxy's stream: its session, what wakes its writer, and how it ends."""

    def __init__(self, session: StreamSession) -> None:
        self.session = session
        self.wake = asyncio.Event()
        self.ended = asyncio.Event()
        self.close: Close | None = None

    def end(self, close: Close | None) -> None:
        """End the stream with this status, or with success; the first call counts."""
        if not self.ended.is_set():
            self.close = close
            self.ended.set()


class AdsServer:
    """Serves a cache to proxies; all methods belong to the event loop `run` is on.

    `listen` is `unix:/path`, or a loopback address and port. `on_proxy` is told the state of a proxy whenever it
    changed; the last one has `connected` false.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        authorize: Authorize,
        listen: str = "127.0.0.1:0",
        limits: Limits | None = None,
        observer: XdsObserver | None = None,
        on_proxy: Callable[[ProxyState], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = listen
        self.started = asyncio.Event()
        self._cache = cache
        self._authorize = authorize
        self._limits = limits or Limits()
        self._observer: XdsObserver = observer or NoObserver()
        self._on_proxy = on_proxy
        self._clock = clock
        self._streams: dict[int, Stream] = {}
        self._serial = 0
        check_loopback(listen)

    async def run(self) -> None:
        """Serve until cancelled, then end every stream. `started` is set and `address` known once it listens.

        Raises OSError when the address is taken.
        """
        server = self._bind()
        await server.start()
        self.started.set()
        try:
            while True:
                await asyncio.sleep(TICK)
                self.tick()
        finally:
            for stream in self._streams.values():
                stream.end(Close("UNAVAILABLE", "the control plane is stopping"))
            await server.stop(grace=TICK)

    def publish(self, group: str, changes: Mapping[Key, Resource | None], *, ready: bool = False) -> None:
        """Commit changes to a group and wake its proxies; `ready` as `mark_ready` in the same step."""
        self._spread([self._cache.apply(group, changes, now=self._clock(), ready=ready)])

    def mark_ready(self, group: str) -> None:
        """Start answering for a group whose published resources are complete."""
        self._spread([self._cache.mark_ready(group)])

    def forget(self, group: str) -> None:
        """Drop a group and end its streams."""
        self._cache.forget(group)
        for stream in self._of(group):
            stream.end(Close("UNAVAILABLE", "the gateway is gone"))

    def proxies(self) -> tuple[ProxyState, ...]:
        """The connected proxies, in the order they came."""
        return tuple(stream.session.state() for stream in self._streams.values() if stream.session.group is not None)

    def tick(self) -> None:
        """End what has waited for its whole bound."""
        self._spread(self._cache.expire(now=self._clock()))
        for stream in self._streams.values():
            stream.wake.set()

    def _bind(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._limits.message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ]
        )
        methods = {"DeltaAggregatedResources": self._delta, "StreamAggregatedResources": self._sotw}
        handlers = {name: grpc.stream_stream_rpc_method_handler(method) for name, method in methods.items()}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise OSError(f"xDS cannot listen on {self.address}: {error}") from error
        if self.address.startswith("unix:"):
            os.chmod(self.address.removeprefix("unix:"), 0o600)  # noqa: PTH101 - one call at start-up, before serving
        else:
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        return server

    async def _delta(self, _requests: object, context: Any) -> None:
        await self._serve(context, DeltaSession, discovery_pb2.DeltaDiscoveryRequest)

    async def _sotw(self, _requests: object, context: Any) -> None:
        await self._serve(context, SotwSession, discovery_pb2.DiscoveryRequest)

    async def _serve(self, context: Any, protocol: type[StreamSession], request_type: Any) -> None:
        if len(self._streams) >= self._limits.streams:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
        await context.send_initial_metadata(())  # else a status sent during the first message would send it again
        self._serial += 1
        session = protocol(
            self._cache,
            proxy=self._serial,
            peer=Peer(address=context.peer(), headers=_headers(context)),
            authorize=self._authorize,
            now=self._clock(),
            limits=self._limits,
        )
        stream = self._streams[session.proxy] = Stream(session)
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(stream, context, request_type), name=f"xds-read-{session.proxy}")
                writer = tasks.create_task(self._write(stream, context), name=f"xds-write-{session.proxy}")
                await stream.ended.wait()
                reader.cancel()
                writer.cancel()
        finally:
            self._drop(stream)
        if stream.close is not None:
            await context.abort(grpc.StatusCode[stream.close.code], stream.close.text)

    async def _read(self, stream: Stream, context: Any, request_type: Any) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in the stubs
            try:
                request = request_type.FromString(data)
            except DecodeError:
                stream.end(Close("INVALID_ARGUMENT", "the request is not a discovery request"))
                return
            known = stream.session.group is not None
            self._do(stream, stream.session.handle(Received(request, self._clock())))
            stream.wake.set()
            if not known and stream.session.group is not None:
                self._observer.connected(len(self.proxies()))
            self._tell(stream)
        stream.end(None)

    async def _write(self, stream: Stream, context: Any) -> None:
        while True:
            stream.wake.clear()
            commands = stream.session.handle(Writable(self._clock()))
            send = next((command for command in commands if isinstance(command, Send)), None)
            self._do(stream, commands)
            if send is None:
                await stream.wake.wait()
                continue
            self._observer.pushed(stream.session.group or "", send.type_url, len(send.body), send.resources)
            try:
                await context.write(send.body)
            except grpc.aio.UsageError:  # the call ended while the message was on its way
                stream.end(None)
                return

    def _do(self, stream: Stream, commands: Iterable[Command]) -> None:
        """Carry out commands other than `Send`, and whatever they set off in other streams."""
        pending = deque((stream, command) for command in commands)
        while pending:
            stream, command = pending.popleft()
            group = stream.session.group or ""
            match command:
                case Acked(type_url, _, seconds):
                    self._observer.acked(group, type_url, seconds)
                case Nacked(type_url):
                    self._observer.nacked(group, type_url)
                case Settled(commit):
                    changes = self._cache.settle(group, stream.session.proxy, commit, now=self._clock())
                    pending.extend(self._pass_on(changes))
                case Close():
                    stream.end(command)

    def _spread(self, all_changes: Iterable[Changes | None]) -> None:
        for changes in all_changes:
            for stream, command in self._pass_on(changes):
                self._do(stream, [command])

    def _pass_on(self, changes: Changes | None) -> list[tuple[Stream, Command]]:
        """Tell the sessions of a group, wake their writers, and return what they want done."""
        if changes is None:
            return []
        found: list[tuple[Stream, Command]] = []
        for stream in self._of(changes.group):
            found += ((stream, command) for command in stream.session.handle(Changed(changes, self._clock())))
            stream.wake.set()
        return found

    def _of(self, group: str) -> list[Stream]:
        return [stream for stream in self._streams.values() if stream.session.group == group]

    def _drop(self, stream: Stream) -> None:
        session = stream.session
        del self._streams[session.proxy]
        session.closed = True
        if session.group is not None:
            self._cache.detach(session.group, session.proxy, session.node_id, now=self._clock())
            self._observer.connected(len(self.proxies()))
            self._tell(stream)

    def _tell(self, stream: Stream) -> None:
        if self._on_proxy is not None and stream.session.group is not None:
            self._on_proxy(stream.session.state())


def check_loopback(listen: str) -> None:
    """Raise ValueError unless only this machine can reach the address."""
    if listen.startswith("unix:"):
        return
    host = listen.rpartition(":")[0].strip("[]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"xDS listens on loopback or a unix socket, not on {listen!r}")


def _headers(context: Any) -> dict[str, str]:
    metadata = context.invocation_metadata() or ()
    return {key: value for key, value in metadata if isinstance(value, str)}
