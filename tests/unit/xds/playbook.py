"""A script of events and expected commands for one xDS session: `play >> event << command`."""

from collections.abc import Iterable, Mapping

import msgspec
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.struct_pb2 import Struct

from meshgw.emit import resource
from meshgw.emit.resource import Resource
from meshgw.xds.cache import Cache, Changes, Key
from meshgw.xds.events import Acked, Changed, Close, Command, Nacked, Received, Request, Send, Settled, Writable
from meshgw.xds.proxy import Authorize, Limits, Peer
from meshgw.xds.session import DeltaSession, StreamSession
from meshgw.xds.sotw import SotwSession

CDS, EDS, SDS = resource.CLUSTER, resource.ENDPOINTS, resource.SECRET
LDS, RDS = resource.LISTENER, resource.ROUTE_CONFIGURATION
GROUP = "gw"


class Pushed(msgspec.Struct, frozen=True):
    """A decoded `Send`: the type and the names it carries, removals marked with a minus."""

    type_url: str
    names: tuple[str, ...]


class Acknowledged(msgspec.Struct, frozen=True):
    type_url: str


class Refusal(msgspec.Struct, frozen=True):
    type_url: str
    text: str
    resources: tuple[str, ...]


class Closed(msgspec.Struct, frozen=True):
    code: str


class Answer(msgspec.Struct, frozen=True):
    """An ACK or, with a text, a NACK of the newest response of a type, or of one nonce."""

    type_url: str
    nonce: str | None = None
    text: str | None = None


class After(msgspec.Struct, frozen=True):
    """Time passing without anything else happening."""

    seconds: float


class Edit(msgspec.Struct, frozen=True):
    """A commit to the cache."""

    changes: Mapping[Key, Resource | None]


Output = Pushed | Acknowledged | Refusal | Closed


def pushed(type_url: str, *names: str) -> Pushed:
    return Pushed(type_url, names)


def acked(type_url: str) -> Acknowledged:
    return Acknowledged(type_url)


def nacked(type_url: str, text: str, *names: str) -> Refusal:
    return Refusal(type_url, text, names)


def ack(type_url: str, nonce: str | None = None) -> Answer:
    return Answer(type_url, nonce)


def nack(type_url: str, text: str = "bad", nonce: str | None = None) -> Answer:
    return Answer(type_url, nonce, text)


def edit(*resources: Resource, remove: Iterable[Key] = ()) -> Edit:
    return Edit({(found.type_url, found.name): found for found in resources} | dict.fromkeys(remove))


def cluster(name: str, *, version: int = 1, service: str = "") -> Resource:
    message = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS, alt_stat_name=f"v{version}")
    if service:
        message.eds_cluster_config.service_name = service
    return Resource.of(CDS, name, message.SerializeToString(deterministic=True))


def plain(type_url: str, name: str, *, version: int = 1) -> Resource:
    """A resource whose content does not matter."""
    return Resource.of(type_url, name, f"{name} {version}".encode())


def node(node_id: str, **metadata: str) -> base_pb2.Node:
    fields = Struct()
    fields.update(metadata)
    return base_pb2.Node(id=node_id, metadata=fields)


def subscribe(
    type_url: str, *names: str, drop: Iterable[str] = (), versions: Mapping[str, str] | None = None, node_id: str = ""
) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(
        type_url=type_url,
        resource_names_subscribe=names,
        resource_names_unsubscribe=drop,
        initial_resource_versions=versions or {},
        node=node(node_id) if node_id else None,
    )


def want(
    type_url: str, *names: str, version: str = "", nonce: str = "", node_id: str = ""
) -> discovery_pb2.DiscoveryRequest:
    return discovery_pb2.DiscoveryRequest(
        type_url=type_url,
        resource_names=names,
        version_info=version,
        response_nonce=nonce,
        node=node(node_id) if node_id else None,
    )


def authorize_all(_peer: Peer, _node_id: str, _metadata: Mapping[str, object]) -> str:
    return GROUP


class Play:
    """Drives one session over a cache, pumping its writer after every event, and checks what comes out.

    Every `>>` first demands that all output so far was named by `<<`.
    """

    session_type: type[StreamSession] = DeltaSession

    def __init__(
        self,
        *resources: Resource,
        cache: Cache | None = None,
        ready: bool = True,
        authorize: Authorize = authorize_all,
        limits: Limits | None = None,
        proxy: int = 1,
        writable: bool = True,
    ) -> None:
        self.now = 100.0
        self.cache = cache or Cache()
        self.writable = writable
        if cache is None:
            self.cache.apply(GROUP, edit(*resources).changes, now=self.now, ready=ready)
        self.session = self.session_type(
            self.cache, proxy=proxy, peer=Peer(address="unix:"), authorize=authorize, now=self.now, limits=limits
        )
        self.output: list[Output] = []
        self.sent: list[Send] = []
        self.settled = 0
        self._nonces: dict[str, str] = {}
        self._wanted: dict[str, tuple[str, ...]] = {}

    def __rshift__(self, event: Request | Answer | Edit | After | Changes) -> "Play":
        assert self.output == [], "unexpected output"
        match event:
            case Answer():
                self._handle(self.session.handle(Received(self._answer(event), self.now)))
            case Edit(changes):
                self._tell(self.cache.apply(GROUP, changes, now=self.now))
            case Changes():
                self._tell(event)
            case After(seconds):
                self.now += seconds
                for changes in self.cache.expire(now=self.now):
                    self._tell(changes)
            case request:
                if isinstance(request, discovery_pb2.DiscoveryRequest):
                    self._wanted[request.type_url] = tuple(request.resource_names)
                self._handle(self.session.handle(Received(request, self.now)))
        self.pump()
        return self

    def __lshift__(self, expected: Output) -> "Play":
        assert self.output[:1] == [expected]
        del self.output[0]
        return self

    def end(self) -> None:
        """Demand that nothing else came out."""
        assert self.output == []

    def pump(self) -> None:
        """Let the writer take all there is."""
        for _ in range(100):
            if not self.writable:
                return
            before = len(self.sent)
            self._handle(self.session.handle(Writable(self.now)))
            if len(self.sent) == before:
                return
        raise AssertionError("the session never runs dry")

    def _tell(self, changes: Changes | None) -> None:
        if changes is not None:
            self._handle(self.session.handle(Changed(changes, self.now)))

    def _handle(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(type_url, nonce):
                    self._nonces[type_url] = nonce
                    self.sent.append(command)
                    self.output.append(self._decode(command))
                case Acked(type_url):
                    self.output.append(Acknowledged(type_url))
                case Nacked(type_url, _, text, resources):
                    self.output.append(Refusal(type_url, text, resources))
                case Close(code):
                    self.output.append(Closed(code))
                case Settled(commit):
                    self.settled = commit
                    self._tell(self.cache.settle(GROUP, self.session.proxy, commit, now=self.now))

    def _answer(self, answer: Answer) -> Request:
        nonce = self._nonces[answer.type_url] if answer.nonce is None else answer.nonce
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=nonce)
        if answer.text is not None:
            request.error_detail.message = answer.text
        return request

    def _decode(self, send: Send) -> Pushed:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(send.body)
        assert (response.type_url, response.nonce) == (send.type_url, send.nonce)
        assert len(response.resources) == send.resources
        removed = tuple(f"-{name}" for name in response.removed_resources)
        return Pushed(send.type_url, tuple(found.name for found in response.resources) + removed)


class SotwPlay(Play):
    """The same for state of the world; resources are told apart by the name in their body."""

    session_type = SotwSession

    def _answer(self, answer: Answer) -> Request:
        nonce = self._nonces[answer.type_url] if answer.nonce is None else answer.nonce
        request = want(answer.type_url, *self._wanted.get(answer.type_url, ()), nonce=nonce)
        if answer.text is not None:
            request.error_detail.message = answer.text
        return request

    def _decode(self, send: Send) -> Pushed:
        response = discovery_pb2.DiscoveryResponse.FromString(send.body)
        assert (response.type_url, response.nonce) == (send.type_url, send.nonce)
        assert len(response.resources) == send.resources
        return Pushed(send.type_url, tuple(_name_of(send.type_url, found.value) for found in response.resources))


def _name_of(type_url: str, body: bytes) -> str:
    if type_url == CDS:
        return cluster_pb2.Cluster.FromString(body).name
    return body.decode().partition(" ")[0]


ROUTES, LISTENER = plain(RDS, "r"), plain(LDS, "l")
SITE = (cluster("a"), plain(EDS, "a"), LISTENER, ROUTES)


def versions(*resources: Resource) -> dict[str, str]:
    return {found.name: found.version for found in resources}


def started(play: Play) -> Play:
    """A proxy that has asked for and accepted clusters a, its endpoints, a listener and its routes."""
    (
        play
        >> subscribe(CDS, node_id="n")
        << pushed(CDS, "a")
        >> subscribe(EDS, "a")
        << pushed(EDS, "a")
        >> ack(EDS)
        << acked(EDS)
        >> ack(CDS)
        << acked(CDS)
        >> subscribe(LDS)
        << pushed(LDS, "l")
        >> ack(LDS)
        << acked(LDS)
        >> subscribe(RDS, "r")
        << pushed(RDS, "r")
        >> ack(RDS)
        << acked(RDS)
    ).end()
    return play
