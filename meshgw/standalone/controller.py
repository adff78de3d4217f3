"""The pipeline and its consequences on one machine: addresses for Gateways, resources for their proxies.

No I/O and no waiting: facts are committed, and what follows is handed to callbacks before `commit` returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from meshgw import names
from meshgw.api.meta import Key, ObjectRef
from meshgw.emit.resource import LISTENER, Resource
from meshgw.emit.tables import RESOURCES
from meshgw.engine import Delta, Fault, Table
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Binding, Gateway, Protocol, Role, Settings
from meshgw.ir.keys import ResourceKey
from meshgw.observe.metrics import Metrics
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from meshgw.standalone.addresses import Endpoint, Wanted, assign_addresses

Batch = dict[Table[Any, Any], dict[Any, Any]]
Publish = Callable[[Key, Mapping[tuple[str, str], Resource | None]], None]

_PLACING: tuple[Table[Any, Any], ...] = (t.GATEWAYS, t.OUR_GATEWAYS, t.LISTENERS)
"""What addresses follow from: the addresses that a Gateway asks for are in the object alone."""


class Outcome(msgspec.Struct, frozen=True):
    """What one commit did: `gateways` changed in a way that concerns their proxies or addresses."""

    deltas: tuple[Delta, ...]
    seconds: float
    gateways: bool


class Controller:
    """One pipeline. `publish` gets each Gateway's changed resources, once per commit."""

    def __init__(
        self,
        *,
        settings: Settings,
        publish: Publish,
        metrics: Metrics,
        port_offset: int = 0,
        incremental: bool = True,
    ) -> None:
        self.graph = build_graph(incremental=incremental)
        self._publish = publish
        self._metrics = metrics
        self._offset = port_offset
        self._held: frozenset[ResourceKey] = frozenset()
        self._findings: tuple[Finding, ...] | None = None
        self.graph.commit({t.SETTINGS: {t.SINGLE: settings}})

    def commit(self, batch: Batch) -> Outcome:
        """Commit facts; then addresses for Gateways whose listeners changed; then publish the sum of both."""
        began = time.perf_counter()
        deltas = [self.graph.commit(batch)]
        moved = any(deltas[0].changed(table) for table in _PLACING)
        if moved and (bindings := self._rebind()):
            deltas.append(self.graph.commit({t.BINDINGS: bindings}))
        if any(delta.changed(t.FINDINGS) for delta in deltas):
            self._findings = None
        self._send({key for delta in deltas for key in delta.changed(RESOURCES)})
        seconds = time.perf_counter() - began
        self._measure(deltas, seconds)
        return Outcome(tuple(deltas), seconds, moved)

    def hold(self, held: frozenset[ResourceKey]) -> None:
        """Keep these resources from the proxies (listeners whose address somebody else holds), and release others."""
        changed = held ^ self._held
        self._held = held
        self._send(changed)

    def gateways(self) -> dict[Key, Gateway]:
        """Return the Gateways that have a proxy here: the accepted ones."""
        rows = self.graph.rows(t.OUR_GATEWAYS)
        return {key: row for key, row in sorted(rows.items()) if row.accepted}

    def endpoints(self, gateway: Gateway) -> frozenset[Endpoint]:
        """Return transport and port of every listener that could be served, before any offset."""
        found: set[Endpoint] = {
            ("udp" if listener.protocol is Protocol.UDP else "tcp", listener.port)
            for _key, listener in self.graph.by(t.LISTENERS, "gateway", gateway.key)
            if listener.protocol is not None
        }
        if gateway.role is Role.WAYPOINT:
            found.add(("tcp", names.HBONE_PORT))
        return frozenset(found)

    def binding(self, gateway: Key) -> Binding:
        """Return where a Gateway listens."""
        return self.graph.get(t.BINDINGS, gateway) or Binding()

    def findings(self) -> tuple[Finding, ...]:
        """Return what the tables have to say, and what went wrong in computing them, sorted."""
        if self._findings is None:
            self._findings = _sorted(self.graph.rows(t.FINDINGS).values())
        faults = self.graph.faults
        return _sorted((*self._findings, *map(_of_fault, faults))) if faults else self._findings

    def _rebind(self) -> dict[Key, Binding | None]:
        """Return the bindings that must change."""
        before = dict(self.graph.rows(t.BINDINGS))
        wanted = {}
        for key, gateway in self.gateways().items():
            source = self.graph.get(t.GATEWAYS, key)
            requested = tuple(a.value for a in (source.spec.addresses or ()) if a.value) if source else ()
            wanted[key] = Wanted(self.endpoints(gateway), requested)
        after = assign_addresses(wanted, before=before, offset=self._offset)
        gone: dict[Key, Binding | None] = dict.fromkeys(before.keys() - after.keys())
        return gone | {key: binding for key, binding in after.items() if before.get(key) != binding}

    def _send(self, keys: set[ResourceKey] | frozenset[ResourceKey]) -> None:
        by_gateway: dict[Key, dict[tuple[str, str], Resource | None]] = {}
        for key in keys:
            resource = None if key in self._held else self.graph.get(RESOURCES, key)
            by_gateway.setdefault(key.gateway, {})[key.type_url, key.name] = resource
        for gateway, changes in by_gateway.items():
            self._publish(gateway, changes)

    def _measure(self, deltas: list[Delta], seconds: float) -> None:
        self._metrics.commits.inc()
        self._metrics.commit_seconds.observe(seconds)
        for delta in deltas:
            for table, count in delta.recomputed.items():
                self._metrics.rows.labels(table).inc(count)
            for fault in delta.faults:
                self._metrics.faults.labels(fault.table).inc()


def listener_resources(gateway: Key, endpoint: Endpoint) -> tuple[ResourceKey, ...]:
    """Return the keys that the Envoy listener of a port can have."""
    transport, port = endpoint
    named = [f"{transport}/{port}"]
    if endpoint == ("tcp", names.HBONE_PORT):
        named.append(names.LISTENER_CONNECT_TERMINATE)
    return tuple(ResourceKey(gateway, LISTENER, name) for name in named)


def _sorted(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(set(found), key=lambda finding: finding.sort_key))


def _of_fault(fault: Fault) -> Finding:
    key = fault.key
    namespace, name = (key[-2], key[-1]) if isinstance(key, tuple) and len(key) >= 2 else ("", str(key))
    message = f"{fault.table}: {type(fault.error).__name__}"
    return Finding(code="MG9001", object=ObjectRef("Row", str(namespace), str(name)), message=message)
