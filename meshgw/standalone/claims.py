"""Addresses held by this instance, so that no two instances, and nobody else, listen on one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshgw.api.meta import Key, ObjectRef
from meshgw.control import Endpoint, listener_resources
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Binding, Transport
from meshgw.ir.keys import ResourceKey
from meshgw.standalone.lock import InUseError, Lock, claim_address

_Place = tuple[Transport, str, int]
"""Transport, address and port."""


class Claims:
    """The locks of one instance. An address that cannot be had is remembered and tried again at the next change."""

    def __init__(self) -> None:
        self._locks: dict[_Place, Lock] = {}
        self._refused: dict[tuple[Key, Endpoint], str] = {}

    def claim(self, binding: Binding, endpoints: Iterable[Endpoint], *, probe: bool = True) -> None:
        """Claim a Gateway's addresses; raises InUseError at the first that is taken."""
        for transport, port in sorted(endpoints):
            self._take((transport, binding.bind, binding.port(port)), probe=probe)

    def follow(self, wanted: Mapping[Key, tuple[Binding, frozenset[Endpoint]]]) -> None:
        """Claim what is wanted and not held, and release what is no longer wanted."""
        places = {
            (key, endpoint): (endpoint[0], binding.bind, binding.port(endpoint[1]))
            for key, (binding, endpoints) in wanted.items()
            for endpoint in endpoints
        }
        for gone in self._locks.keys() - places.values():
            self._locks.pop(gone).release()
        self._refused = {}
        for (key, endpoint), place in sorted(places.items()):
            try:
                self._take(place)
            except InUseError as error:
                self._refused[key, endpoint] = str(error)

    def held(self) -> frozenset[ResourceKey]:
        """Return the listeners that must not be served, as somebody else has their address."""
        return frozenset(name for key, endpoint in self._refused for name in listener_resources(key, endpoint))

    def findings(self) -> list[Finding]:
        """Return one finding for each address that cannot be had."""
        return [
            Finding(code="MG6003", object=ObjectRef("Gateway", *key), field="spec.listeners", message=text)
            for (key, _endpoint), text in sorted(self._refused.items())
        ]

    def release(self) -> None:
        """Release everything."""
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()

    def _take(self, place: _Place, *, probe: bool = True) -> None:
        if place not in self._locks:
            transport, host, port = place
            self._locks[place] = claim_address(host, port, transport=transport, probe=probe)
