"""Where each Gateway's proxy listens on this machine: a loopback address of its own, and ports it may bind."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from meshgw.api.meta import Key
from meshgw.control import Endpoint, accepted_gateways, requested_addresses, wanted_endpoints
from meshgw.engine import Graph, Table
from meshgw.ir.gateway import Binding
from meshgw.resolve import tables as t

DEFAULT_OFFSET = 10_000
"""Added to ports below 1024 where they cannot be bound: 80 becomes 10080."""

_PRIVILEGED = 1024
_HIGHEST_PORT = 65_535
_CAP_NET_BIND_SERVICE = 10
_FIRST = ipaddress.IPv4Address("127.0.0.1")
_ADDRESSES = 254

K = TypeVar("K", bound=Hashable)


class Wanted(NamedTuple):
    """What a Gateway asks for: its listeners' ports and its `spec.addresses`."""

    endpoints: frozenset[Endpoint]
    addresses: tuple[str, ...] = ()


class LoopbackPlacing:
    """Places Gateways on loopback addresses; `offset` is added to ports below 1024."""

    follows: tuple[Table[Any, Any], ...] = (t.GATEWAYS, t.OUR_GATEWAYS, t.LISTENERS)
    """The addresses that a Gateway asks for are in the object alone."""

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset

    def place(self, graph: Graph) -> dict[Key, Binding | None]:
        """Return the bindings that must change."""
        before = dict(graph.rows(t.BINDINGS))
        wanted = {
            key: Wanted(wanted_endpoints(graph, gateway), requested_addresses(graph, key))
            for key, gateway in accepted_gateways(graph).items()
        }
        after = assign_addresses(wanted, before=before, offset=self._offset)
        gone: dict[Key, Binding | None] = dict.fromkeys(before.keys() - after.keys())
        return gone | {key: binding for key, binding in after.items() if before.get(key) != binding}


def assign_addresses(
    wanted: Mapping[K, Wanted], *, before: Mapping[K, Binding] | None = None, offset: int = 0
) -> dict[K, Binding]:
    """Return where each Gateway listens.

    127.0.0.1 serves as many Gateways as do not want the same port; each further one gets the next loopback address. A
    Gateway keeps the address it had `before` while its ports allow, and otherwise the order of `wanted` decides.
    Requested addresses other than loopback ones are unusable, and a Gateway with none but those is bound nowhere else
    than on loopback.
    """
    earlier = before or {}
    taken: dict[str, set[Endpoint]] = {}
    result: dict[K, Binding] = {}
    for key in sorted(wanted, key=lambda key: key not in earlier):
        wish = wanted[key]
        usable, unusable = _split(wish.addresses)
        own = _offset(wish.endpoints, offset)
        ports = frozenset((transport, _bound(port, own)) for transport, port in wish.endpoints)
        previous = (earlier[key].bind,) if key in earlier else ()
        bind = _pick([*usable[:1], *previous], ports, taken, requested=bool(usable))
        taken.setdefault(bind, set()).update(ports)
        result[key] = Binding(bind=bind, addresses=(bind,), unusable=unusable, port_offset=own)
    return {key: result[key] for key in wanted}


def default_port_offset() -> int:
    """Return 0 where a child process may bind privileged ports, else `DEFAULT_OFFSET`."""
    return 0 if may_bind_privileged_ports() else DEFAULT_OFFSET


def may_bind_privileged_ports(proc: Path = Path("/proc")) -> bool:
    """Whether a program started by this process may listen on ports 80 and 443."""
    try:
        if int((proc / "sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
            return True
        # Root's children keep its capabilities; others inherit only ambient ones.
        field = "CapEff" if os.geteuid() == 0 else "CapAmb"
        status = (proc / "self/status").read_text()
        mask = next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:"))
    except (OSError, ValueError, StopIteration):
        return os.geteuid() == 0
    return bool(int(mask, 16) >> _CAP_NET_BIND_SERVICE & 1)


def _pick(
    candidates: list[str], ports: frozenset[Endpoint], taken: Mapping[str, set[Endpoint]], *, requested: bool
) -> str:
    if requested:
        return candidates[0]  # what the user asked for stands, conflicts show when it is claimed
    pool = (str(_FIRST + number) for number in range(_ADDRESSES))
    for address in (*candidates, *pool):
        if not ports & taken.get(address, set()):
            return address
    return str(_FIRST)


def _offset(endpoints: Iterable[Endpoint], offset: int) -> int:
    """Return `offset`, or a multiple of it that keeps shifted ports clear of the Gateway's other ports."""
    wanted = set(endpoints)
    low = {(transport, port) for transport, port in wanted if port < _PRIVILEGED}
    if not offset or not low:
        return offset
    for candidate in range(offset, _HIGHEST_PORT - _PRIVILEGED, offset):
        if not {(transport, port + candidate) for transport, port in low} & wanted:
            return candidate
    return offset


def _bound(port: int, offset: int) -> int:
    return Binding(port_offset=offset).port(port)


def _split(addresses: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the loopback addresses among the requested ones, and the others."""
    usable: list[str] = []
    unusable: list[str] = []
    for text in addresses:
        try:
            fine = ipaddress.ip_address(text).is_loopback
        except ValueError:
            fine = False
        (usable if fine else unusable).append(text)
    return usable, tuple(unusable)
