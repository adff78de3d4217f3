"""Envoy clusters: one for each backend port that something names."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from meshgw.emit.resource import CLUSTER, Resource
from meshgw.emit.tls import ALPN_HTTP, transport_socket, upstream_roots, upstream_tls
from meshgw.engine import View
from meshgw.ir import backend as ir
from meshgw.ir.backend import UpstreamProtocol
from meshgw.ir.keys import ClusterKey, ResourceKey
from meshgw.protos import (
    CircuitBreakers,
    Cluster,
    ClusterLoadAssignment,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    InternalUpstreamTransport,
    MetadataKind,
    RawBuffer,
    Struct,
    TcpKeepalive,
    TransportSocket,
    UpstreamHttp,
    ads,
    any_of,
    duration,
    encode,
)

CONNECT_TIMEOUT: Final = 3_000
"""Milliseconds, TLS included. Three attempts together stay below the usual patience of clients."""
BUFFER_LIMIT: Final = 32_768
ORIGINAL_DST: Final = "envoy.filters.listener.original_dst"
"""Host metadata whose `local` is the address that a tunnel asks for."""
MESHGW: Final = "meshgw"
"""Host metadata whose `san` is the identity that a tunnel's far end must prove."""
HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
UNLIMITED: Final = 2**32 - 1
_ALPN: Final = {
    UpstreamProtocol.TCP: (),
    UpstreamProtocol.HTTP2: ("h2",),
    UpstreamProtocol.WEBSOCKET: ("http/1.1",),
}
_RETRIES: Final = 1024
_WINDOW: Final = 1_048_576


def emit_cluster(_view: View, key: ClusterKey, row: ir.Cluster) -> Iterable[tuple[ResourceKey, Resource]]:
    """Build a cluster."""
    name = key.target.cluster
    yield ResourceKey(key.gateway, CLUSTER, name), Resource.of(CLUSTER, name, encode(build_cluster(row)))


def build_cluster(row: ir.Cluster) -> Cluster:
    """The cluster; one that may not be reached has no endpoints, whatever EDS says."""
    name = row.key.target.cluster
    built = Cluster(
        name=name,
        connect_timeout=duration(CONNECT_TIMEOUT),
        per_connection_buffer_limit_bytes={"value": BUFFER_LIMIT},
        circuit_breakers=_unlimited(),
    )
    built.common_lb_config.healthy_panic_threshold.SetInParent()  # unready endpoints never get traffic
    if refused(row):
        built.type = Cluster.STATIC
        built.load_assignment.CopyFrom(ClusterLoadAssignment(cluster_name=name))
        return built
    built.type = Cluster.EDS
    built.eds_cluster_config.eds_config.CopyFrom(ads())
    if row.protocol is UpstreamProtocol.UDP:
        return built
    built.lb_policy = Cluster.LEAST_REQUEST
    built.ignore_health_on_host_removal = True
    built.upstream_connection_options.tcp_keepalive.CopyFrom(TcpKeepalive())
    negotiate = row.tls is not None and row.protocol is UpstreamProtocol.HTTP1
    if row.protocol is not UpstreamProtocol.TCP:
        built.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(_http(row.protocol, negotiate=negotiate))
    _set_transport(built, row)
    return built


def refused(row: ir.Cluster) -> bool:
    """Whether nothing of the cluster may be reached: so it was resolved, or nothing would verify its TLS."""
    return bool(row.refused) or (row.tls is not None and not upstream_roots(row.tls))


def tunnel_socket(inner: TransportSocket) -> TransportSocket:
    """The transport to `connect_originate`: it hands over where to and to whom; `inner` runs inside the tunnel."""
    kind = MetadataKind(host=MetadataKind.Host())
    transport = InternalUpstreamTransport(
        passthrough_metadata=[
            InternalUpstreamTransport.MetadataValueSource(kind=kind, name=name) for name in (ORIGINAL_DST, MESHGW)
        ],
        transport_socket=inner,
    )
    return transport_socket("envoy.transport_sockets.internal_upstream", transport)


def _set_transport(built: Cluster, row: ir.Cluster) -> None:
    inner = None
    if row.tls is not None:
        inner = upstream_tls(row.tls, alpn=_ALPN.get(row.protocol, ALPN_HTTP))
        built.transport_socket.CopyFrom(inner)
    if row.hbone:
        match = Struct()
        match.update({"tunnel": "http"})
        built.transport_socket_matches.append(
            Cluster.TransportSocketMatch(
                name="hbone",
                match=match,
                transport_socket=tunnel_socket(
                    inner or transport_socket("envoy.transport_sockets.raw_buffer", RawBuffer())
                ),
            )
        )


@lru_cache(maxsize=8)
def _http(protocol: UpstreamProtocol, *, negotiate: bool) -> object:
    http1 = Http1ProtocolOptions()
    http2 = Http2ProtocolOptions(
        max_concurrent_streams={"value": 100},
        initial_stream_window_size={"value": _WINDOW},
        initial_connection_window_size={"value": _WINDOW},
        allow_connect=True,
    )
    options = UpstreamHttp()
    if negotiate:
        options.auto_config.http_protocol_options.CopyFrom(http1)
        options.auto_config.http2_protocol_options.CopyFrom(http2)
    elif protocol is UpstreamProtocol.HTTP2:
        options.explicit_http_config.http2_protocol_options.CopyFrom(http2)
    else:
        options.explicit_http_config.http_protocol_options.CopyFrom(http1)
    return any_of(options)


@lru_cache(maxsize=1)
def _unlimited() -> CircuitBreakers:
    """Limits out of the way: the defaults of 1,024 requests would answer 503 under load."""
    limits = CircuitBreakers.Thresholds(
        max_connections={"value": UNLIMITED},
        max_pending_requests={"value": UNLIMITED},
        max_requests={"value": UNLIMITED},
        max_retries={"value": _RETRIES},
    )
    return CircuitBreakers(thresholds=[limits])
