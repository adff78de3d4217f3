"""The outer half of a waypoint: HBONE ends here, and a tunnel is opened only to what the waypoint serves.

Every address and port has its own virtual host under the one spelling of its authority that node proxies use, so
another spelling of the same address (leading zeros, expanded IPv6) finds nothing and gets 404. For TCP ports and for
workloads authorization is decided here, before the first byte gets through in either direction. HTTP ports are open
here and decide per request, inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from meshgw.api.meta import Key
from meshgw.emit.action import answer
from meshgw.emit.filters import http_filter
from meshgw.emit.guards import place
from meshgw.emit.hbone import mesh_context, trusted_identities
from meshgw.emit.hcm import MAX_STREAMS, access_log
from meshgw.emit.listener import BUFFER_LIMIT, address
from meshgw.emit.rbac import authorization_filters, guards, peer_filter
from meshgw.emit.resource import ROUTE_CONFIGURATION, Resource, content_version
from meshgw.emit.tables import CONNECT_HOSTS, TUNNEL_GUARDS, VirtualHost
from meshgw.emit.tls import transport_socket
from meshgw.engine import View
from meshgw.ir.gateway import Binding, Settings
from meshgw.ir.mesh import AppProtocol, Authorization, WaypointPort, WaypointService, WaypointWorkload
from meshgw.names import (
    HBONE_PORT,
    LISTENER_CONNECT_TERMINATE,
    LISTENER_MAIN_INTERNAL,
    STATE_CONNECT_AUTHORITY,
    STATE_LOCAL_PRINCIPAL,
    STATE_PEER_PRINCIPAL,
)
from meshgw.protos import (
    DownstreamTlsContext,
    Duration,
    Filter,
    FilterChain,
    FilterStateValue,
    HeaderMatcher,
    Http2ProtocolOptions,
    HttpConnectionManager,
    HttpSetFilterState,
    Listener,
    Rds,
    RegexMatcher,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    Router,
    StringMatcher,
    TransportSocket,
    ads,
    any_of,
    duration,
    encode,
    field,
)
from meshgw.protos import VirtualHost as VirtualHostMessage
from meshgw.resolve.mesh import owned_addresses
from meshgw.resolve.tables import AUTHORIZATIONS

ORIGINAL_DST: Final = "envoy.filters.listener.original_dst"
STRINGS: Final = "envoy.hashable_string"
"""Filter state that is a string and takes part in choosing connections."""
OWN_PORT: Final = r".*:[1-9][0-9]{0,4}"
"""An authority whose port has its canonical form."""

_VIRTUAL_HOSTS: Final = 2  # field number of `virtual_hosts` in RouteConfiguration


def authority(host: str, port: int | str) -> str:
    """Address and port as node proxies spell them (RFC 5952)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- Virtual hosts -------------------------------------------------------------------------------------------------


def emit_connect_hosts(
    view: View, _table: Any, key: tuple[Key, Key], row: WaypointService | WaypointWorkload
) -> Iterable[tuple[tuple[Key, str, Key], VirtualHost]]:
    """Build the virtual hosts of a service's ports, or of a workload."""
    gateway, name = key
    addresses = owned_addresses(view, row)
    if not addresses:
        return
    if isinstance(row, WaypointService):
        kind, hosts = "Service", list(_of_service(view, row, addresses))
    else:
        kind, hosts = "Pod", [_of_workload(row, addresses)]
    body = b"".join(field(_VIRTUAL_HOSTS, encode(host)) for host in hosts)
    yield (gateway, kind, name), VirtualHost(body, hashlib.blake2b(body, digest_size=16).digest())


def close_tunnels(_table: Any, _key: Any, _row: Any, _error: Exception) -> Iterable[Any]:
    """Open no tunnel to what could not be computed by a bug of ours: its authorization may have changed."""
    return ()


def _of_service(view: View, row: WaypointService, addresses: Sequence[str]) -> Iterator[VirtualHostMessage]:
    authorization = view.get(AUTHORIZATIONS, (row.gateway, row.service))
    for port in row.ports:
        built = VirtualHostMessage(
            name=f"service/{row.service}/{port.port}",
            domains=[authority(host, port.port) for host in addresses],
            routes=[_tunnel()],
        )
        for name, config in guards(_decided_here(authorization, port), place(view, http=False, port=port.port)).items():
            built.typed_per_filter_config[name].CopyFrom(config)
        yield built


def _decided_here(authorization: Authorization | None, port: WaypointPort) -> Authorization | None:
    """The policies for the tunnel itself: none where requests are decided one by one."""
    return Authorization() if port.protocol is AppProtocol.HTTP else authorization


def _of_workload(row: WaypointWorkload, addresses: Sequence[str]) -> VirtualHostMessage:
    """All ports of a workload; its authorization is that of the whole route configuration."""
    return VirtualHostMessage(
        name=f"workload/{row.pod}",
        domains=[authority(host, "*") for host in addresses],
        routes=[_own_port(), _absent()],
    )


@lru_cache(maxsize=1)
def _tunnel() -> Route:
    """Into the internal listener."""
    action = RouteAction(cluster=LISTENER_MAIN_INTERNAL, timeout=Duration())
    action.upgrade_configs.add(upgrade_type="CONNECT").connect_config.SetInParent()
    return Route(match=RouteMatch(connect_matcher=RouteMatch.ConnectMatcher()), route=action)


@lru_cache(maxsize=1)
def _own_port() -> Route:
    built = Route()
    built.CopyFrom(_tunnel())
    spelling = StringMatcher(safe_regex=RegexMatcher(regex=OWN_PORT))
    built.match.headers.append(HeaderMatcher(name=":authority", string_match=spelling))
    return built


@lru_cache(maxsize=1)
def _absent() -> Route:
    return Route(match=RouteMatch(connect_matcher=RouteMatch.ConnectMatcher()), direct_response=answer(404))


def connect_routes(view: View, gateway: Key) -> Resource:
    """The joined RouteConfiguration. Its own authorization is that of workloads: the waypoint's own policies."""
    head = RouteConfiguration(name=LISTENER_CONNECT_TERMINATE)
    head.virtual_hosts.add(name="*", domains=["*"], routes=[_absent()])
    guard = view.get(TUNNEL_GUARDS, gateway) or b""
    start = encode(head) + guard
    hosts = [host for _key, host in view.by(CONNECT_HOSTS, "gateway", gateway)]
    body = b"".join((start, *[host.body for host in hosts]))
    version = content_version(start, b"".join([host.digest for host in hosts]))
    return Resource.of(ROUTE_CONFIGURATION, LISTENER_CONNECT_TERMINATE, body, version=version)


# --- Listener ------------------------------------------------------------------------------------------------------


def connect_listener(binding: Binding, settings: Settings) -> Listener:
    """The listener that node proxies connect to; it changes with the mesh's settings only."""
    chain = FilterChain(transport_socket=_tls(settings), filters=[_manager(settings)])
    built = Listener(
        name=LISTENER_CONNECT_TERMINATE,
        address=address(binding.bind, binding.port(HBONE_PORT)),
        per_connection_buffer_limit_bytes={"value": BUFFER_LIMIT},
        filter_chains=[chain],
    )
    built.connection_balance_config.exact_balance.SetInParent()
    return built


def _tls(settings: Settings) -> TransportSocket:
    """TLS with a certificate of the mesh on both sides."""
    context = DownstreamTlsContext(common_tls_context=mesh_context(trusted_identities(settings)))
    context.require_client_certificate.value = True
    return transport_socket("envoy.transport_sockets.tls", context)


def _manager(settings: Settings) -> Filter:
    filters = [
        http_filter("meshgw.state", _state()),
        peer_filter(settings.trust_domains),
        *authorization_filters(),
        http_filter("envoy.filters.http.router", Router(suppress_envoy_headers=True)),
    ]
    manager = HttpConnectionManager(
        stat_prefix=LISTENER_CONNECT_TERMINATE,
        codec_type=HttpConnectionManager.HTTP2,
        rds=Rds(config_source=ads(), route_config_name=LISTENER_CONNECT_TERMINATE),
        http_filters=filters,
        use_remote_address={"value": False},
        http2_protocol_options=Http2ProtocolOptions(
            allow_connect=True,
            max_concurrent_streams={"value": MAX_STREAMS},
            override_stream_error_on_invalid_http_message={"value": True},
            connection_keepalive={"interval": duration(10_000), "timeout": duration(20_000)},
        ),
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="CONNECT")],
        stream_idle_timeout=Duration(),
        access_log=[access_log(http=True)],
    )
    manager.internal_address_config.SetInParent()
    return Filter(name="envoy.filters.network.http_connection_manager", typed_config=any_of(manager))


def _state() -> HttpSetFilterState:
    """What the listener inside learns of the tunnel: addresses, and who is at its ends."""
    return HttpSetFilterState(
        on_request_headers=[
            state(f"{ORIGINAL_DST}.local_ip", "%REQUEST_HEADER(:AUTHORITY)%"),
            state(f"{ORIGINAL_DST}.remote_ip", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"),
            state(STATE_CONNECT_AUTHORITY, "%REQUEST_HEADER(:AUTHORITY)%", factory=STRINGS),
            state(STATE_PEER_PRINCIPAL, "%DOWNSTREAM_PEER_URI_SAN%", factory=STRINGS),
            state(STATE_LOCAL_PRINCIPAL, "%DOWNSTREAM_LOCAL_URI_SAN%", factory=STRINGS),
        ]
    )


def state(key: str, text: str, *, factory: str = "") -> FilterStateValue:
    """A piece of filter state that the next connection inside of Envoy sees, and no further one."""
    built = FilterStateValue(object_key=key, factory_key=factory, shared_with_upstream=FilterStateValue.ONCE)
    built.format_string.text_format_source.inline_string = text
    return built
