"""Endpoints of clusters, from EndpointSlices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from meshgw.api.core import Endpoint as SliceEndpoint
from meshgw.api.core import EndpointSlice, Service, ServicePort
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.backend import Cluster, Endpoint, Endpoints
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Settings
from meshgw.ir.keys import BackendTarget, ClusterKey
from meshgw.resolve.addresses import usable_address
from meshgw.resolve.backends import find_port
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import ENDPOINT_SLICES, NODES, SERVICES, WORKLOADS

_REGION = "topology.kubernetes.io/region"
_ZONE = "topology.kubernetes.io/zone"
_TOTAL_WEIGHT = 1 << 30  # Envoy: the weights of a locality must sum to less than 2^32
_SHOWN = 3


class _Found(NamedTuple):
    """An endpoint of a slice, with the family and port that its slice gives it."""

    family: str
    address: str
    port: int
    endpoint: SliceEndpoint


def resolve_endpoints(view: View, key: ClusterKey, row: Cluster) -> Iterable[tuple[ClusterKey, Endpoints]]:
    """Return the cluster's endpoints; none when it is refused."""
    if row.refused:
        yield key, Endpoints(key=key)
        return
    settings = read_settings(view)
    findings: list[Finding] = []
    if key.target.kind == "UDPRoute":
        shares = [(_of_target(view, target, settings, findings), weight) for target, weight in row.members]
        endpoints = share_out(shares)
    else:
        endpoints = _of_target(view, key.target, settings, findings)
    if row.hbone:
        endpoints = [_tunnelled(view, endpoint) for endpoint in endpoints]
        findings += _disputed(key.target, endpoints)
    yield key, Endpoints(key=key, endpoints=tuple(sorted(endpoints)), findings=tuple(findings))


def share_out(groups: Iterable[tuple[list[Endpoint], int]]) -> list[Endpoint]:
    """Return the endpoints of all groups, weighted so that each group gets its share however many endpoints it has."""
    filled = [(endpoints, weight) for endpoints, weight in groups if endpoints and weight]
    total = sum(weight for _endpoints, weight in filled)
    merged: dict[tuple[str, int], Endpoint] = {}
    for endpoints, weight in filled:
        each = max(1, _TOTAL_WEIGHT * weight // (total * len(endpoints)))
        for endpoint in endpoints:
            name = (endpoint.address, endpoint.port)
            known = merged.get(name, endpoint)
            merged[name] = msgspec.structs.replace(known, weight=known.weight + each)
    divisor = math.gcd(*(endpoint.weight for endpoint in merged.values())) or 1
    return [msgspec.structs.replace(endpoint, weight=endpoint.weight // divisor) for endpoint in merged.values()]


def _of_target(view: View, target: BackendTarget, settings: Settings, findings: list[Finding]) -> list[Endpoint]:
    """Return the endpoints of one port of a Service, and add what is wrong with them to the findings."""
    key = Key(target.namespace, target.name)
    service = view.get(SERVICES, key)
    port = find_port(service, target.port, target.protocol) if service else None
    if service is None or port is None:
        return []
    slices = view.by(ENDPOINT_SLICES, "service", key)
    refused: set[str] = set()
    found = [
        item for _key, row in slices for item in _of_slice(row, port, refused, loopback=settings.loopback_endpoints)
    ]
    about = ObjectRef("Service", *key)
    if refused:
        findings.append(Finding(code="MG2007", object=about, message=f"endpoints refused: {_list(sorted(refused))}"))
    usable = _usable(found, service)
    if not usable:
        message = f"port {target.port} has no ready endpoint"
        findings.append(Finding(code="MG2005", object=about, message=message))
    return [_endpoint(view, item) for item in usable]


def _list(addresses: list[str]) -> str:
    shown = ", ".join(addresses[:_SHOWN])
    rest = len(addresses) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def _of_slice(row: EndpointSlice, port: ServicePort, refused: set[str], *, loopback: bool) -> Iterator[_Found]:
    """Yield the usable addresses of a slice for a Service port, which it matches by name as kube-proxy does."""
    number = _slice_port(row, port)
    if number is None:
        return
    for endpoint in row.endpoints:
        address = usable_address(endpoint.addresses[0], loopback=loopback) if row.address_type != "FQDN" else ""
        if address:
            yield _Found(row.address_type, address, number, endpoint)
        else:
            refused.add(endpoint.addresses[0])


def _slice_port(row: EndpointSlice, port: ServicePort) -> int | None:
    for candidate in row.ports:
        if candidate.name == port.name and candidate.protocol == port.protocol:
            fallback = port.target_port if isinstance(port.target_port, int) else port.port
            return candidate.port or fallback
    return None


def _usable(found: list[_Found], service: Service) -> list[_Found]:
    """Return the endpoints to use: ready ones, else those that still serve while they end, as kube-proxy does.

    Of a dual-stack Service the family it prefers: its Pods are in the slices of both.
    """
    ready = [item for item in found if item.endpoint.conditions.ready]
    usable = ready or [item for item in found if _still_serves(item.endpoint)]
    for family in service.spec.ip_families:
        preferred = [item for item in usable if item.family == family]
        if preferred:
            usable = preferred
            break
    distinct = {(item.address, item.port): item for item in reversed(usable)}
    return list(distinct.values())


def _still_serves(endpoint: SliceEndpoint) -> bool:
    conditions = endpoint.conditions
    return conditions.terminating and bool(conditions.serving)


def _endpoint(view: View, item: _Found) -> Endpoint:
    labels = {}
    if item.endpoint.node_name:
        node = view.get(NODES, Key("", item.endpoint.node_name))
        labels = dict(node.metadata.labels) if node else {}
    return Endpoint(
        address=item.address,
        port=item.port,
        region=labels.get(_REGION, ""),
        zone=item.endpoint.zone or labels.get(_ZONE, ""),
    )


def _disputed(target: BackendTarget, endpoints: Iterable[Endpoint]) -> Iterator[Finding]:
    """Say which endpoints are not reached because nobody knows who they are."""
    addresses = sorted(endpoint.address for endpoint in endpoints if endpoint.hbone and not endpoint.identity)
    if addresses:
        message = f"endpoints without one identity to demand are not reached: {_list(addresses)}"
        yield Finding(code="MG5006", object=ObjectRef(target.kind, target.namespace, target.name), message=message)


def _tunnelled(view: View, endpoint: Endpoint) -> Endpoint:
    """Return the endpoint as the mesh reaches it: by HBONE if a workload that speaks it has the address.

    Workloads that disagree about who is there leave the identity empty: nobody could prove it, so nothing is sent.
    """
    workloads = [row for _key, row in view.by(WORKLOADS, "address", endpoint.address)]
    if not any(row.hbone for row in workloads):
        return endpoint
    identities = {row.identity for row in workloads}
    return msgspec.structs.replace(endpoint, hbone=True, identity=identities.pop() if len(identities) == 1 else "")
