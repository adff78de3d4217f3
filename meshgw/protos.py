"""Envoy's messages, and their wire form. The one module of the core that imports generated code.

The wire form is deterministic: equal messages have equal bytes, map entries sorted.
"""

from __future__ import annotations

from typing import Final

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, CidrRange, EnvoyInternalAddress, SocketAddress, TcpKeepalive
from envoy.config.core.v3.base_pb2 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    Locality,
    Metadata,
    RuntimeFractionalPercent,
    TransportSocket,
)
from envoy.config.core.v3.config_source_pb2 import AggregatedConfigSource, ApiVersion, ConfigSource
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.core.v3.grpc_service_pb2 import GrpcService
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.core.v3.http_uri_pb2 import HttpUri
from envoy.config.core.v3.protocol_pb2 import Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, FilterChainMatch, ListenerFilter
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.listener.v3.udp_listener_config_pb2 import UdpListenerConfig
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.rbac.v3.rbac_pb2 import Permission, Policy, Principal
from envoy.config.route.v3.route_components_pb2 import (
    DirectResponseAction,
    HeaderMatcher,
    QueryParameterMatcher,
    RedirectAction,
    RetryPolicy,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.access_loggers.stream.v3.stream_pb2 import StdoutAccessLog
from envoy.extensions.bootstrap.internal_listener.v3.internal_listener_pb2 import InternalListener
from envoy.extensions.common.matching.v3.extension_matcher_pb2 import (
    ExtensionWithMatcher,
    ExtensionWithMatcherPerRoute,
)
from envoy.extensions.filters.common.matcher.action.v3.skip_action_pb2 import SkipFilter
from envoy.extensions.filters.common.set_filter_state.v3.value_pb2 import FilterStateValue
from envoy.extensions.filters.http.composite.v3.composite_pb2 import Composite, ExecuteFilterAction
from envoy.extensions.filters.http.cors.v3.cors_pb2 import Cors, CorsPolicy
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import (
    BufferSettings,
    ExtAuthz,
    HttpService,
)
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.http.set_filter_state.v3.set_filter_state_pb2 import Config as HttpSetFilterState
from envoy.extensions.filters.http.stateful_session.v3.stateful_session_pb2 import (
    StatefulSession,
    StatefulSessionPerRoute,
)
from envoy.extensions.filters.listener.original_dst.v3.original_dst_pb2 import OriginalDst
from envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2 import TlsInspector
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from envoy.extensions.filters.network.set_filter_state.v3.set_filter_state_pb2 import Config as NetworkSetFilterState
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from envoy.extensions.filters.udp.udp_proxy.v3.route_pb2 import Route as UdpRoute
from envoy.extensions.filters.udp.udp_proxy.v3.udp_proxy_pb2 import UdpProxyConfig
from envoy.extensions.http.stateful_session.cookie.v3.cookie_pb2 import CookieBasedSessionState
from envoy.extensions.http.stateful_session.header.v3.header_pb2 import HeaderBasedSessionState
from envoy.extensions.matching.common_inputs.network.v3.network_inputs_pb2 import (
    DestinationIPInput,
    DestinationPortInput,
)
from envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate
from envoy.extensions.transport_sockets.internal_upstream.v3.internal_upstream_pb2 import InternalUpstreamTransport
from envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2 import RawBuffer
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    CertificateValidationContext,
    SubjectAltNameMatcher,
    TlsCertificate,
    TlsParameters,
)
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig, Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions as UpstreamHttp
from envoy.type.matcher.v3.filter_state_pb2 import FilterStateMatcher
from envoy.type.matcher.v3.path_pb2 import PathMatcher
from envoy.type.matcher.v3.regex_pb2 import RegexMatchAndSubstitute, RegexMatcher
from envoy.type.matcher.v3.string_pb2 import ListStringMatcher, StringMatcher
from envoy.type.metadata.v3.metadata_pb2 import MetadataKind
from envoy.type.v3.percent_pb2 import FractionalPercent
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, MessageToJson
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue, StringValue
from xds.core.v3.extension_pb2 import TypedExtensionConfig as XdsExtension
from xds.type.matcher.v3.ip_pb2 import IPMatcher
from xds.type.matcher.v3.matcher_pb2 import Matcher

__all__ = [
    "AccessLog",
    "Address",
    "AggregatedConfigSource",
    "AnyMessage",
    "ApiVersion",
    "BoolValue",
    "Bootstrap",
    "BufferSettings",
    "CertificateValidationContext",
    "CidrRange",
    "CircuitBreakers",
    "Cluster",
    "ClusterLoadAssignment",
    "CommonTlsContext",
    "Composite",
    "ConfigSource",
    "CookieBasedSessionState",
    "Cors",
    "CorsPolicy",
    "DataSource",
    "DecodeError",
    "DestinationIPInput",
    "DestinationPortInput",
    "DirectResponseAction",
    "DownstreamTlsContext",
    "Duration",
    "Endpoint",
    "EnvoyInternalAddress",
    "ExecuteFilterAction",
    "ExtAuthz",
    "ExtensionWithMatcher",
    "ExtensionWithMatcherPerRoute",
    "Filter",
    "FilterChain",
    "FilterChainMatch",
    "FilterStateMatcher",
    "FilterStateValue",
    "FractionalPercent",
    "GrpcService",
    "HeaderBasedSessionState",
    "HeaderMatcher",
    "HeaderValue",
    "HeaderValueOption",
    "HealthStatus",
    "Http1ProtocolOptions",
    "Http2ProtocolOptions",
    "HttpConnectionManager",
    "HttpFilter",
    "HttpProtocolOptions",
    "HttpRbac",
    "HttpRbacPerRoute",
    "HttpService",
    "HttpSetFilterState",
    "HttpUri",
    "IPMatcher",
    "InternalListener",
    "InternalUpstreamTransport",
    "LbEndpoint",
    "ListStringMatcher",
    "Listener",
    "ListenerFilter",
    "Locality",
    "LocalityLbEndpoints",
    "Matcher",
    "Message",
    "MessageToDict",
    "MessageToJson",
    "Metadata",
    "MetadataKind",
    "NetworkSetFilterState",
    "OriginalDst",
    "PathMatcher",
    "Permission",
    "Policy",
    "PreviousHostsPredicate",
    "Principal",
    "QueryParameterMatcher",
    "RawBuffer",
    "RbacRules",
    "Rds",
    "RedirectAction",
    "RegexMatchAndSubstitute",
    "RegexMatcher",
    "RetryPolicy",
    "Route",
    "RouteAction",
    "RouteConfiguration",
    "RouteMatch",
    "Router",
    "RuntimeFractionalPercent",
    "SdsSecretConfig",
    "Secret",
    "SkipFilter",
    "SocketAddress",
    "StatefulSession",
    "StatefulSessionPerRoute",
    "StdoutAccessLog",
    "StringMatcher",
    "StringValue",
    "Struct",
    "SubjectAltNameMatcher",
    "SubstitutionFormatString",
    "TcpKeepalive",
    "TcpProxy",
    "TlsCertificate",
    "TlsInspector",
    "TlsParameters",
    "TransportSocket",
    "TypedExtensionConfig",
    "UdpListenerConfig",
    "UdpProxyConfig",
    "UdpRoute",
    "UpstreamHttp",
    "UpstreamTlsContext",
    "VirtualHost",
    "WeightedCluster",
    "XdsExtension",
    "ads",
    "any_of",
    "duration",
    "encode",
    "field",
]

RbacRules = rbac_pb2.RBAC
HttpRbac = http_rbac_pb2.RBAC
HttpRbacPerRoute = http_rbac_pb2.RBACPerRoute

_TYPES: Final = "type.googleapis.com/"


def encode(message: Message) -> bytes:
    """The wire form, the same for equal messages."""
    return message.SerializeToString(deterministic=True)


def any_of(message: Message) -> AnyMessage:
    """The message in an `Any`, with the deterministic wire form inside."""
    return AnyMessage(type_url=_TYPES + message.DESCRIPTOR.full_name, value=encode(message))


def field(number: int, body: bytes) -> bytes:
    """A length-delimited field as it stands inside its message; concatenated fields in order are the message."""
    head = bytearray()
    for value in (number << 3 | 2, len(body)):
        rest = value
        while rest > 0x7F:
            head.append(rest & 0x7F | 0x80)
            rest >>= 7
        head.append(rest)
    return bytes(head) + body


def duration(milliseconds: int) -> Duration:
    """A duration of so many milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return Duration(seconds=seconds, nanos=rest * 1_000_000)


def ads() -> ConfigSource:
    """The place where every dynamic resource comes from: the one aggregated stream."""
    return ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)
