"""Emitted bytes: joined they are the whole message, the order of input changes nothing, and Envoy's schema holds."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshgw.api.meta import Key
from meshgw.emit import tables as out
from meshgw.emit.action import safe_retries
from meshgw.emit.dump import MESSAGES
from meshgw.emit.fragments import SHARD_COUNT
from meshgw.emit.resource import ROUTE_CONFIGURATION, Resource
from meshgw.emit.route import compile_fragments
from meshgw.ir.backend import (
    Bundle,
    Certificate,
    Endpoint,
    UpstreamProtocol,
    UpstreamTls,
    WorkloadCertificate,
    bundle_name,
    certificate_name,
)
from meshgw.ir.gateway import ClientValidation, ListenerTls, Protocol, TlsMode, ValidationMode
from meshgw.ir.keys import RouteKey
from meshgw.ir.route import (
    Backend,
    Cors,
    ExternalAuth,
    Filters,
    HeaderEdit,
    HostKind,
    Match,
    Mirror,
    PathEdit,
    PathKind,
    PathMatch,
    Redirect,
    Retry,
    Rewrite,
    Route,
    Rule,
    SessionPersistence,
    ValueMatch,
)
from meshgw.protos import MessageToJson, RouteConfiguration, VirtualHost, encode
from meshgw.resolve import tables as t
from tests.decoder import decode
from tests.unit.emit.world import CONFIG, NOTHING, World, backend, https, listener, target

names = st.sampled_from(["a", "b", "x-c", "Host", "bad name", ""])
texts = st.text(alphabet="ab%/\\.*\n \u00e9", max_size=6)
pairs = st.lists(st.tuples(names, texts), max_size=3).map(tuple)
edits = st.none() | st.builds(HeaderEdit, set=pairs, add=pairs, remove=st.lists(names, max_size=2).map(tuple))
paths = st.builds(
    PathMatch, st.sampled_from(PathKind), st.sampled_from(["/", "/a", "/a/", "/a/b", "", "a?", "[", "/x.*"])
)
path_edits = st.none() | st.builds(PathEdit, st.sampled_from(["", "/", "/n", "/n/", "n\\1"]), st.booleans())
targets = st.builds(target, st.sampled_from(["one", "two", "three"]))
conditions = st.lists(st.builds(ValueMatch, names, texts, st.booleans()), max_size=2).map(tuple)
filters = st.builds(
    Filters,
    request=edits,
    response=edits,
    redirect=st.none()
    | st.builds(
        Redirect,
        scheme=st.sampled_from(["", "http", "https", "ftp"]),
        hostname=st.sampled_from(["", "h.test"]),
        port=st.sampled_from([0, 80, 8443, 70_000]),
        path=path_edits,
        status=st.sampled_from([301, 302, 303, 307, 308, 200]),
    ),
    rewrite=st.none() | st.builds(Rewrite, hostname=st.sampled_from(["", "r.test"]), path=path_edits),
    cors=st.none() | st.builds(Cors, origins=st.lists(texts, max_size=2).map(tuple), credentials=st.booleans()),
    mirrors=st.lists(st.builds(Mirror, target=targets, numerator=st.integers(0, 9)), max_size=2).map(tuple),
    external_auth=st.none() | st.builds(ExternalAuth, target=targets, grpc=st.booleans()),
)
backends = st.builds(Backend, target=st.none() | targets, weight=st.integers(0, 3), filters=st.none() | filters)
matches = st.builds(
    Match,
    path=paths,
    method=st.sampled_from(["", "GET"]),
    headers=conditions,
    query=conditions,
    grpc=st.booleans(),
    precedence=st.tuples(st.integers(0, 3)),
)
rules = st.builds(
    Rule,
    matches=st.lists(matches, max_size=3).map(tuple),
    filters=filters,
    backends=st.lists(backends, max_size=3).map(tuple),
    timeout=st.none() | st.integers(0, 5000),
    backend_timeout=st.none() | st.integers(0, 5000),
    retry=st.none() | st.builds(Retry, attempts=st.integers(0, 3), codes=st.just((500,)), backoff=st.integers(0, 9)),
    session=st.none() | st.builds(SessionPersistence, name=st.just("s"), header=st.booleans()),
    error=st.sampled_from(["", "", "", "bad"]),
)
bodies = st.lists(rules, max_size=3).map(tuple)
hosts = st.lists(st.sampled_from(["*", "a.test", "*.b.test", "c.b.test"]), min_size=1, max_size=3, unique=True)
claims = st.dictionaries(st.sampled_from(["r1", "r2", "r3"]), st.tuples(bodies, hosts), max_size=3)
MANY = settings.default.max_examples
slow = settings(
    max_examples=MANY // 4, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

Claims = dict[str, tuple[tuple[Rule, ...], list[str]]]


def build(claimed: Claims, *, reverse: bool = False) -> World:
    world, row = World(), listener()
    for name in sorted(claimed, reverse=reverse):
        rules_of, domains = claimed[name]
        compiled = Route(key=RouteKey("HTTPRoute", "default", name), rules=rules_of)
        world.serve(row, compiled, *sorted(domains, reverse=reverse))
    world.claim(row, "empty.test", RouteKey("", "", "http"), HostKind.EMPTY)
    world.commit()
    return world


def whole(claimed: Claims) -> RouteConfiguration:
    """The RouteConfiguration built as one message, the slow way."""
    by_host: dict[str, list[Any]] = {"empty.test": []}
    for name, (rules_of, domains) in claimed.items():
        compiled = Route(key=RouteKey("HTTPRoute", "default", name), rules=rules_of)
        fragments = compile_fragments(NOTHING, CONFIG, compiled, port=80, https=False)
        for domain in domains:
            by_host.setdefault(domain, []).extend(fragments)
    message = RouteConfiguration(name="http/80", ignore_port_in_host_matching=True)
    message.validate_clusters.SetInParent()
    for domain in sorted(by_host, key=lambda name: (crc32(name.encode()) % SHARD_COUNT, name)):
        host = message.virtual_hosts.add(name=domain, domains=[domain])
        for fragment in sorted(by_host[domain], key=lambda item: item.order):
            host.routes.extend(VirtualHost.FromString(fragment.body).routes)
        if any(route.HasField("route") and not route.route.HasField("retry_policy") for route in host.routes):
            host.retry_policy.CopyFrom(safe_retries())
    return message


@slow
@given(claims)
def test_joined_bytes_are_the_message_built_whole(claimed: Claims) -> None:
    assert build(claimed).resource(ROUTE_CONFIGURATION, "http/80").body == encode(whole(claimed))


@slow
@given(claims)
def test_the_order_of_input_changes_nothing(claimed: Claims) -> None:
    assert build(claimed).resources == build(claimed, reverse=True).resources


@slow
@given(claims, bodies)
def test_an_edit_changes_the_hosts_of_its_route_alone(claimed: Claims, edited: tuple[Rule, ...]) -> None:
    world = build(claimed)
    if "r1" not in claimed:
        return
    key = RouteKey("HTTPRoute", "default", "r1")
    world.put(t.ROUTES, key, Route(key=key, rules=edited))
    delta = world.commit()
    touched = {host for _config, host in delta.changed(out.VIRTUAL_HOSTS)}
    assert touched <= set(claimed["r1"][1])
    assert world.resources == build({**claimed, "r1": (edited, claimed["r1"][1])}).resources


@settings(slow, max_examples=MANY // 10)
@given(claims)
def test_a_second_decoder_reads_the_same(claimed: Claims) -> None:
    resource = build(claimed).resource(ROUTE_CONFIGURATION, "http/80")
    assert other_reading(resource) == own_reading(resource)


def test_a_second_decoder_reads_listeners_clusters_and_the_rest_alike() -> None:
    world = rich_world()
    assert len({key.type_url for key in world.resources}) == 5
    for resource in world.resources.values():
        assert other_reading(resource) == own_reading(resource), resource


def rich_world() -> World:
    """One of every kind of resource, with every kind of listener, cluster and endpoint."""
    world = World()
    certificate, roots = certificate_name("default", "c"), bundle_name("ConfigMap", "default", "roots")
    world.put(t.CERTIFICATES, Key("default", "c"), Certificate(name=certificate, chain=b"chain", key=b"key"))
    world.put(t.BUNDLES, ("ConfigMap", Key("default", "roots")), Bundle(name=roots, roots=b"roots"))
    workload = WorkloadCertificate(chain=b"chain", key=b"key", roots=b"roots")
    world.put(t.WORKLOAD_CERTIFICATES, Key("default", "gw"), workload)
    client = ClientValidation(bundles=(roots,), mode=ValidationMode.INSECURE_FALLBACK)
    passthrough = listener("tls", 443, Protocol.TLS, "*.x.test", tls=ListenerTls(mode=TlsMode.PASSTHROUGH))
    tcp, udp = listener("tcp", 9000, Protocol.TCP), listener("udp", 53, Protocol.UDP)
    world.listen(listener(), https("web", "", certificate, client=client), passthrough, tcp, udp)
    for row in (passthrough, tcp, udp):
        world.forward(row, (("a.x.test",), (backend(), Backend(target=None))))
    tls = UpstreamTls(sni="app.test", bundles=(roots,), client_certificate=certificate)
    identity = "spiffe://cluster.local/ns/default/sa/app"
    tunnelled = Endpoint(address="10.0.0.1", port=80, hbone=True, identity=identity, region="r", zone="z")
    world.reach(target("mesh"), tunnelled, ("10.0.0.2", 80), hbone=True, tls=tls)
    world.reach(target("grpc"), ("10.0.0.3", 80), protocol=UpstreamProtocol.HTTP2)
    world.reach(target("udp"), Endpoint(address="10.0.0.4", port=53, weight=3), protocol=UpstreamProtocol.UDP)
    world.reach(target("refused"), refused="bad")
    world.commit()
    return world


def own_reading(resource: Resource) -> Any:
    message = MESSAGES[resource.type_url].FromString(resource.body)
    return msgspec.json.decode(MessageToJson(message))


def other_reading(resource: Resource) -> Any:
    return msgspec.json.decode(msgspec.json.encode(decode(resource)))
