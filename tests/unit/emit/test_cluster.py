from __future__ import annotations

from typing import Any

import pytest

from meshgw.emit.cluster import HTTP_OPTIONS, UNLIMITED, build_cluster
from meshgw.ir import backend as ir
from meshgw.ir.backend import SanKind, UpstreamProtocol, UpstreamTls
from meshgw.ir.keys import ClusterKey
from meshgw.protos import Cluster, InternalUpstreamTransport, UpstreamHttp, UpstreamTlsContext
from tests.unit.emit.world import GATEWAY, target

TLS = UpstreamTls(sni="app.test", bundles=("bundle/configmap/default/roots",))


def cluster(**fields: Any) -> Cluster:
    return build_cluster(ir.Cluster(key=ClusterKey(GATEWAY, target()), **fields))


def http(built: Cluster) -> UpstreamHttp:
    return UpstreamHttp.FromString(built.typed_extension_protocol_options[HTTP_OPTIONS].value)


def tls(built: Cluster) -> UpstreamTlsContext:
    return UpstreamTlsContext.FromString(built.transport_socket.typed_config.value)


def test_endpoints_come_by_eds_under_the_clusters_name() -> None:
    built = cluster()
    assert (built.name, built.type) == ("service/default/app/80", Cluster.EDS)
    assert built.eds_cluster_config.service_name == ""
    assert built.eds_cluster_config.eds_config.HasField("ads")
    assert built.circuit_breakers.thresholds[0].max_requests.value == UNLIMITED
    assert built.common_lb_config.HasField("healthy_panic_threshold")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "http_protocol_options"),
        ({"protocol": UpstreamProtocol.HTTP2}, "http2_protocol_options"),
        ({"protocol": UpstreamProtocol.HTTP2, "tls": TLS}, "http2_protocol_options"),
    ],
)
def test_the_protocol_is_explicit(fields: dict[str, Any], expected: str) -> None:
    assert http(cluster(**fields)).explicit_http_config.WhichOneof("protocol_config") == expected


def test_http_over_tls_is_negotiated() -> None:
    built = cluster(tls=TLS)
    assert http(built).WhichOneof("upstream_protocol_options") == "auto_config"
    assert list(tls(built).common_tls_context.alpn_protocols) == ["h2", "http/1.1"]


def test_websockets_over_tls_are_not_negotiated_away() -> None:
    built = cluster(protocol=UpstreamProtocol.WEBSOCKET, tls=TLS)
    assert list(tls(built).common_tls_context.alpn_protocols) == ["http/1.1"]
    assert http(built).explicit_http_config.WhichOneof("protocol_config") == "http_protocol_options"


def test_other_protocols_have_no_http_options() -> None:
    for protocol in (UpstreamProtocol.TCP, UpstreamProtocol.UDP):
        assert dict(cluster(protocol=protocol).typed_extension_protocol_options) == {}
    assert list(tls(cluster(protocol=UpstreamProtocol.TCP, tls=TLS)).common_tls_context.alpn_protocols) == []


def test_a_backend_must_prove_its_host_name_or_one_of_its_names() -> None:
    context = tls(cluster(tls=TLS))
    combined = context.common_tls_context.combined_validation_context
    (name,) = combined.default_validation_context.match_typed_subject_alt_names
    assert (context.sni, name.matcher.exact) == ("app.test", "app.test")
    assert combined.validation_context_sds_secret_config.name == TLS.bundles[0]
    sans = ((SanKind.URI, "spiffe://td/a"), (SanKind.DNS, "b.test"))
    named = tls(cluster(tls=UpstreamTls(sni="x", system_roots=True, sans=sans, client_certificate="certificate/a/b")))
    rules = named.common_tls_context.combined_validation_context
    assert [item.matcher.exact for item in rules.default_validation_context.match_typed_subject_alt_names] == [
        "spiffe://td/a",
        "b.test",
    ]
    assert rules.validation_context_sds_secret_config.name == "system-roots"
    assert named.common_tls_context.tls_certificate_sds_secret_configs[0].name == "certificate/a/b"


@pytest.mark.parametrize("fields", [{"refused": "bad policy"}, {"tls": UpstreamTls(sni="app.test")}])
def test_what_may_not_be_reached_has_no_endpoints(fields: dict[str, Any]) -> None:
    built = cluster(**fields)
    assert built.type == Cluster.STATIC
    assert len(built.load_assignment.endpoints) == 0


@pytest.mark.parametrize("inner", [None, TLS])
def test_tunnelled_endpoints_are_chosen_by_their_metadata(inner: UpstreamTls | None) -> None:
    built = cluster(hbone=True, tls=inner)
    (choice,) = built.transport_socket_matches
    assert dict(choice.match) == {"tunnel": "http"}
    tunnel = InternalUpstreamTransport.FromString(choice.transport_socket.typed_config.value)
    assert [item.name for item in tunnel.passthrough_metadata] == ["envoy.filters.listener.original_dst", "meshgw"]
    assert built.HasField("transport_socket") == (inner is not None)
    if inner is not None:
        assert tunnel.transport_socket == built.transport_socket
    else:
        assert tunnel.transport_socket.name == "envoy.transport_sockets.raw_buffer"
