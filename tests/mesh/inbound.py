"""What comes to a captured pod: tunnels of the mesh, ended here, and plain connections."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from meshgw.emit.resource import CLUSTER, LISTENER, Resource
from tests.mesh.document import (
    INBOUND,
    NOBODY,
    OUTBOUND,
    PLAIN,
    PLAIN_CLUSTER,
    Document,
    extension,
    log,
    original_cluster,
    original_destination,
    resource,
    tcp,
    tls,
)

_APP: Final = "app"
_UPGRADE: Final = "CONNECT"


def inbound(addresses: Sequence[str], trust_domain: str) -> Iterator[Resource]:
    """Build everything that a node proxy needs for what comes to a pod at these addresses."""
    yield resource(LISTENER, _tunnels(addresses, trust_domain))
    yield resource(LISTENER, _plain())
    # Where a tunnel leads is in the request, and has been found to be this pod.
    yield resource(
        CLUSTER,
        original_cluster(_APP, original_dst_lb_config={"use_http_header": True, "http_header_name": ":authority"}),
    )
    yield resource(CLUSTER, original_cluster(PLAIN_CLUSTER))
    yield resource(CLUSTER, {"name": NOBODY, "type": "STATIC", "connect_timeout": "5s"})


def _plain() -> Document:
    # A connection to the proxy's own port would go round for ever.
    own = {"filter_chain_match": {"destination_port": PLAIN}, "name": NOBODY, "filters": [tcp(NOBODY)]}
    return {
        "name": "plain",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": PLAIN}},
        "listener_filters": [original_destination()],
        "filter_chains": [own],
        "default_filter_chain": {"name": PLAIN_CLUSTER, "filters": [tcp(PLAIN_CLUSTER)]},
    }


def _tunnels(addresses: Sequence[str], trust_domain: str) -> Document:
    peers = [{"prefix": f"spiffe://{trust_domain}/"}]
    socket = tls("DownstreamTlsContext", peers, require_client_certificate=True)
    return {
        "name": "inbound",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": INBOUND}},
        "filter_chains": [{"transport_socket": socket, "filters": [_manager(addresses)]}],
    }


def _manager(addresses: Sequence[str]) -> Document:
    line = "tunnel to=%REQ(:AUTHORITY)% from=%DOWNSTREAM_PEER_URI_SAN% status=%RESPONSE_CODE% flags=%RESPONSE_FLAGS%"
    return extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="inbound",
        access_log=log(line),
        codec_type="HTTP2",
        http2_protocol_options={"allow_connect": True},
        upgrade_configs=[{"upgrade_type": _UPGRADE}],
        stream_idle_timeout="0s",
        route_config={"name": "inbound", "virtual_hosts": [_routes(addresses)]},
        http_filters=[extension("envoy.filters.http.router", "filters.http.router.v3.Router")],
    )


def _routes(addresses: Sequence[str]) -> Document:
    hosts = [f"[{address}]" if ":" in address else address for address in addresses]
    own = "|".join(map(re.escape, hosts))
    refused = {"direct_response": {"status": 400}}
    leads = {"cluster": _APP, "timeout": "0s", "upgrade_configs": [{"upgrade_type": _UPGRADE, "connect_config": {}}]}
    return {
        "name": "all",
        "domains": ["*"],
        "routes": [
            {"match": _connect(f"({own}):({OUTBOUND}|{PLAIN}|{INBOUND})"), **refused},
            {"match": _connect(f"({own}):[0-9]+"), "route": leads},
            {"match": {"connect_matcher": {}}, **refused},
            {"match": {"prefix": "/"}, **refused},
        ],
    }


def _connect(authority: str) -> Document:
    header = {"name": ":authority", "string_match": {"safe_regex": {"regex": authority}}}
    return {"connect_matcher": {}, "headers": [header]}
