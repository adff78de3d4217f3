"""Endpoints as EDS delivers them: straight from EndpointSlices, without touching any route or cluster."""

from __future__ import annotations

from collections.abc import Iterable

from meshgw.emit.cluster import MESHGW, ORIGINAL_DST, refused
from meshgw.emit.resource import ENDPOINTS, Resource
from meshgw.engine import View
from meshgw.ir import backend as ir
from meshgw.ir.backend import UpstreamProtocol
from meshgw.ir.keys import ClusterKey, ResourceKey
from meshgw.names import LISTENER_CONNECT_ORIGINATE
from meshgw.protos import (
    Address,
    ClusterLoadAssignment,
    Endpoint,
    EnvoyInternalAddress,
    HealthStatus,
    LbEndpoint,
    Locality,
    LocalityLbEndpoints,
    Metadata,
    SocketAddress,
    encode,
)
from meshgw.resolve.tables import CLUSTERS

_TRANSPORT_MATCH = "envoy.transport_socket_match"


def emit_endpoints(view: View, key: ClusterKey, row: ir.Endpoints) -> Iterable[tuple[ResourceKey, Resource]]:
    """Build the endpoints of a cluster that may be reached."""
    cluster = view.get(CLUSTERS, key)
    if cluster is None or refused(cluster):
        return
    name = key.target.cluster
    udp = cluster.protocol is UpstreamProtocol.UDP
    body = encode(build_endpoints(name, row.endpoints, udp=udp))
    yield ResourceKey(key.gateway, ENDPOINTS, name), Resource.of(ENDPOINTS, name, body)


def build_endpoints(name: str, endpoints: Iterable[ir.Endpoint], *, udp: bool = False) -> ClusterLoadAssignment:
    """The endpoints, gathered by region and zone, sorted. No tunnel is opened to one that has no identity to prove."""
    zones: dict[tuple[str, str], list[ir.Endpoint]] = {}
    for endpoint in sorted(set(endpoints)):
        if endpoint.hbone and not endpoint.identity:
            continue
        zones.setdefault((endpoint.region, endpoint.zone), []).append(endpoint)
    return ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[
            LocalityLbEndpoints(
                locality=Locality(region=region, zone=zone) if region or zone else None,
                lb_endpoints=[_endpoint(member, udp=udp) for member in members],
            )
            for (region, zone), members in sorted(zones.items())
        ],
    )


def _endpoint(row: ir.Endpoint, *, udp: bool) -> LbEndpoint:
    built = LbEndpoint(health_status=HealthStatus.HEALTHY if row.healthy else HealthStatus.UNHEALTHY)
    if row.weight:
        built.load_balancing_weight.value = row.weight
    if row.hbone:
        built.endpoint.CopyFrom(Endpoint(address=tunnel_address(row)))
        built.metadata.CopyFrom(tunnel_metadata(row))
    else:
        protocol = SocketAddress.UDP if udp else SocketAddress.TCP
        address = SocketAddress(protocol=protocol, address=row.address, port_value=row.port)
        built.endpoint.CopyFrom(Endpoint(address=Address(socket_address=address)))
    return built


def tunnel_address(row: ir.Endpoint) -> Address:
    """The internal listener that opens the tunnel; the endpoint id keeps endpoints apart."""
    return Address(
        envoy_internal_address=EnvoyInternalAddress(
            server_listener_name=LISTENER_CONNECT_ORIGINATE, endpoint_id=authority(row)
        )
    )


def tunnel_metadata(row: ir.Endpoint) -> Metadata:
    """Where the tunnel goes, who must be there, and that there is one."""
    metadata = Metadata()
    metadata.filter_metadata[ORIGINAL_DST].update({"local": authority(row)})
    metadata.filter_metadata[MESHGW].update({"san": row.identity})
    metadata.filter_metadata[_TRANSPORT_MATCH].update({"tunnel": "http"})
    return metadata


def authority(row: ir.Endpoint) -> str:
    """Address and port as the tunnel's authority words them."""
    return f"[{row.address}]:{row.port}" if ":" in row.address else f"{row.address}:{row.port}"
