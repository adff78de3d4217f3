"""What leaves a captured pod, as istiod's workload discovery has it: by waypoint, by HBONE, or plain.

```
 outbound  ── VIP with a waypoint ──HBONE──> a pod of the waypoint; the tunnel leads to VIP and port
 (15001)   ── VIP without ─────────────────> an endpoint: `tunnels` if it speaks HBONE, else plain
           ── address of a workload ──HBONE──> its waypoint, or itself
           ── anything else ───────────────> plain
```
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from meshgw.emit.resource import CLUSTER, ENDPOINTS, LISTENER, Resource
from tests.mesh.document import (
    INBOUND,
    NOBODY,
    OUTBOUND,
    PLAIN_CLUSTER,
    Document,
    discovered,
    extension,
    http2_tunnels,
    original_cluster,
    original_destination,
    resource,
    tcp,
    tls,
)
from tests.mesh.workload import Service, Waypoint, Workload

_TUNNELS: Final = "tunnels"
_ANY_PORT: Final = 0
_ORIGINAL: Final = "envoy.filters.listener.original_dst"
_METADATA: Final = "mesh"
_NAMELESS: Final = "nobody"
"""What no certificate says."""

_INPUTS: Final = "matching.common_inputs.network.v3"


class Way(NamedTuple):
    """What becomes of a connection: to a cluster, in a tunnel or as it is."""

    cluster: str
    tunnel: bool


Ways = Mapping[str, Mapping[int, Way]]
"""By address and port; port 0 is any other."""


class Mesh:
    """All that istiod has told, with what is asked of it."""

    def __init__(self, told: Iterable[Service | Workload]) -> None:
        rows = list(told)
        services = (row for row in rows if isinstance(row, Service))
        workloads = (row for row in rows if isinstance(row, Workload))
        self.services = sorted(services, key=lambda row: row.key)
        self.workloads = sorted(workloads, key=lambda row: row.uid)
        self._by_key = {row.key: row for row in self.services}
        self._by_address = {address: row for row in reversed(self.services) for address in row.addresses}
        self._of: dict[str, list[Workload]] = defaultdict(list)
        for row in self.workloads:
            if row.healthy:
                for key in row.services:
                    self._of[key].append(row)

    def behind(self, key: str) -> list[Workload]:
        """The healthy workloads of a Service."""
        return self._of.get(key, [])

    def places(self, waypoint: Waypoint) -> list[tuple[Workload, str, int]]:
        """The pods of a waypoint, each with the address and the port where it takes tunnels; none if there are none."""
        service = self._by_key.get(waypoint.service) or self._by_address.get(waypoint.address)
        if service is None:
            found = (row for row in self.workloads if waypoint.address in row.addresses)
            return [(row, waypoint.address, waypoint.port) for row in found]
        return [
            (row, address, port)
            for row in self.behind(service.key)
            if (port := row.services[service.key].get(waypoint.port))
            for address in row.addresses
        ]

    def names(self, waypoint: Waypoint) -> list[str]:
        """Who may answer as this waypoint."""
        service = self._by_key.get(waypoint.service) or self._by_address.get(waypoint.address)
        others = service.names if service else ()
        return sorted({row.identity for row, _, _ in self.places(waypoint)} | set(others))

    def waypoints(self) -> list[Waypoint]:
        """All that something is bound to."""
        rows: list[Service | Workload] = [*self.services, *self.workloads]
        found = {str(row.waypoint): row.waypoint for row in rows if row.waypoint}
        return [found[name] for name in sorted(found)]


def outbound_ways(mesh: Mesh) -> Ways:
    """Return what becomes of connections by the address they are meant for; the rest is plain."""
    # A connection to the proxy's own port would go round for ever.
    ways: dict[str, Mapping[int, Way]] = {"127.0.0.1": {_ANY_PORT: Way(NOBODY, tunnel=False)}}
    for service in mesh.services:
        for address in service.addresses:
            ways.setdefault(address, _service_ways(service))
    for workload in mesh.workloads:
        for address in workload.addresses:
            if workload.waypoint:
                ways.setdefault(address, {_ANY_PORT: Way(_waypoint_name(workload.waypoint), tunnel=True)})
            elif workload.hbone:
                ways.setdefault(address, {_ANY_PORT: Way(workload.identity, tunnel=True)})
    return ways


def outbound(mesh: Mesh) -> Iterator[Resource]:
    """Build everything that a node proxy needs for what leaves a pod."""
    yield resource(LISTENER, _listener(outbound_ways(mesh)))
    yield resource(LISTENER, _tunnels_listener())
    yield resource(CLUSTER, _tunnel_cluster(_TUNNELS, {"prefix": "spiffe://"}))
    for identity in sorted({row.identity for row in mesh.workloads if row.hbone}):
        yield resource(CLUSTER, _tunnel_cluster(identity, {"exact": identity}))
    for waypoint in mesh.waypoints():
        yield resource(CLUSTER, _waypoint_cluster(mesh, waypoint))
        yield resource(ENDPOINTS, _waypoint_endpoints(mesh, waypoint))
    for service in mesh.services:
        if service.waypoint is None and service.addresses:
            for port in sorted(service.ports):
                yield resource(CLUSTER, _service_cluster(service, port))
                yield resource(ENDPOINTS, _service_endpoints(mesh, service, port))


def _service_ways(service: Service) -> Mapping[int, Way]:
    if service.waypoint:
        return {_ANY_PORT: Way(_waypoint_name(service.waypoint), tunnel=True)}
    return {port: Way(_service_name(service, port), tunnel=False) for port in service.ports}


def _listener(ways: Ways) -> Document:
    chains = {_chain_name(way): way for by_port in ways.values() for way in by_port.values()}
    return {
        "name": "outbound",
        # What is redirected from here arrives here; nobody else has business with this port.
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": OUTBOUND}},
        "listener_filters": [original_destination()],
        "filter_chain_matcher": _by_address(ways),
        "filter_chains": [
            {"name": chain, "filters": [tcp(way.cluster, tunnel=way.tunnel)]} for chain, way in sorted(chains.items())
        ],
        "default_filter_chain": {"name": PLAIN_CLUSTER, "filters": [tcp(PLAIN_CLUSTER)]},
    }


def _tunnels_listener() -> Document:
    """Opens a tunnel to an endpoint of a Service; where it leads and who must be there is in the endpoint's metadata.

    It is the same whatever istiod tells: endpoints are known to a proxy before listeners that are about them.
    """
    name = {"text_format_source": {"inline_string": f"%DYNAMIC_METADATA({_METADATA}:identity)%"}}
    # Where an endpoint names nobody, nobody has the name that this becomes.
    state = {"object_key": "envoy.network.upstream_subject_alt_names", "format_string": name}
    set_name = extension(
        "envoy.filters.network.set_filter_state",
        "filters.network.set_filter_state.v3.Config",
        on_new_connection=[state],
    )
    return {
        "name": _TUNNELS,
        "internal_listener": {},
        "listener_filters": [original_destination()],
        "filter_chains": [{"name": _TUNNELS, "filters": [set_name, tcp(_TUNNELS, tunnel=True)]}],
    }


def _chain_name(way: Way) -> str:
    return f"{'tunnel' if way.tunnel else 'tcp'} {way.cluster}"


def _by_address(ways: Ways) -> Document:
    """Addresses of equal fate share an arm."""
    arms: dict[tuple[tuple[int, Way], ...], list[str]] = defaultdict(list)
    for address, by_port in ways.items():
        arms[tuple(sorted(by_port.items()))].append(address)
    ranges = [
        {
            "ranges": [
                {"address_prefix": address, "prefix_len": 128 if ":" in address else 32} for address in sorted(found)
            ],
            "on_match": _by_port(dict(by_port)),
        }
        for by_port, found in sorted(arms.items())
        if by_port
    ]
    return {
        "matcher_tree": {
            "input": extension("address", f"{_INPUTS}.DestinationIPInput"),
            "custom_match": {
                "name": "address",
                "typed_config": {
                    "@type": "type.googleapis.com/xds.type.matcher.v3.IPMatcher",
                    "range_matchers": ranges,
                },
            },
        }
    }


def _by_port(by_port: Mapping[int, Way]) -> Document:
    if _ANY_PORT in by_port:
        return _chosen(by_port[_ANY_PORT])
    return {
        "matcher": {
            "matcher_tree": {
                "input": extension("port", f"{_INPUTS}.DestinationPortInput"),
                "exact_match_map": {"map": {str(port): _chosen(way) for port, way in sorted(by_port.items())}},
            }
        }
    }


def _chosen(way: Way) -> Document:
    name = _chain_name(way)
    config = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": name}
    return {"action": {"name": name, "typed_config": config}}


def _tunnel_cluster(name: str, identity: Document) -> Document:
    """Tunnels to where a connection was meant to go; who is there has such an identity, and that of the connection."""
    return original_cluster(
        name,
        original_dst_lb_config={"upstream_port_override": INBOUND},
        typed_extension_protocol_options=http2_tunnels(),
        transport_socket=tls("UpstreamTlsContext", [identity]),
    )


def _waypoint_name(waypoint: Waypoint) -> str:
    return f"waypoint/{waypoint}"


def _waypoint_cluster(mesh: Mesh, waypoint: Waypoint) -> Document:
    names = mesh.names(waypoint) or [_NAMELESS]
    return {
        **_endpoints_cluster(_waypoint_name(waypoint)),
        "typed_extension_protocol_options": http2_tunnels(),
        "transport_socket": tls("UpstreamTlsContext", [{"exact": name} for name in names]),
    }


def _waypoint_endpoints(mesh: Mesh, waypoint: Waypoint) -> Document:
    found = [_endpoint(address, port) for _, address, port in mesh.places(waypoint)]
    return {"cluster_name": _waypoint_name(waypoint), "endpoints": [{"lb_endpoints": found}]}


def _service_name(service: Service, port: int) -> str:
    return f"service/{service.key}/{port}"


def _service_cluster(service: Service, port: int) -> Document:
    raw = extension("raw", "transport_sockets.raw_buffer.v3.RawBuffer")
    passed: list[Document] = [{"name": name, "kind": {"host": {}}} for name in (_ORIGINAL, _METADATA)]
    return {
        **_endpoints_cluster(_service_name(service, port)),
        "transport_socket": extension(
            "envoy.transport_sockets.internal_upstream",
            "transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            passthrough_metadata=passed,
            transport_socket=raw,
        ),
    }


def _service_endpoints(mesh: Mesh, service: Service, port: int) -> Document:
    found = [
        _tunnelled(address, target, workload.identity) if workload.hbone else _endpoint(address, target)
        for workload in mesh.behind(service.key)
        if (target := workload.services[service.key].get(port))
        for address in workload.addresses
    ]
    return {"cluster_name": _service_name(service, port), "endpoints": [{"lb_endpoints": found}]}


def _endpoints_cluster(name: str) -> Document:
    source = {"eds_config": discovered()}
    return {"name": name, "type": "EDS", "eds_cluster_config": source, "connect_timeout": "5s"}


def _endpoint(address: str, port: int) -> Document:
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}


def _tunnelled(address: str, port: int, identity: str) -> Document:
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    internal = {"server_listener_name": _TUNNELS, "endpoint_id": place}
    return {
        "endpoint": {"address": {"envoy_internal_address": internal}},
        "metadata": {"filter_metadata": {_ORIGINAL: {"local": place}, _METADATA: {"identity": identity}}},
    }
