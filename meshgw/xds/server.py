"""The gRPC side of the xDS server: aggregated discovery, delta and state of the world, on loopback or by TLS.

Each stream has one reader and one writer. The writer asks its session for the next message only when the transport
took the last one, so a proxy that does not read stalls its own writer and nothing else, and holds no queue. The reader
takes its time with a proxy that sends more than its share, or has it sent.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from meshgw.emit.resource import Resource
from meshgw.observe.log import get_logger
from meshgw.xds.admission import Admission
from meshgw.xds.cache import Cache, Changes, Key
from meshgw.xds.events import Acked, Changed, Close, Command, Nacked, Received, Send, Settled, Writable
from meshgw.xds.pace import Pace
from meshgw.xds.proxy import Authenticate, Authorize, Limits, NoObserver, Peer, ProxyState, Refused, XdsObserver
from meshgw.xds.session import DeltaSession, StreamSession
from meshgw.xds.sotw import SotwSession
from meshgw.xds.transport import AGE_JITTER, bind, check_loopback, make_server

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
TICK: Final = 1.0
"""Seconds between looks at the bounds that only time can end."""
_REQUEST_BYTES: Final = 16 * 1024
_PUSH_BYTES: Final = 256 * 1024
"""A request costs a stream 1 of its pace, and 1 more for each so many bytes received and sent."""

_log = get_logger("xds")


class Stream:
    """One proxy's stream: its session and pace, what wakes its writer, and how it ends."""

    def __init__(self, session: StreamSession, pace: Pace) -> None:
        self.session = session
        self.pace = pace
        self.is_old = False  # to be ended at the next good moment
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

    `listen` is `unix:/path` or an address and port; one that other machines can reach needs `credentials` and
    `authenticate`. `authorize` decides for every request whose configuration the peer gets. `on_proxy` is told the
    state of a proxy whenever it changed; the last one has `connected` false.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        authorize: Authorize,
        listen: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
        authenticate: Authenticate | None = None,
        limits: Limits | None = None,
        observer: XdsObserver | None = None,
        on_proxy: Callable[[ProxyState], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if credentials is None or authenticate is None:
            check_loopback(listen)
        self.address = listen
        self.started = asyncio.Event()
        self._cache = cache
        self._authorize = authorize
        self._credentials = credentials
        self._limits = limits or Limits()
        self._admission = Admission(authenticate, self._limits, clock=clock)
        self._observer: XdsObserver = observer or NoObserver()
        self._on_proxy = on_proxy
        self._clock = clock
        self._streams: dict[int, Stream] = {}
        self._serial = 0
        self._told = Pace(rate=0.2, burst=20.0, now=clock())  # refusals that are logged

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
        server = make_server(self._limits, guarded=self._credentials is not None)
        methods = {"DeltaAggregatedResources": self._delta, "StreamAggregatedResources": self._sotw}
        handlers = {name: grpc.stream_stream_rpc_method_handler(method) for name, method in methods.items()}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        self.address = bind(server, self.address, self._credentials)
        return server

    async def _delta(self, _requests: object, context: Any) -> None:
        await self._serve(context, DeltaSession, discovery_pb2.DeltaDiscoveryRequest)

    async def _sotw(self, _requests: object, context: Any) -> None:
        await self._serve(context, SotwSession, discovery_pb2.DiscoveryRequest)

    async def _serve(self, context: Any, protocol: type[StreamSession], request_type: Any) -> None:
        await context.send_initial_metadata(())  # else a status sent during the first message would send it again
        peer = await self._admission.enter(Peer(address=context.peer(), headers=_headers(context)))
        if isinstance(peer, Refused):
            self._refuse(context.peer(), peer)
            await context.abort(grpc.StatusCode[peer.code], peer.reason)
            return
        try:
            close = await self._hold(peer, context, protocol, request_type)
        finally:
            self._admission.leave(peer)
        if close is not None:
            await context.abort(grpc.StatusCode[close.code], close.text)

    async def _hold(self, peer: Peer, context: Any, protocol: type[StreamSession], request_type: Any) -> Close | None:
        """Serve an admitted peer; returns how its stream ends."""
        limits, now = self._limits, self._clock()
        self._serial += 1
        session = protocol(
            self._cache, proxy=self._serial, peer=peer, authorize=self._authorize, now=now, limits=limits
        )
        pace = Pace(rate=limits.requests, burst=limits.request_burst, now=now)
        stream = self._streams[session.proxy] = Stream(session, pace)
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(stream, context, request_type), name=f"xds-read-{session.proxy}")
                writer = tasks.create_task(self._write(stream, context), name=f"xds-write-{session.proxy}")
                await self._wait(stream, peer)
                reader.cancel()
                writer.cancel()
        finally:
            self._drop(stream)
        return stream.close

    async def _wait(self, stream: Stream, peer: Peer) -> None:
        """Return when the stream has ended; old ones are ended when nothing is on its way."""
        if self._credentials is None:
            await stream.ended.wait()
            return
        # What jitter spreads needs no secrecy.
        age = self._limits.age * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)  # noqa: S311
        if not await _ended(stream, min(age, peer.proven_for)):
            stream.is_old = True
            stream.wake.set()
            if not await _ended(stream, self._limits.grace):
                stream.end(None)

    def _refuse(self, address: str, refused: Refused) -> None:
        self._observer.refused(refused.code)
        if self._told.allows(self._clock()):
            _log.warning("stream refused", peer=address, code=refused.code, reason=refused.reason)

    async def _read(self, stream: Stream, context: Any, request_type: Any) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in the stubs
            try:
                request = request_type.FromString(data)
            except DecodeError:
                self._do(stream, [Close("INVALID_ARGUMENT", "the request is not a discovery request")])
                return
            known = stream.session.group is not None
            self._do(stream, stream.session.handle(Received(request, self._clock())))
            stream.wake.set()
            if not known and stream.session.group is not None:
                self._observer.connected(len(self.proxies()))
            self._tell(stream)
            await self._rest(stream, 1 + len(data) / _REQUEST_BYTES)
        stream.end(None)

    async def _rest(self, stream: Stream, cost: float) -> None:
        """Read on only when the stream has paid for what it asked; meanwhile the transport holds the peer back."""
        wait = stream.pace.spend(cost, self._clock())
        if wait > 0:
            await asyncio.sleep(wait)

    async def _write(self, stream: Stream, context: Any) -> None:
        while True:
            stream.wake.clear()
            commands = stream.session.handle(Writable(self._clock()))
            send = next((command for command in commands if isinstance(command, Send)), None)
            self._do(stream, commands)
            if send is None:
                if stream.is_old and stream.session.is_answered():
                    stream.end(None)
                    return
                await stream.wake.wait()
                continue
            stream.pace.spend(len(send.body) / _PUSH_BYTES, self._clock())
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
                    self._refuse(stream.session.peer.address, Refused(command.text, command.code))
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


async def _ended(stream: Stream, within: float) -> bool:
    """Whether the stream ends within these seconds."""
    try:
        async with asyncio.timeout(within):
            await stream.ended.wait()
    except TimeoutError:
        return False
    return True


def _headers(context: Any) -> dict[str, str]:
    metadata = context.invocation_metadata() or ()
    return {key: value for key, value in metadata if isinstance(value, str)}
