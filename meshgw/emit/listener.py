"""Envoy listeners: one for each bound port of a Gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from meshgw import names
from meshgw.emit.action import NO_CLUSTER
from meshgw.emit.chains import tcp_chains
from meshgw.emit.hcm import access_log
from meshgw.emit.resource import LISTENER, Resource
from meshgw.engine import View
from meshgw.ir import gateway as ir
from meshgw.ir.gateway import Binding, Protocol
from meshgw.ir.keys import ListenerKey, PortKey, ResourceKey
from meshgw.ir.route import L4Binding
from meshgw.protos import (
    Address,
    Listener,
    ListenerFilter,
    Matcher,
    Message,
    SocketAddress,
    TlsInspector,
    UdpListenerConfig,
    UdpProxyConfig,
    UdpRoute,
    XdsExtension,
    any_of,
    duration,
    encode,
)
from meshgw.resolve.tables import BINDINGS, L4_BINDINGS

BUFFER_LIMIT: Final = 32_768
_L4: Final = frozenset({Protocol.TLS, Protocol.TCP, Protocol.UDP})
_TLS: Final = frozenset({Protocol.TLS, Protocol.HTTPS})
_PRECEDENCE: Final = {Protocol.HTTP: 0, Protocol.HTTPS: 1, Protocol.TLS: 2, Protocol.TCP: 3, Protocol.UDP: 4}


def group_ports(key: ListenerKey, row: ir.Listener) -> Iterable[PortKey]:
    """The port of a listener that serves; HBONE is the waypoint's business."""
    if row.serving and row.protocol in _PRECEDENCE:
        yield PortKey(key.gateway, "UDP" if row.protocol is Protocol.UDP else "TCP", row.port)


def emit_port(
    view: View, port: PortKey, members: Mapping[ListenerKey, ir.Listener]
) -> Iterable[tuple[ResourceKey, Resource]]:
    """Build the Envoy listener of a port from all listeners on it."""
    listeners = sorted(members.values(), key=_order)
    bindings = {
        row.key: binding
        for row in listeners
        if row.protocol in _L4 and (binding := view.get(L4_BINDINGS, row.key)) is not None
    }
    place = view.get(BINDINGS, port.gateway) or Binding()
    if port.transport == "UDP":
        built = _udp(port, place, bindings.get(listeners[0].key))
    else:
        built = _tcp(port, place, listeners, bindings)
    key = ResourceKey(port.gateway, LISTENER, built.name)
    yield key, Resource.of(LISTENER, built.name, encode(built))


def address(host: str, port: int, *, udp: bool = False) -> Address:
    """A socket address; `::` means all addresses of both families."""
    protocol = SocketAddress.UDP if udp else SocketAddress.TCP
    both = host == names.ANY_ADDRESS
    return Address(socket_address=SocketAddress(protocol=protocol, address=host, port_value=port, ipv4_compat=both))


def listener_filter(name: str, config: Message) -> ListenerFilter:
    """A listener filter."""
    return ListenerFilter(name=name, typed_config=any_of(config))


def _order(row: ir.Listener) -> tuple[int, int, ListenerKey]:
    return (_PRECEDENCE[row.protocol or Protocol.TCP], row.precedence, row.key)


def _tcp(
    port: PortKey, place: Binding, listeners: list[ir.Listener], bindings: Mapping[ListenerKey, L4Binding]
) -> Listener:
    built = Listener(
        name=port.resource,
        address=address(place.bind, place.port(port.port)),
        per_connection_buffer_limit_bytes={"value": BUFFER_LIMIT},
        filter_chains=tcp_chains(listeners, bindings, stat_prefix=port.resource),
    )
    if any(row.protocol in _TLS for row in listeners):
        built.listener_filters.append(listener_filter("envoy.filters.listener.tls_inspector", TlsInspector()))
    return built


def _udp(port: PortKey, place: Binding, binding: L4Binding | None) -> Listener:
    """A datagram port: a client's datagrams stay with one endpoint while they keep coming."""
    backends = binding.chains[0].backends if binding is not None and binding.chains else ()
    target = next((backend.target for backend in backends if backend.target is not None and backend.weight), None)
    route = UdpRoute(cluster=NO_CLUSTER if target is None else target.cluster)
    proxy = UdpProxyConfig(
        stat_prefix=port.resource,
        matcher=Matcher(on_no_match=Matcher.OnMatch(action=XdsExtension(name="route", typed_config=any_of(route)))),
        idle_timeout=duration(60_000),
        access_log=[access_log(http=False)],
    )
    return Listener(
        name=port.resource,
        address=address(place.bind, place.port(port.port), udp=True),
        udp_listener_config=UdpListenerConfig(),
        listener_filters=[listener_filter("envoy.filters.udp_listener.udp_proxy", proxy)],
    )
