"""The inner half of a waypoint: the listener inside of tunnels, by virtual IP and port to the service's own chain.

It is one Envoy listener whose parts are kept per service and joined, so that a service costs its own parts and a copy
of the others. No protocol is ever guessed: an inspector would keep servers that speak first waiting.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from meshgw.api.meta import Key
from meshgw.emit.cluster import CONNECT_TIMEOUT, tunnel_socket
from meshgw.emit.connect import ORIGINAL_DST, STRINGS, state
from meshgw.emit.hbone import STATE_IDENTITY
from meshgw.emit.hcm import access_log, connection_manager
from meshgw.emit.listener import listener_filter
from meshgw.emit.rbac import authorization_filters
from meshgw.emit.resource import LISTENER, Resource, content_version
from meshgw.emit.tables import INBOUND, Inbound
from meshgw.emit.tls import transport_socket
from meshgw.engine import View
from meshgw.ir.mesh import AppProtocol, WaypointPort, WaypointService, WaypointWorkload
from meshgw.names import LISTENER_CONNECT_ORIGINATE, LISTENER_MAIN_INTERNAL, STATE_PEER_PRINCIPAL
from meshgw.protos import (
    Address,
    Cluster,
    ClusterLoadAssignment,
    DestinationIPInput,
    DestinationPortInput,
    Endpoint,
    EnvoyInternalAddress,
    Filter,
    FilterChain,
    IPMatcher,
    LbEndpoint,
    Listener,
    LocalityLbEndpoints,
    Matcher,
    NetworkSetFilterState,
    OriginalDst,
    RawBuffer,
    StringValue,
    TcpProxy,
    XdsExtension,
    any_of,
    duration,
    encode,
    field,
)
from meshgw.resolve.hostnames import service_route_config
from meshgw.resolve.mesh import owned_addresses, service_target

CLUSTER_TUNNEL: Final = "workload/tunnel"
"""To the workload that a tunnel was opened to, by HBONE."""
CLUSTER_DIRECT: Final = "workload/direct"
"""The same as it is, for workloads that do not speak HBONE."""

_PRINCIPAL: Final = {"principal": f"%FILTER_STATE({STATE_PEER_PRINCIPAL}:PLAIN)%"}

# Field numbers of the wire form that is joined here.
_FILTER_CHAINS: Final = 3  # Listener.filter_chains
_FILTER_CHAIN_MATCHER: Final = 32  # Listener.filter_chain_matcher
_MATCHER_TREE: Final = 2  # Matcher.matcher_tree
_INPUT: Final = 1  # MatcherTree.input
_CUSTOM_MATCH: Final = 4  # MatcherTree.custom_match
_NAME, _TYPED_CONFIG = 1, 2  # of TypedExtensionConfig
_TYPE_URL, _VALUE = 1, 2  # of Any


# --- Parts of the listener -----------------------------------------------------------------------------------------


def emit_inbound(
    view: View, _table: Any, key: tuple[Key, Key], row: WaypointService | WaypointWorkload
) -> Iterable[tuple[tuple[Key, str, Key], Inbound]]:
    """Build the chains of a service's ports, or of a workload, and what leads to them."""
    gateway, name = key
    addresses = owned_addresses(view, row)
    if not addresses:
        return
    if isinstance(row, WaypointService):
        if not row.ports:
            return
        kind, chains, leads = "Service", [_service_chain(row, port) for port in row.ports], _by_port(row)
    else:
        chain = _workload_chain(row)
        kind, chains, leads = "Pod", [chain], _to_chain(chain.name)
    ranges = encode(IPMatcher(range_matchers=[_ranges(addresses, leads)]))
    joined = b"".join(field(_FILTER_CHAINS, encode(chain)) for chain in chains)
    digest = hashlib.blake2b(ranges + joined, digest_size=16).digest()
    yield (gateway, kind, name), Inbound(ranges, joined, digest)


def chain_name(row: WaypointService, port: WaypointPort) -> str:
    """The name of a service port's chain, as Istio's waypoints have it."""
    return f"inbound-vip|{port.port}|{port.protocol.value}|{row.hostname}"


def _service_chain(row: WaypointService, port: WaypointPort) -> FilterChain:
    config = service_route_config(row.gateway, row.service, port.port).name
    if port.protocol is AppProtocol.HTTP:
        served = connection_manager(
            config, stat_prefix=config, edge=False, authorization=authorization_filters(), log=_PRINCIPAL
        )
    else:
        served = _tcp_proxy(service_target(row.service, port).cluster, stat_prefix=config)
    return FilterChain(name=chain_name(row, port), filters=[served])


def _workload_chain(row: WaypointWorkload) -> FilterChain:
    """All ports of a workload as plain connections: its Service, if it has one, is where its routes are."""
    name = f"workload/{row.pod}"
    if not row.hbone:
        return FilterChain(name=name, filters=[_tcp_proxy(CLUSTER_DIRECT, stat_prefix=name)])
    state_of_tunnel = NetworkSetFilterState(
        on_new_connection=[
            state(f"{ORIGINAL_DST}.local_ip", "%DOWNSTREAM_LOCAL_ADDRESS%"),
            state(STATE_IDENTITY, row.identity, factory=STRINGS),
        ]
    )
    filters = [
        Filter(name="envoy.filters.network.set_filter_state", typed_config=any_of(state_of_tunnel)),
        _tcp_proxy(CLUSTER_TUNNEL, stat_prefix=name),
    ]
    return FilterChain(name=name, filters=filters)


def _tcp_proxy(cluster: str, *, stat_prefix: str) -> Filter:
    proxy = TcpProxy(stat_prefix=stat_prefix, cluster=cluster, access_log=[access_log(http=False, extra=_PRINCIPAL)])
    return Filter(name="envoy.filters.network.tcp_proxy", typed_config=any_of(proxy))


def _ranges(addresses: Sequence[str], leads: Matcher.OnMatch) -> IPMatcher.IPRangeMatcher:
    built = IPMatcher.IPRangeMatcher(on_match=leads)
    for host in addresses:
        built.ranges.add(address_prefix=host, prefix_len={"value": ipaddress.ip_address(host).max_prefixlen})
    return built


def _by_port(row: WaypointService) -> Matcher.OnMatch:
    ports = {str(port.port): _to_chain(chain_name(row, port)) for port in row.ports}
    tree = Matcher.MatcherTree(input=_input("port", DestinationPortInput()))
    for port, chain in ports.items():
        tree.exact_match_map.map[port].CopyFrom(chain)
    return Matcher.OnMatch(matcher=Matcher(matcher_tree=tree))


def _to_chain(name: str) -> Matcher.OnMatch:
    return Matcher.OnMatch(action=XdsExtension(name=name, typed_config=any_of(StringValue(value=name))))


def _input(name: str, config: Any) -> XdsExtension:
    return XdsExtension(name=name, typed_config=any_of(config))


# --- The listener and its clusters ---------------------------------------------------------------------------------


def internal_listener(view: View, gateway: Key) -> Resource | None:
    """The joined listener; None while there is nothing to serve, for an empty matcher is no valid one."""
    parts = [part for _key, part in view.by(INBOUND, "gateway", gateway)]
    if not parts:
        return None
    head = _head()
    matcher = join_matcher([part.ranges for part in parts])
    body = b"".join((head, *[part.chains for part in parts], field(_FILTER_CHAIN_MATCHER, matcher)))
    version = content_version(head, b"".join([part.digest for part in parts]))
    return Resource.of(LISTENER, LISTENER_MAIN_INTERNAL, body, version=version)


def join_matcher(ranges: Iterable[bytes]) -> bytes:
    """The filter chain matcher of these parts in wire form."""
    matcher = b"".join(ranges)
    type_url = any_of(IPMatcher()).type_url.encode()
    typed = field(_TYPE_URL, type_url) + field(_VALUE, matcher)
    custom = field(_NAME, b"ip") + field(_TYPED_CONFIG, typed)
    tree = field(_INPUT, encode(_input("ip", DestinationIPInput()))) + field(_CUSTOM_MATCH, custom)
    return field(_MATCHER_TREE, tree)


@lru_cache(maxsize=1)
def _head() -> bytes:
    built = Listener(
        name=LISTENER_MAIN_INTERNAL,
        listener_filters=[listener_filter("envoy.filters.listener.original_dst", OriginalDst())],
    )
    built.internal_listener.SetInParent()
    return encode(built)


def internal_cluster() -> Cluster:
    """The way from the tunnel's end into the internal listener."""
    return _to_listener(LISTENER_MAIN_INTERNAL, LISTENER_MAIN_INTERNAL)


def tunnel_cluster() -> Cluster:
    """The way to a workload's own address; the chain before it says which, and who must be there."""
    return _to_listener(CLUSTER_TUNNEL, LISTENER_CONNECT_ORIGINATE)


def direct_cluster() -> Cluster:
    """The address that the client named, without a tunnel."""
    return Cluster(
        name=CLUSTER_DIRECT,
        type=Cluster.ORIGINAL_DST,
        lb_policy=Cluster.CLUSTER_PROVIDED,
        connect_timeout=duration(CONNECT_TIMEOUT),
    )


def _to_listener(name: str, listener: str) -> Cluster:
    endpoint = Endpoint(address=Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name=listener)))
    return Cluster(
        name=name,
        type=Cluster.STATIC,
        connect_timeout=duration(CONNECT_TIMEOUT),
        transport_socket=tunnel_socket(transport_socket("envoy.transport_sockets.raw_buffer", RawBuffer())),
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=endpoint)])]
        ),
    )
