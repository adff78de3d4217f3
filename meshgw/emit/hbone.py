"""The sending half of HBONE: one internal listener per Gateway that turns a connection into a verified tunnel.

A cluster hands a connection over with the endpoint's metadata. The listener opens an HTTP/2 CONNECT over mutual TLS to
the endpoint's address, port 15008, and the far end must prove the very identity that the endpoint's workload has. A
connection that comes without one fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from meshgw.api.meta import Key
from meshgw.emit.cluster import CONNECT_TIMEOUT, HTTP_OPTIONS, MESHGW
from meshgw.emit.hcm import access_log
from meshgw.emit.listener import listener_filter
from meshgw.emit.resource import CLUSTER, LISTENER, Resource
from meshgw.emit.secret import UseKey
from meshgw.emit.tls import san, sds, transport_socket, validate
from meshgw.engine import View
from meshgw.ir.backend import SanKind, SecretUse
from meshgw.ir.gateway import Settings
from meshgw.ir.keys import ResourceKey
from meshgw.names import HBONE_PORT, LISTENER_CONNECT_ORIGINATE, SDS_MESH_ROOTS, SDS_WORKLOAD_CERTIFICATE
from meshgw.protos import (
    CertificateValidationContext,
    Cluster,
    CommonTlsContext,
    Filter,
    FilterChain,
    Http2ProtocolOptions,
    Listener,
    NetworkSetFilterState,
    OriginalDst,
    SubstitutionFormatString,
    TcpProxy,
    TlsParameters,
    TransportSocket,
    UpstreamHttp,
    UpstreamTlsContext,
    any_of,
    duration,
    encode,
)
from meshgw.resolve.settings import read_settings

__all__ = [
    "STATE_IDENTITY",
    "emit_originate",
    "group_originate",
    "mesh_context",
    "mesh_tls",
    "originate_cluster",
    "originate_listener",
    "trusted_identities",
]

STATE_IDENTITY: Final = "meshgw.identity"
"""Filter state that says who the far end must be, where no endpoint's metadata does."""
_UPSTREAM_SANS: Final = "envoy.network.upstream_subject_alt_names"
_WINDOW: Final = 1_048_576


def group_originate(key: UseKey, _row: SecretUse) -> Iterable[Key]:
    """The Gateway of whatever uses the mesh certificate: such Gateways open tunnels."""
    return (key[0],) if key[1] == SDS_WORKLOAD_CERTIFICATE else ()


def emit_originate(
    view: View, gateway: Key, _members: Mapping[UseKey, SecretUse]
) -> Iterable[tuple[ResourceKey, Resource]]:
    """Build the listener and the cluster behind it."""
    settings = read_settings(view)
    for type_url, built in ((LISTENER, originate_listener()), (CLUSTER, originate_cluster(settings))):
        key = ResourceKey(gateway, type_url, built.name)
        yield key, Resource.of(type_url, built.name, encode(built))


def originate_listener() -> Listener:
    """The internal listener. Every connection brings the identity that the far end must prove.

    It comes as the endpoint's metadata, or as filter state from a chain that knows the workload. A connection that has
    neither gets the text for nothing, "-", which nobody can prove.
    """
    state: Any = NetworkSetFilterState()
    state.on_new_connection.add(object_key=_UPSTREAM_SANS, format_string=_text(f"%DYNAMIC_METADATA({MESHGW}:san)%"))
    state.on_new_connection.add(
        object_key=_UPSTREAM_SANS,
        format_string=_text(f"%FILTER_STATE({STATE_IDENTITY}:PLAIN)%", omit_empty=True),
        skip_if_empty=True,
    )
    proxy = TcpProxy(
        stat_prefix=LISTENER_CONNECT_ORIGINATE,
        cluster=LISTENER_CONNECT_ORIGINATE,
        tunneling_config=TcpProxy.TunnelingConfig(hostname="%DOWNSTREAM_LOCAL_ADDRESS%"),
        access_log=[access_log(http=False, extra={"identity": f"%DYNAMIC_METADATA({MESHGW}:san)%"})],
    )
    built = Listener(
        name=LISTENER_CONNECT_ORIGINATE,
        use_original_dst={"value": False},
        listener_filters=[listener_filter("envoy.filters.listener.original_dst", OriginalDst())],
        filter_chains=[
            FilterChain(
                filters=[
                    Filter(name="envoy.filters.network.set_filter_state", typed_config=any_of(state)),
                    Filter(name="envoy.filters.network.tcp_proxy", typed_config=any_of(proxy)),
                ]
            )
        ],
    )
    built.internal_listener.SetInParent()
    return built


def originate_cluster(settings: Settings) -> Cluster:
    """The cluster that opens tunnels to whatever address a connection was meant for, on port 15008."""
    options = UpstreamHttp()
    options.explicit_http_config.http2_protocol_options.CopyFrom(
        Http2ProtocolOptions(
            allow_connect=True,
            initial_stream_window_size={"value": _WINDOW},
            initial_connection_window_size={"value": _WINDOW},
        )
    )
    built = Cluster(
        name=LISTENER_CONNECT_ORIGINATE,
        type=Cluster.ORIGINAL_DST,
        lb_policy=Cluster.CLUSTER_PROVIDED,
        connect_timeout=duration(CONNECT_TIMEOUT),
        cleanup_interval=duration(60_000),
        original_dst_lb_config=Cluster.OriginalDstLbConfig(upstream_port_override={"value": HBONE_PORT}),
        transport_socket=mesh_tls(settings),
    )
    built.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(any_of(options))
    return built


def mesh_tls(settings: Settings) -> TransportSocket:
    """Mutual TLS to identities of our trust domains; the one that a connection brings is demanded besides."""
    context = UpstreamTlsContext(common_tls_context=mesh_context(trusted_identities(settings)))
    return transport_socket("envoy.transport_sockets.tls", context)


def mesh_context(peers: CertificateValidationContext) -> CommonTlsContext:
    """TLS as the mesh speaks it: version 1.3, HTTP/2, our own certificate, and a condition on who the peer is."""
    context = CommonTlsContext(
        tls_params=TlsParameters(
            tls_minimum_protocol_version=TlsParameters.TLSv1_3, tls_maximum_protocol_version=TlsParameters.TLSv1_3
        ),
        alpn_protocols=["h2"],
        tls_certificate_sds_secret_configs=[sds(SDS_WORKLOAD_CERTIFICATE)],
    )
    validate(context, SDS_MESH_ROOTS, peers)
    return context


def trusted_identities(settings: Settings) -> CertificateValidationContext:
    """A condition on peers: a SPIFFE id of one of our trust domains."""
    return CertificateValidationContext(
        match_typed_subject_alt_names=[
            san(SanKind.URI, prefix=f"spiffe://{domain}/") for domain in settings.trust_domains
        ]
    )


def _text(format_string: str, *, omit_empty: bool = False) -> SubstitutionFormatString:
    built: Any = SubstitutionFormatString(omit_empty_values=omit_empty)
    built.text_format_source.inline_string = format_string
    return built
