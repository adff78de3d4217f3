"""How the Envoy of a captured pod starts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.mesh.capture import MARK
from tests.mesh.document import Document, discovered, extension, typed

_SOCKET, _MARK = 1, 36
"""SOL_SOCKET and SO_MARK."""

_RESETS: Final = (
    "envoy.reloadable_features.enable_send_rst_on_user_space_socket",
    "envoy.reloadable_features.map_http_stream_reset_to_tcp_rst",
    "envoy.reloadable_features.propagate_upstream_rst_through_tunneled_tcp_proxy",
)
"""What turns the end of a tunnel into a reset: of an answer whose server closes, the client would lose the rest."""


def bootstrap(node: str, *, discovery: Path, admin: Path) -> Document:
    """Return the configuration of an Envoy that has everything else from the socket `discovery`."""
    http2 = "upstreams.http.v3.HttpProtocolOptions"
    options = typed(http2, explicit_http_config={"http2_protocol_options": {}})
    mark = {"name": _MARK, "level": _SOCKET, "int_value": MARK, "state": "STATE_PREBIND"}
    return {
        "node": {"id": node, "cluster": "node-proxy"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "discovery"}}],
            },
            "lds_config": discovered(),
            "cds_config": discovered(),
        },
        "layered_runtime": {"layers": [{"name": "static", "static_layer": dict.fromkeys(_RESETS, False)}]},
        "cluster_manager": {"upstream_bind_config": {"socket_options": [mark]}},
        "bootstrap_extensions": [
            extension("envoy.bootstrap.internal_listener", "bootstrap.internal_listener.v3.InternalListener")
        ],
        "static_resources": {
            "clusters": [
                {
                    "name": "discovery",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "typed_extension_protocol_options": {f"envoy.extensions.{http2}": options},
                    "load_assignment": {
                        "cluster_name": "discovery",
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(discovery)}}}}]}
                        ],
                    },
                }
            ]
        },
    }
