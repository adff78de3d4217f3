"""Whatever happens between a cache and a proxy, the proxy ends up with the cache's state and is never misled meanwhile.

The model proxy does what Envoy does with the bytes it gets: it keeps what it accepts, drops every resource of a
response it refuses, asks for the endpoints and routes that its clusters and listeners name, holds its CDS ACKs back
while a cluster has no endpoints, and resumes with the versions it holds.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshgw.emit.resource import CLUSTER as CDS
from meshgw.emit.resource import ENDPOINTS as EDS
from meshgw.emit.resource import LISTENER as LDS
from meshgw.emit.resource import ROUTE_CONFIGURATION as RDS
from meshgw.emit.resource import Resource
from meshgw.xds.cache import Cache, Changes, Key
from meshgw.xds.events import Changed, Command, Received, Send, Settled, Writable
from meshgw.xds.proxy import Peer
from meshgw.xds.session import DeltaSession, StreamSession
from meshgw.xds.sotw import SotwSession

GROUP = "gw"
BAD = "bad"
FOREVER = 1e9

Site = Mapping[Key, Resource]


def build_cluster(name: str, mark: str) -> Resource:
    message = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS, alt_stat_name=mark)
    return Resource.of(CDS, name, message.SerializeToString())


def build_routes(name: str, clusters: list[str], mark: str) -> Resource:
    """Routes that name clusters; the model reads them from a field that is a list of strings."""
    message = route_pb2.RouteConfiguration(name=name, internal_only_headers=[*sorted(clusters), f"mark-{mark}"])
    return Resource.of(RDS, name, message.SerializeToString())


def named_clusters(body: bytes) -> set[str]:
    headers = route_pb2.RouteConfiguration.FromString(body).internal_only_headers
    return {name for name in headers if not name.startswith("mark-")}


def build_site(marks: dict[str, str], routes: dict[str, tuple[set[str], str]], spare: set[str]) -> Site:
    """A consistent site: every cluster a route names exists and has endpoints, and listeners name their routes."""
    found: list[Resource] = []
    for name in sorted(spare.union(*(clusters for clusters, _ in routes.values()))):
        mark = marks[name]
        found += (build_cluster(name, mark), Resource.of(EDS, name, f"{name} {mark[:1]}".encode()))
    for name, (clusters, mark) in routes.items():
        found += (build_routes(name, sorted(clusters), mark), Resource.of(LDS, name, name.encode()))
    return {(resource.type_url, resource.name): resource for resource in found}


MARKS = st.sampled_from(["1", "2", "3"])
BAD_MARKS = st.sampled_from(["1", "2", "3", BAD])
NAMES = ["a", "b", "c", "d"]


def sites(marks: st.SearchStrategy[str], route_marks: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Site]:
    clusters = st.sets(st.sampled_from(NAMES), min_size=1, max_size=2)
    routes = st.tuples(clusters, marks if route_marks is None else route_marks)
    return st.builds(
        build_site,
        st.fixed_dictionaries(dict.fromkeys(NAMES, marks)),
        st.dictionaries(st.sampled_from(["r", "s"]), routes, min_size=1),
        st.sets(st.sampled_from(NAMES), max_size=1),
    )


class ModelProxy:
    """A proxy on one session; subclasses speak one of the protocols."""

    session_type: type[StreamSession]

    def __init__(self) -> None:
        self.held: dict[str, dict[str, tuple[str, bytes]]] = {CDS: {}, EDS: {}, LDS: {}, RDS: {}}
        self.inbox: deque[Send] = deque()
        self.held_back: list[Any] = []
        self.wanted: dict[str, set[str]] = {}
        self.nonces: dict[str, str] = {}

    def connect(self) -> list[Any]:
        """The first requests on a new stream, in Envoy's order."""
        self.inbox.clear()
        self.held_back.clear()
        self.wanted = {EDS: set(), RDS: set()}
        self.nonces = {}
        is_cold = not self.held[CDS]
        types = [CDS] if is_cold and not self.held[LDS] else [CDS, *self._named(EDS), LDS, *self._named(RDS)]
        requests = [self._first(type_url) for type_url in types]
        return [*requests, *([self._first(LDS)] if LDS not in types else [])]

    def read(self) -> list[Any]:
        """Process one response, if there is one; the requests it causes."""
        if not self.inbox:
            return []
        send = self.inbox.popleft()
        resources, removed = self.decode(send)
        self.nonces[send.type_url] = send.nonce
        answer = self.answer(send)
        if any(self._is_bad(send.type_url, body) for _, body in resources.values()):
            answer.error_detail.message = "no"
            return self._pass(send.type_url, answer)
        held = self.held[send.type_url]
        for name in removed:
            held.pop(name, None)
            if send.type_url == CDS:
                self.held[EDS].pop(name, None)
        for name, found in resources.items():
            if send.type_url in (EDS, RDS) and name not in self._names(send.type_url):
                continue  # nothing asks for it: Envoy drops it
            held[name] = found
        requests = self._pass(send.type_url, answer)
        return [*requests, *self._follow(EDS), *self._follow(RDS)]

    def _pass(self, type_url: str, answer: Any) -> list[Any]:
        """The answers that may leave now: those for clusters wait, in order, for the last warming one."""
        if type_url == CDS:
            self.held_back.append(answer)
        passed = [] if type_url == CDS else [answer]
        if not self._is_warming():
            passed += self.held_back
            self.held_back = []
        return passed

    def missing(self) -> set[str]:
        """Clusters that routes in use name and that cannot serve."""
        ready = self.held[CDS].keys() & self.held[EDS].keys()
        named = [named_clusters(body) for name, (_, body) in self.held[RDS].items() if name in self.held[LDS]]
        return set().union(*named) - ready

    def _is_warming(self) -> bool:
        return bool(self.held[CDS].keys() - self.held[EDS].keys())

    def _is_bad(self, type_url: str, body: bytes) -> bool:
        return type_url in (CDS, RDS) and BAD.encode() in body

    def _names(self, type_url: str) -> set[str]:
        """What the proxy's clusters and listeners name."""
        return set(self.held[CDS] if type_url == EDS else self.held[LDS])

    def _named(self, type_url: str) -> list[str]:
        return [type_url] if self._names(type_url) else []

    def _follow(self, type_url: str) -> list[Any]:
        """Ask for what is named now and was not, and drop what is named no more."""
        names = self._names(type_url)
        held = self.held[type_url]
        for name in held.keys() - names:
            del held[name]
        if names == self.wanted[type_url]:
            return []
        before, self.wanted[type_url] = self.wanted[type_url], names
        return [self.change(type_url, before, names)]

    def _first(self, type_url: str) -> Any:
        if type_url in self.wanted:
            self.wanted[type_url] = self._names(type_url)
        request = self.first(type_url)
        request.node.id = "n"
        return request

    def first(self, type_url: str) -> Any:
        raise NotImplementedError

    def change(self, type_url: str, before: set[str], names: set[str]) -> Any:
        raise NotImplementedError

    def answer(self, send: Send) -> Any:
        raise NotImplementedError

    def decode(self, send: Send) -> tuple[dict[str, tuple[str, bytes]], set[str]]:
        raise NotImplementedError


class DeltaProxy(ModelProxy):
    session_type = DeltaSession

    def first(self, type_url: str) -> Any:
        versions = {name: version for name, (version, _) in self.held[type_url].items()}
        names = sorted(self.wanted.get(type_url, ()))
        return discovery_pb2.DeltaDiscoveryRequest(
            type_url=type_url, resource_names_subscribe=names, initial_resource_versions=versions
        )

    def change(self, type_url: str, before: set[str], names: set[str]) -> Any:
        return discovery_pb2.DeltaDiscoveryRequest(
            type_url=type_url,
            resource_names_subscribe=sorted(names - before),
            resource_names_unsubscribe=sorted(before - names),
        )

    def answer(self, send: Send) -> Any:
        return discovery_pb2.DeltaDiscoveryRequest(type_url=send.type_url, response_nonce=send.nonce)

    def decode(self, send: Send) -> tuple[dict[str, tuple[str, bytes]], set[str]]:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(send.body)
        found = {resource.name: (resource.version, resource.resource.value) for resource in response.resources}
        # Envoy ignores removals of endpoints and routes: they go with the cluster or listener that names them.
        return found, set(response.removed_resources) if send.type_url in (CDS, LDS) else set()


class SotwProxy(ModelProxy):
    session_type = SotwSession

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, str] = {}

    def first(self, type_url: str) -> Any:
        return self._request(type_url, version_info=self.versions.get(type_url, ""))

    def change(self, type_url: str, before: set[str], names: set[str]) -> Any:
        return self._request(type_url, response_nonce=self.nonces.get(type_url, ""))

    def answer(self, send: Send) -> Any:
        return self._request(send.type_url, response_nonce=send.nonce)

    def decode(self, send: Send) -> tuple[dict[str, tuple[str, bytes]], set[str]]:
        response = discovery_pb2.DiscoveryResponse.FromString(send.body)
        found = {self._name(send.type_url, item.value): ("", item.value) for item in response.resources}
        if send.type_url not in (CDS, LDS):
            return found, set()
        if not any(self._is_bad(send.type_url, body) for _, body in found.values()):
            self.versions[send.type_url] = response.version_info
        return found, set(self.held[send.type_url]) - found.keys()

    def _request(self, type_url: str, **fields: str) -> Any:
        names = sorted(self.wanted.get(type_url, ()))
        return discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names, **fields)

    @staticmethod
    def _name(type_url: str, body: bytes) -> str:
        if type_url == CDS:
            return str(cluster_pb2.Cluster.FromString(body).name)
        if type_url == RDS:
            return str(route_pb2.RouteConfiguration.FromString(body).name)
        return body.decode().partition(" ")[0]


class World:
    """A cache, one model proxy and the session between them."""

    def __init__(self, proxy: ModelProxy, *, linger: float = FOREVER) -> None:
        self.now = 0.0
        self.linger = linger
        self.proxy = proxy
        self.site: Site = {}
        self.serial = 0
        self.cache = Cache(linger=linger)
        self.cache.apply(GROUP, {}, now=0, ready=True)
        self.check: Callable[[], None] = lambda: None
        self.connect()

    def connect(self) -> None:
        if self.serial:
            self.cache.detach(GROUP, self.serial, "n", now=self.now)
        self.serial += 1
        self.session = self.proxy.session_type(
            self.cache, proxy=self.serial, peer=Peer(address=""), authorize=lambda *_: GROUP, now=self.now
        )
        self.outbox = deque(self.proxy.connect())

    def restart(self) -> None:
        """A new controller with the same site and no memory."""
        self.cache = Cache(linger=self.linger)
        self.cache.apply(GROUP, dict(self.site), now=self.now, ready=True)
        self.serial = 0
        self.connect()

    def edit(self, site: Site) -> None:
        changes: dict[Key, Resource | None] = dict.fromkeys(self.site)
        changes.update(site)
        self.site = site
        self.tell(self.cache.apply(GROUP, changes, now=self.now))

    def write(self) -> bool:
        """The transport takes one message; whether there was one."""
        commands = self.session.handle(Writable(self.now))
        sends = [command for command in commands if isinstance(command, Send)]
        assert len(sends) <= 1
        self.proxy.inbox.extend(sends)
        self.do(commands)
        return bool(sends)

    def read(self) -> bool:
        """The proxy takes one message; whether there was one."""
        had = bool(self.proxy.inbox)
        self.outbox.extend(self.proxy.read())
        self.check()
        return had

    def serve(self) -> None:
        """The session gets one request, if there is one."""
        if self.outbox:
            self.do(self.session.handle(Received(self.outbox.popleft(), self.now)))

    def fill(self) -> None:
        """The session gets all requests, and the transport takes all there is before the proxy reads any of it."""
        while self.outbox:
            self.serve()
        for _ in range(200):
            if not self.write():
                return
        raise AssertionError("the session never runs dry")

    def empty(self) -> bool:
        """The proxy reads all that has arrived; whether there was anything."""
        had = bool(self.proxy.inbox)
        while self.read():
            pass
        return had

    def wait(self) -> None:
        self.now += 0.4
        for changes in self.cache.expire(now=self.now):
            self.tell(changes)

    def drain(self) -> None:
        """Let everything happen that is going to."""
        idle = 0
        for _ in range(500):
            self.fill()
            idle = 0 if self.empty() else idle + 1
            if idle > 5:
                return
            self.wait()
        raise AssertionError("proxy and session never come to rest")

    def tell(self, changes: Changes | None) -> None:
        if changes is not None:
            self.do(self.session.handle(Changed(changes, self.now)))

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Settled):
                self.tell(self.cache.settle(GROUP, self.session.proxy, command.commit, now=self.now))

    def expected(self) -> dict[str, dict[str, bytes]]:
        found: dict[str, dict[str, bytes]] = {CDS: {}, EDS: {}, LDS: {}, RDS: {}}
        for (type_url, name), resource in self.site.items():
            found[type_url][name] = resource.body
        return found

    def actual(self) -> dict[str, dict[str, bytes]]:
        return {
            type_url: {name: body for name, (_, body) in held.items()} for type_url, held in self.proxy.held.items()
        }


STEPS = ["write", "read", "serve", "fill", "empty", "drain", "wait", "connect"]


def steps(
    marks: st.SearchStrategy[str], names: list[str], route_marks: st.SearchStrategy[str] | None = None
) -> st.SearchStrategy[list[str | Site]]:
    return st.lists(st.one_of(sites(marks, route_marks), st.sampled_from(names)), max_size=40)


def play(world: World, script: list[str | Site]) -> None:
    for step in script:
        if isinstance(step, str):
            getattr(world, step)()
        else:
            world.edit(step)


def never_misled(world: World) -> Callable[[], None]:
    def check() -> None:
        assert world.proxy.missing() == set()

    return check


@given(script=steps(MARKS, [*STEPS, "restart"]))
def test_a_delta_proxy_converges_and_its_routes_never_name_a_missing_cluster(script: list[str | Site]) -> None:
    world = World(DeltaProxy())
    world.check = never_misled(world)
    play(world, script)
    world.drain()
    assert world.actual() == world.expected()


@given(script=steps(MARKS, STEPS))
def test_a_state_of_the_world_proxy_converges_and_its_routes_never_name_a_missing_cluster(
    script: list[str | Site],
) -> None:
    world = World(SotwProxy())
    world.check = never_misled(world)
    play(world, script)
    world.drain()
    assert world.actual() == world.expected()


@given(script=steps(MARKS, STEPS, route_marks=BAD_MARKS), delta=st.booleans())
def test_routes_that_were_kept_because_newer_ones_were_refused_keep_their_clusters(
    script: list[str | Site],
    delta: bool,  # noqa: FBT001 - drawn
) -> None:
    world = World(DeltaProxy() if delta else SotwProxy())
    world.check = never_misled(world)
    play(world, script)
    world.drain()


@given(script=steps(BAD_MARKS, [*STEPS, "restart"]), last=sites(BAD_MARKS))
def test_a_delta_proxy_gets_everything_but_what_it_refuses(script: list[str | Site], last: Site) -> None:
    world = World(DeltaProxy(), linger=30)
    play(world, [*script, last])
    world.drain()
    for type_url, expected in world.expected().items():
        good = {name: body for name, body in expected.items() if BAD.encode() not in body}
        if type_url in (CDS, LDS, RDS):
            assert good.items() <= world.actual()[type_url].items()


@given(script=steps(BAD_MARKS, [*STEPS, "restart"]), last=sites(MARKS), delta=st.booleans())
def test_mended_configuration_heals_every_proxy(script: list[str | Site], last: Site, delta: bool) -> None:  # noqa: FBT001 - drawn
    world = World(DeltaProxy() if delta else SotwProxy(), linger=30)
    play(world, [*script, last])
    world.drain()
    assert world.actual() == world.expected()
    assert all(not state.nack for state in world.session.state().types.values())
