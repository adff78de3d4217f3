"""Filter chains of a port: who gets a connection, by SNI where there is TLS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from meshgw.emit.action import NO_CLUSTER
from meshgw.emit.hcm import access_log, connection_manager
from meshgw.emit.rbac import authorization_filters
from meshgw.emit.tls import ALPN_HTTP, downstream_tls
from meshgw.ir.gateway import Listener, Protocol, TlsMode
from meshgw.ir.keys import ListenerKey
from meshgw.ir.route import Backend, L4Binding, L4Chain
from meshgw.protos import Filter, FilterChain, FilterChainMatch, TcpProxy, TransportSocket, any_of
from meshgw.resolve.hostnames import most_specific, route_config

_TLS = frozenset({Protocol.HTTPS, Protocol.TLS})


def tcp_chains(
    listeners: Sequence[Listener], bindings: Mapping[ListenerKey, L4Binding], *, stat_prefix: str
) -> Iterator[FilterChain]:
    """The chains of a TCP port, no two for the same connections: whoever comes first among `listeners` has them."""
    owners = {listener.hostname for listener in listeners if listener.protocol in _TLS}
    taken: set[str] = set()
    plain = False
    for listener in listeners:
        if listener.protocol not in _TLS:
            if not plain:
                yield _plain_chain(listener, bindings.get(listener.key), stat_prefix)
            plain = True
            continue
        for chain, names in _tls_chains(listener, bindings.get(listener.key), stat_prefix):
            own = [name for name in names if name not in taken and most_specific(owners, name) == listener.hostname]
            if own:
                taken.update(own)
                yield from _matched(chain, own)


def tcp_proxy(backends: Iterable[Backend], *, stat_prefix: str) -> Filter:
    """The network filter that forwards bytes to weighted backends; the share of an unusable one is closed."""
    shares = [
        TcpProxy.WeightedCluster.ClusterWeight(
            name=NO_CLUSTER if backend.target is None else backend.target.cluster, weight=backend.weight
        )
        for backend in backends
        if backend.weight > 0
    ]
    proxy = TcpProxy(stat_prefix=stat_prefix, access_log=[access_log(http=False)])
    if len(shares) > 1:
        proxy.weighted_clusters.clusters.extend(shares)
    else:
        proxy.cluster = shares[0].name if shares else NO_CLUSTER
    return Filter(name="envoy.filters.network.tcp_proxy", typed_config=any_of(proxy))


def _edge(config: str, stat_prefix: str) -> Filter:
    """HTTP for clients that nobody knows: open, unless a policy of the Gateway closes its routes."""
    return connection_manager(config, stat_prefix=stat_prefix, authorization=authorization_filters(closed=False))


def _plain_chain(listener: Listener, binding: L4Binding | None, stat_prefix: str) -> FilterChain:
    if listener.protocol is Protocol.HTTP:
        config = route_config(listener).name
        return FilterChain(name=config, filters=[_edge(config, stat_prefix)])
    backends = binding.chains[0].backends if binding is not None and binding.chains else ()
    return FilterChain(name=_name(listener), filters=[tcp_proxy(backends, stat_prefix=stat_prefix)])


def _tls_chains(
    listener: Listener, binding: L4Binding | None, stat_prefix: str
) -> Iterator[tuple[FilterChain, Sequence[str]]]:
    """Yield chains with their server names; what a TLS listener owns and no route takes is closed."""
    tls = listener.tls
    if tls is None:
        return
    if listener.protocol is Protocol.HTTPS:
        config = route_config(listener).name
        chain = FilterChain(
            name=config,
            filters=[_edge(config, stat_prefix)],
            transport_socket=downstream_tls(tls, alpn=ALPN_HTTP),
        )
        yield chain, (listener.hostname,)
        return
    socket = None if tls.mode is TlsMode.PASSTHROUGH else downstream_tls(tls)
    for chain in binding.chains if binding is not None else ():
        yield _forward_chain(listener, chain, socket, stat_prefix), chain.server_names or (listener.hostname,)
    yield FilterChain(name=_name(listener), filters=[tcp_proxy((), stat_prefix=stat_prefix)]), (listener.hostname,)


def _forward_chain(listener: Listener, chain: L4Chain, socket: TransportSocket | None, stat_prefix: str) -> FilterChain:
    return FilterChain(
        name=f"{_name(listener)}/{chain.route.namespace}/{chain.route.name}",
        filters=[tcp_proxy(chain.backends, stat_prefix=stat_prefix)],
        transport_socket=socket,
    )


def _matched(chain: FilterChain, names: Sequence[str]) -> Iterator[FilterChain]:
    """The chain for these server names; no name at all is a chain of its own, as a match lists names or has none."""
    named = sorted(name for name in names if name)
    if named:
        chain.filter_chain_match.CopyFrom(FilterChainMatch(transport_protocol="tls", server_names=named))
        yield chain
    if "" in names:
        rest = FilterChain()
        rest.CopyFrom(chain)
        if named:
            rest.name = f"{chain.name}/any"
        rest.filter_chain_match.CopyFrom(FilterChainMatch(transport_protocol="tls"))
        yield rest


def _name(listener: Listener) -> str:
    key = listener.key
    protocol = (listener.protocol or Protocol.TCP).lower()
    return f"{protocol}/{listener.port}/{key.owner_kind.lower()}/{key.owner.namespace}/{key.owner.name}/{key.name}"
