"""Envoy resources written as documents: the parts that the two sides of a node proxy share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from meshgw.emit.resource import CLUSTER, ENDPOINTS, LISTENER, SECRET, Resource
from meshgw.protos import Cluster, ClusterLoadAssignment, Listener, Secret, encode

Document = Mapping[str, Any]

OUTBOUND, INBOUND, PLAIN = 15001, 15008, 15006
"""The ports of a node proxy in a pod's network namespace, as ztunnel has them."""

PLAIN_CLUSTER: Final = "plain"
"""Leads in plain TCP to where a connection was meant to go."""

NOBODY: Final = "nobody"
"""Leads nowhere: for connections to the proxy itself."""

_MESSAGES: Final[Mapping[str, type[Message]]] = {
    LISTENER: Listener,
    CLUSTER: Cluster,
    ENDPOINTS: ClusterLoadAssignment,
    SECRET: Secret,
}
_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"


def resource(type_url: str, document: Document) -> Resource:
    """Return a document as what the xDS server sends; raises ParseError."""
    message = ParseDict(dict(document), _MESSAGES[type_url]())
    name = document["cluster_name"] if type_url == ENDPOINTS else document["name"]
    return Resource.of(type_url, name, encode(message))


def typed(kind: str, **fields: Any) -> Document:
    """Return the configuration of an extension, `filters.network.tcp_proxy.v3.TcpProxy` and the like."""
    return {"@type": f"{_EXTENSIONS}.{kind}", **fields}


def extension(name: str, kind: str, **fields: Any) -> Document:
    """Return a named extension with its configuration."""
    return {"name": name, "typed_config": typed(kind, **fields)}


def original_destination() -> Document:
    """Return the listener filter that knows where a redirected connection was meant to go."""
    return extension("envoy.filters.listener.original_dst", "filters.listener.original_dst.v3.OriginalDst")


def log(line: str) -> Sequence[Document]:
    """Return an access log of one line of text per connection or request."""
    text = {"text_format_source": {"inline_string": f"{line}\n"}}
    return [extension("stdout", "access_loggers.stream.v3.StdoutAccessLog", log_format=text)]


def tcp(cluster: str, *, tunnel: bool = False) -> Document:
    """Return the filter that passes a connection to a cluster, in a tunnel to where it was meant to go."""
    line = "connection to=%DOWNSTREAM_LOCAL_ADDRESS% by=%UPSTREAM_CLUSTER% at=%UPSTREAM_HOST% flags=%RESPONSE_FLAGS%"
    fields: dict[str, Any] = {
        "stat_prefix": cluster,
        "cluster": cluster,
        "access_log": log(f"{line} failure=%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    }
    if tunnel:
        fields["tunneling_config"] = {"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"}
    return extension("envoy.filters.network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", **fields)


def tls(kind: str, names: Iterable[Document], **fields: Any) -> Document:
    """Return a transport socket of the mesh: TLS 1.3, the pod's certificate, and a peer with one of these names.

    `kind` is `UpstreamTlsContext` or `DownstreamTlsContext`; no names would be any name, so there must be one.
    """
    matchers = [{"san_type": "URI", "matcher": name} for name in names]
    if not matchers:
        raise ValueError("whoever is there would be trusted")
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [_secret("default")],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": matchers},
            "validation_context_sds_secret_config": _secret("ROOTCA"),
        },
    }
    where = f"transport_sockets.tls.v3.{kind}"
    return extension("envoy.transport_sockets.tls", where, common_tls_context=context, **fields)


def original_cluster(name: str, **fields: Any) -> Document:
    """Return a cluster that leads to where a connection was meant to go."""
    return {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "cleanup_interval": "60s",
        **fields,
    }


def http2_tunnels() -> Document:
    """Return the options of a cluster whose connections carry tunnels."""
    options = {"explicit_http_config": {"http2_protocol_options": {"allow_connect": True}}}
    kind = "upstreams.http.v3.HttpProtocolOptions"
    return {f"envoy.extensions.{kind}": typed(kind, **options)}


def secrets(chain: str, key: str, roots: str) -> list[Resource]:
    """Return the certificate of a pod and what it trusts, all in PEM."""
    own = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
    trusted = {"trusted_ca": {"inline_string": roots}}
    return [
        resource(SECRET, {"name": "default", "tls_certificate": own}),
        resource(SECRET, {"name": "ROOTCA", "validation_context": trusted}),
    ]


def _secret(name: str) -> Document:
    return {"name": name, "sds_config": discovered()}


def discovered() -> Document:
    """Return the source that is the stream of everything."""
    return {"ads": {}, "resource_api_version": "V3"}
