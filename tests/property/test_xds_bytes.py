"""Responses are joined from bytes as protobuf would write them, and no bytes of a peer upset a session."""

from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from meshgw.emit.resource import CLUSTER as CDS
from meshgw.emit.resource import ENDPOINTS as EDS
from meshgw.emit.resource import ROUTE_CONFIGURATION as RDS
from meshgw.emit.resource import SECRET as SDS
from meshgw.emit.resource import Resource
from meshgw.xds.cache import Cache
from meshgw.xds.events import Close, Received, Send, Writable
from meshgw.xds.proxy import Peer
from meshgw.xds.session import DeltaSession
from meshgw.xds.sotw import SotwSession
from meshgw.xds.wire import delta_response, encode, sotw_response

GROUP = "gw"


@given(
    names=st.lists(st.text(max_size=40), unique=True, max_size=6),
    body=st.binary(max_size=400),
    removed=st.lists(st.text(max_size=10)),
    version=st.text(max_size=20),
    nonce=st.text(max_size=10),
)
@settings(max_examples=2 * settings.default.max_examples)
def test_joined_responses_are_what_protobuf_would_write(
    names: list[str], body: bytes, removed: list[str], version: str, nonce: str
) -> None:
    resources = [Resource.of(SDS, name, body * len(name)) for name in names]
    entries = [encode(resource) for resource in resources]
    packed = [AnyMessage(type_url=SDS, value=resource.body) for resource in resources]
    delta = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info=version, type_url=SDS, nonce=nonce, removed_resources=removed
    )
    for resource, any_message in zip(resources, packed, strict=True):
        delta.resources.add(name=resource.name, version=resource.version, resource=any_message)
    sotw = discovery_pb2.DiscoveryResponse(version_info=version, type_url=SDS, nonce=nonce, resources=packed)
    fields: dict[str, Any] = {"type_url": SDS, "version": version, "nonce": nonce, "entries": entries}
    assert delta_response(**fields, removed=removed) == delta.SerializeToString(deterministic=True)
    assert sotw_response(**fields) == sotw.SerializeToString(deterministic=True)


REQUESTS = st.sampled_from(
    [
        discovery_pb2.DeltaDiscoveryRequest(
            type_url=CDS, resource_names_subscribe=["*", "a"], initial_resource_versions={"a": "1"}, response_nonce="1"
        ),
        discovery_pb2.DeltaDiscoveryRequest(type_url=RDS, resource_names_unsubscribe=["a", "*", ""]),
        discovery_pb2.DiscoveryRequest(type_url=EDS, resource_names=["a", "b"], version_info="x", response_nonce="2"),
    ]
)


@settings(max_examples=2 * settings.default.max_examples)
@given(st.booleans(), st.lists(st.tuples(REQUESTS, st.lists(st.tuples(st.integers(0), st.binary(max_size=3))))))
def test_no_bytes_of_a_peer_upset_a_session(delta: bool, messages: list[Any]) -> None:  # noqa: FBT001 - drawn
    """Requests with bytes overwritten, inserted or gone: what can be decoded is answered or ends the stream."""
    cache = Cache()
    cache.apply(GROUP, {(EDS, "a"): Resource.of(EDS, "a", b"a")}, now=0.0, ready=True)
    session = (DeltaSession if delta else SotwSession)(
        cache, proxy=1, peer=Peer(address=""), authorize=lambda *_: GROUP, now=0.0
    )
    request_type = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest
    response_type = discovery_pb2.DeltaDiscoveryResponse if delta else discovery_pb2.DiscoveryResponse
    for message, edits in messages:
        named = type(message)()
        named.CopyFrom(message)
        named.node.id = "n"
        named.node.metadata.update({"a": 1.5, "b": {"c": ["d"]}})
        data = bytearray(named.SerializeToString())
        for place, replacement in edits:
            start = place % (len(data) + 1)
            data[start : start + 2] = replacement
        try:
            request = request_type.FromString(bytes(data))
        except DecodeError:
            continue
        commands = session.handle(Received(request, 1.0))
        for _ in range(5):
            commands += session.handle(Writable(1.0))
        for sent in (command for command in commands if isinstance(command, Send)):
            response = response_type.FromString(sent.body)
            assert (response.type_url, response.nonce) == (sent.type_url, sent.nonce)
        if any(isinstance(command, Close) for command in commands):
            assert isinstance(commands[-1], Close)
            assert session.handle(Writable(2.0)) == []
            break
