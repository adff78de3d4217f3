from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any

from meshgw.emit.resource import Resource
from meshgw.xds.wire import delta_response, encode, sotw_response, varint
from tests.unit.xds.playbook import CDS, EDS, SDS, cluster


def test_varints_are_base_128() -> None:
    assert [varint(value) for value in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\x01", b"\xac\x02"]


def test_a_delta_response_is_what_protobuf_would_write() -> None:
    resources = [cluster("a"), cluster("b" * 300), Resource.of(CDS, "", b"")]
    built = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info="v", type_url=CDS, nonce="7", removed_resources=["x", ""]
    )
    for resource in resources:
        body = Any(type_url=CDS, value=resource.body)
        built.resources.add(name=resource.name, version=resource.version, resource=body)
    joined = delta_response(type_url=CDS, version="v", nonce="7", entries=map(encode, resources), removed=["x", ""])
    assert joined == built.SerializeToString(deterministic=True)


def test_a_state_of_the_world_response_is_what_protobuf_would_write() -> None:
    resources = [Resource.of(SDS, "key", b"k" * 20_000), Resource.of(SDS, "empty", b"")]
    built = discovery_pb2.DiscoveryResponse(
        version_info="v",
        type_url=SDS,
        nonce="7",
        resources=[Any(type_url=SDS, value=found.body) for found in resources],
    )
    joined = sotw_response(type_url=SDS, version="v", nonce="7", entries=map(encode, resources))
    assert joined == built.SerializeToString(deterministic=True)


def test_a_body_in_parts_is_framed_as_one_in_one_piece() -> None:
    body = cluster("a", service="b").body
    whole, parts = Resource.of(CDS, "a", body), Resource.of(CDS, "a", body[:3], b"", body[3:])
    for response in (delta_response, sotw_response):
        one, other = (response(type_url=CDS, version="v", nonce="7", entries=[encode(r)]) for r in (whole, parts))
        assert one == other
    assert encode(parts).endpoints == "b"
    assert repr(encode(parts)) == repr(encode(whole))


def test_a_cluster_tells_which_endpoints_it_waits_for() -> None:
    static = cluster_pb2.Cluster(name="s", type=cluster_pb2.Cluster.STATIC).SerializeToString()
    assert encode(cluster("a")).endpoints == "a"
    assert encode(cluster("a", service="b")).endpoints == "b"
    assert encode(Resource.of(CDS, "s", static)).endpoints is None
    assert encode(Resource.of(CDS, "broken", b"\xff")).endpoints is None
    assert encode(Resource.of(EDS, "a", cluster("a").body)).endpoints is None
