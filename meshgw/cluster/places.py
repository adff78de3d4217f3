"""Where Gateways are reached in a cluster: the addresses of the Services in front of their proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from meshgw import names
from meshgw.api.core import Node, Service
from meshgw.api.meta import Key
from meshgw.cluster.workloads import Shortfall
from meshgw.control import requested_addresses
from meshgw.engine import Graph, Table
from meshgw.ir.gateway import Binding, Gateway, Role
from meshgw.ir.proxy import Deploying
from meshgw.kube.seen import Seen
from meshgw.observe.log import get_logger
from meshgw.resolve import tables as t
from meshgw.resolve.settings import read_settings

_log = get_logger("places")

_MOST: Final = 16
"""Addresses that a Gateway's status can hold."""
_HEADLESS: Final = frozenset({"", "None"})
_NODE_TYPES: Final = ("ExternalIP", "InternalIP")


class _Address(msgspec.Struct, frozen=True):
    value: str = ""


class _Status(msgspec.Struct, frozen=True):
    addresses: tuple[_Address, ...] = ()


class ServicePlacing:
    """Places Gateways at their Services; `shortfall` says why a Gateway's proxies do not serve.

    The address of a waypoint is published as soon as it is known and stays as long as the Gateway: without it
    the mesh would send traffic past the waypoint.
    """

    follows: tuple[Table[Any, Any], ...] = (t.GATEWAYS, t.OUR_GATEWAYS, t.PROXY_PLANS, t.SERVICES, t.NODES)

    def __init__(self, shortfall: Callable[[Key], Shortfall | None]) -> None:
        self._shortfall = shortfall
        self._published: dict[Key, tuple[str, ...]] = {}

    def see(self, seen: Sequence[Seen]) -> None:
        """Take in Gateways as first seen: what an earlier controller has published of them."""
        for one in seen:
            if one.gone:
                self._published.pop(one.key, None)
            elif one.observed is not None and one.key not in self._published:
                self._published[one.key] = _published(one.observed.status)

    def place(self, graph: Graph) -> dict[Key, Binding | None]:
        """Return the bindings that must change."""
        before = graph.rows(t.BINDINGS)
        rows = graph.rows(t.OUR_GATEWAYS)
        bind = names.ANY_ADDRESS if read_settings(graph).dual_stack else names.ANY_IPV4
        after = {
            key: msgspec.structs.replace(self._bind(graph, row, before.get(key)), bind=bind)
            for key, row in rows.items()
        }
        gone: dict[Key, Binding | None] = dict.fromkeys(before.keys() - after.keys())
        return gone | {key: binding for key, binding in after.items() if before.get(key) != binding}

    def _bind(self, graph: Graph, gateway: Gateway, before: Binding | None) -> Binding:
        try:
            return self._binding(graph, gateway, before)
        except Exception:  # noqa: BLE001 - what is odd about one Gateway must not keep others from being placed
            _log.exception("not placed", gateway=str(gateway.key))
            return before or Binding()

    def _binding(self, graph: Graph, gateway: Gateway, before: Binding | None) -> Binding:
        known = before.addresses if before is not None else self._published.get(gateway.key, ())
        if not gateway.accepted:
            return Binding(addresses=known)
        service = find_service(graph, gateway)
        found = tuple(find_addresses(graph, gateway, service)) if service is not None else ()
        wanted = requested_addresses(graph, gateway.key)
        unusable = tuple(value for value in wanted if value not in found) if found else ()
        addresses = tuple(value for value in found if value in wanted) if wanted else found
        if not addresses and gateway.role is Role.WAYPOINT:
            addresses = known
        missing = None if _is_self_managed(graph, gateway) else self._shortfall(gateway.key)
        binding = Binding(addresses=addresses[:_MOST], unusable=unusable)
        if missing is None:
            return binding
        return msgspec.structs.replace(binding, pending=missing.message, pending_reason=missing.reason)


def _is_self_managed(graph: Graph, gateway: Gateway) -> bool:
    plan = graph.get(t.PROXY_PLANS, gateway.key)
    return plan is not None and plan.deploying is Deploying.SELF_MANAGED


def find_service(graph: Graph, gateway: Gateway) -> Service | None:
    """Return the Service in front of a Gateway's proxies: ours, or the first that has its label."""
    plan = graph.get(t.PROXY_PLANS, gateway.key)
    if plan is not None and not _is_self_managed(graph, gateway):
        return graph.get(t.SERVICES, Key(gateway.key.namespace, plan.name))
    labelled = (
        row
        for _key, row in sorted(graph.by(t.SERVICES, "namespace", gateway.key.namespace))
        if row.metadata.labels.get(names.LABEL_GATEWAY_NAME) == gateway.key.name
    )
    return next(labelled, None)


def find_addresses(graph: Graph, gateway: Gateway, service: Service) -> Iterable[str]:
    """Return the addresses at which a Service is reached, as far as they are known, each once.

    A waypoint's are those inside the cluster, its name first: the name survives a Service that is made anew.
    """
    spec = service.spec
    inside = [address for address in (spec.cluster_ips or (spec.cluster_ip,)) if address not in _HEADLESS]
    if gateway.role is Role.WAYPOINT:
        domain = read_settings(graph).cluster_domain
        return [f"{service.metadata.name}.{service.metadata.namespace}.svc.{domain}", *inside] if inside else []
    found = [*spec.external_ips]
    match spec.type:
        case "LoadBalancer":
            found += [ingress.ip or ingress.hostname for ingress in service.status.load_balancer.ingress]
        case "NodePort":
            found += _node_addresses(graph.rows(t.NODES).values())
        case "ExternalName":
            found.append(spec.external_name)
        case "ClusterIP":
            found += inside
    return dict.fromkeys(address for address in found if address)


def _node_addresses(nodes: Iterable[Node]) -> list[str]:
    """Return the addresses of ready nodes: those outside the cluster, if there are such."""
    ready = [node for node in nodes if any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)]
    for type_ in _NODE_TYPES:
        found = {a.address for node in ready for a in node.status.addresses if a.type == type_}
        if found:
            return sorted(found, key=_by_number)
    return []


def _by_number(address: str) -> tuple[int, int, str]:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return 9, 0, address
    return parsed.version, int(parsed), address


def _published(status: bytes) -> tuple[str, ...]:
    """Return the addresses in a Gateway's status."""
    try:
        decoded = msgspec.json.decode(status or b"{}", type=_Status)
    except msgspec.MsgspecError:
        return ()
    return tuple(address.value for address in decoded.addresses if address.value)
