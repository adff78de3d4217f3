"""Listeners that get in each other's way on a port, and TLS listeners whose host names overlap."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from meshgw.ir.gateway import Protocol
from meshgw.ir.keys import ListenerKey
from meshgw.resolve.hostnames import covering

PROTOCOL_CONFLICT = "ProtocolConflict"
HOSTNAME_CONFLICT = "HostnameConflict"

_FAMILIES = {Protocol.HTTPS: "TLS", Protocol.TLS: "TLS"}
"""HTTPS and TLS share a port, as the server name tells them apart; every other protocol wants its port for itself."""
_BY_HOSTNAME = frozenset({"HTTP", "TLS"})


class Place(NamedTuple):
    """Where a listener wants to be."""

    key: ListenerKey
    port: int
    protocol: Protocol
    hostname: str

    @property
    def family(self) -> str:
        """Protocols of one family share a port when their host names differ."""
        return _FAMILIES.get(self.protocol, self.protocol.value)

    @property
    def socket(self) -> tuple[bool, int]:
        """TCP and UDP ports of one number are two ports."""
        return self.protocol is Protocol.UDP, self.port

    @property
    def owner(self) -> tuple[str, str, str]:
        """The Gateway or ListenerSet that declares the listener."""
        return self.key.owner_kind, *self.key.owner


class _Claims:
    """What is taken of one port."""

    def __init__(self) -> None:
        self.families: set[str] = set()
        self.hostnames: set[str] = set()

    def refuses(self, place: Place) -> str:
        """Return the reason why a later owner's listener cannot be here, or ""."""
        if self.families - {place.family} or (self.families and place.family not in _BY_HOSTNAME):
            return PROTOCOL_CONFLICT
        return HOSTNAME_CONFLICT if place.hostname in self.hostnames else ""

    def take(self, places: Iterable[Place]) -> None:
        for place in places:
            self.families.add(place.family)
            self.hostnames.add(place.hostname)


def find_conflicts(places: Sequence[Place]) -> Mapping[ListenerKey, str]:
    """Return the conflicted listeners and the reason of each; `places` come in order of precedence, owner by owner.

    Owners go one after the other (GEP-1713): what clashes with an earlier owner's listener loses. Of one owner's own
    listeners that clash none is better than another, so all of them lose, and they still bar later owners: else one
    could take over a host by waiting for a mistake.
    """
    conflicts: dict[ListenerKey, str] = {}
    taken: defaultdict[tuple[bool, int], _Claims] = defaultdict(_Claims)
    for _owner, group in groupby(places, key=lambda place: place.owner):
        sockets: defaultdict[tuple[bool, int], list[Place]] = defaultdict(list)
        for place in group:
            if reason := taken[place.socket].refuses(place):
                conflicts[place.key] = reason
            else:
                sockets[place.socket].append(place)
        for socket, rivals in sockets.items():
            conflicts.update(_mutual(rivals))
            taken[socket].take(rivals)
    return conflicts


def _mutual(rivals: list[Place]) -> dict[ListenerKey, str]:
    """Return the conflicts among one owner's listeners of one port."""
    families = {place.family for place in rivals}
    if len(families) > 1 or (len(rivals) > 1 and not families <= _BY_HOSTNAME):
        return {place.key: PROTOCOL_CONFLICT for place in rivals}
    uses = Counter(place.hostname for place in rivals)
    return {place.key: HOSTNAME_CONFLICT for place in rivals if uses[place.hostname] > 1}


def find_overlaps(places: Iterable[Place]) -> frozenset[ListenerKey]:
    """Return the TLS listeners that share some hosts with another one of their port."""
    ports: defaultdict[int, dict[str, ListenerKey]] = defaultdict(dict)
    for place in places:
        if place.family == "TLS":
            ports[place.port][place.hostname] = place.key
    return frozenset(
        key
        for hosts in ports.values()
        for host in hosts
        for wider in covering(host)
        if wider != host and wider in hosts
        for key in (hosts[host], hosts[wider])
    )
