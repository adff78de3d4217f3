"""Node proxies as Envoy resources: one that opens HBONE for clients, one that ends it for workloads.

They play the part of Istio's ztunnel. Every certificate reaches them by SDS, as it does the waypoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from meshgw.demo.plan import APP_PORT, WAYPOINT, Client, Plan, Workload
from meshgw.emit.action import answer
from meshgw.emit.cluster import CONNECT_TIMEOUT, HTTP_OPTIONS
from meshgw.emit.hbone import mesh_context, trusted_identities
from meshgw.emit.listener import address
from meshgw.emit.resource import CLUSTER, LISTENER, SECRET, Resource
from meshgw.emit.secret import certificate_secret, roots_secret
from meshgw.emit.tls import san, sds, transport_socket
from meshgw.ir.backend import SanKind, WorkloadCertificate
from meshgw.ir.gateway import Settings
from meshgw.names import HBONE_PORT, SDS_MESH_ROOTS
from meshgw.protos import (
    CertificateValidationContext,
    Cluster,
    ClusterLoadAssignment,
    CommonTlsContext,
    DataSource,
    DownstreamTlsContext,
    Duration,
    Endpoint,
    Filter,
    FilterChain,
    HeaderMatcher,
    Http2ProtocolOptions,
    HttpConnectionManager,
    HttpFilter,
    HttpRbac,
    LbEndpoint,
    Listener,
    LocalityLbEndpoints,
    Permission,
    Policy,
    Principal,
    RbacRules,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    Router,
    StringMatcher,
    TcpProxy,
    UpstreamHttp,
    UpstreamTlsContext,
    VirtualHost,
    any_of,
    duration,
    encode,
)

_TLS: Final = "envoy.transport_sockets.tls"


def client_resources(plan: Plan) -> Iterator[Resource]:
    """Build the clients' node proxy: a port for each client."""
    for client in plan.clients:
        yield from _pair(_opening(client), _tunnel(plan, client))


def workload_resources(plan: Plan) -> Iterator[Resource]:
    """Build the workloads' node proxy: port 15008 at the address of each Pod."""
    for workload in plan.workloads:
        yield from _pair(_ending(plan, workload), _app(workload))


def secrets(account: str, certificate: WorkloadCertificate) -> Iterator[Resource]:
    """Build what a node proxy needs to act for a ServiceAccount."""
    own = certificate_secret(_identity(account), certificate.chain, certificate.key)
    roots = roots_secret(SDS_MESH_ROOTS, DataSource(inline_bytes=certificate.roots))
    for secret in (own, roots):
        yield Resource.of(SECRET, secret.name, encode(secret))


def _pair(listener: Listener, cluster: Cluster) -> Iterator[Resource]:
    yield Resource.of(LISTENER, listener.name, encode(listener))
    yield Resource.of(CLUSTER, cluster.name, encode(cluster))


# --- The clients' side ---------------------------------------------------------------------------------------------


def _opening(client: Client) -> Listener:
    """Every connection becomes a tunnel to what it was meant for."""
    name = f"client/{client.name}"
    tunnel = TcpProxy.TunnelingConfig(hostname=client.authority)
    proxy = TcpProxy(stat_prefix=name, cluster=name, tunneling_config=tunnel)
    return Listener(
        name=name,
        address=address("127.0.0.1", client.port),
        filter_chains=[
            FilterChain(filters=[Filter(name="envoy.filters.network.tcp_proxy", typed_config=any_of(proxy))])
        ],
    )


def _tunnel(plan: Plan, client: Client) -> Cluster:
    """HBONE as the client's ServiceAccount, to exactly one."""
    peer = CertificateValidationContext(
        match_typed_subject_alt_names=[san(SanKind.URI, exact=plan.spiffe(client.peer))]
    )
    options = UpstreamHttp()
    options.explicit_http_config.http2_protocol_options.CopyFrom(Http2ProtocolOptions(allow_connect=True))
    built = _static(f"client/{client.name}", client.via, HBONE_PORT)
    context = UpstreamTlsContext(common_tls_context=_context(client.account, peer))
    built.transport_socket.CopyFrom(transport_socket(_TLS, context))
    built.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(any_of(options))
    return built


# --- The workloads' side -------------------------------------------------------------------------------------------


def _ending(plan: Plan, workload: Workload) -> Listener:
    """Tunnels end here if they come from the waypoint and are meant for the application."""
    context = DownstreamTlsContext(
        common_tls_context=_context(workload.account, trusted_identities(Settings(trust_domain=plan.trust_domain)))
    )
    context.require_client_certificate.value = True
    return Listener(
        name=f"workload/{workload.name}",
        address=address(workload.address, HBONE_PORT),
        filter_chains=[
            FilterChain(transport_socket=transport_socket(_TLS, context), filters=[_manager(plan, workload)])
        ],
    )


def _manager(plan: Plan, workload: Workload) -> Filter:
    filters = [
        HttpFilter(name="envoy.filters.http.rbac", typed_config=any_of(_only(plan.spiffe(WAYPOINT.name)))),
        HttpFilter(name="envoy.filters.http.router", typed_config=any_of(Router())),
    ]
    manager = HttpConnectionManager(
        stat_prefix=f"workload/{workload.name}",
        codec_type=HttpConnectionManager.HTTP2,
        route_config=_routes(workload),
        http_filters=filters,
        http2_protocol_options=Http2ProtocolOptions(allow_connect=True),
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="CONNECT")],
        stream_idle_timeout=Duration(),
    )
    manager.internal_address_config.SetInParent()
    return Filter(name="envoy.filters.network.http_connection_manager", typed_config=any_of(manager))


def _routes(workload: Workload) -> RouteConfiguration:
    action: Any = RouteAction(cluster=f"app/{workload.name}", timeout=Duration())
    action.upgrade_configs.add(upgrade_type="CONNECT").connect_config.SetInParent()
    connect = RouteMatch.ConnectMatcher()
    own = HeaderMatcher(name=":authority", string_match=StringMatcher(exact=workload.authority))
    routes = [
        Route(match=RouteMatch(connect_matcher=connect, headers=[own]), route=action),
        Route(match=RouteMatch(connect_matcher=connect), direct_response=answer(400)),
    ]
    return RouteConfiguration(name="tunnels", virtual_hosts=[VirtualHost(name="*", domains=["*"], routes=routes)])


def _only(identity: str) -> HttpRbac:
    """Nobody but this identity: what is behind a waypoint is reached through it, and not around it."""
    peer = Principal(authenticated=Principal.Authenticated(principal_name=StringMatcher(exact=identity)))
    rules = RbacRules(action=RbacRules.ALLOW)
    rules.policies["waypoint"].CopyFrom(Policy(permissions=[Permission(any=True)], principals=[peer]))
    return HttpRbac(rules=rules)


def _app(workload: Workload) -> Cluster:
    return _static(f"app/{workload.name}", workload.address, APP_PORT)


# --- Both ----------------------------------------------------------------------------------------------------------


def _static(name: str, host: str, port: int) -> Cluster:
    endpoint = LbEndpoint(endpoint=Endpoint(address=address(host, port)))
    return Cluster(
        name=name,
        type=Cluster.STATIC,
        connect_timeout=duration(CONNECT_TIMEOUT),
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
    )


def _context(account: str, peers: CertificateValidationContext) -> CommonTlsContext:
    """TLS of the mesh, with the certificate of one ServiceAccount among those the proxy has."""
    context = mesh_context(peers)
    del context.tls_certificate_sds_secret_configs[:]
    context.tls_certificate_sds_secret_configs.append(sds(_identity(account)))
    return context


def _identity(account: str) -> str:
    return f"identity/{account}"


def accounts(members: Iterable[Client | Workload]) -> tuple[str, ...]:
    """Return the ServiceAccounts of clients or workloads, each once."""
    return tuple(dict.fromkeys(member.account for member in members))
