"""The pipeline and its consequences: where Gateways listen, and the resources of their proxies.

Both applications are built around it. No I/O and no waiting: facts are committed, and what follows is handed to
callbacks before `commit` returns. Where Gateways listen is the business of a strategy: `Placing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from meshgw import names
from meshgw.api.meta import Key, ObjectRef, StrictResource
from meshgw.api.meta import Resource as Object
from meshgw.api.stand_in import stand_in
from meshgw.emit.resource import LISTENER, Resource
from meshgw.emit.tables import RESOURCES
from meshgw.engine import Delta, Fault, Graph, Table
from meshgw.engine.table import fault_of
from meshgw.ir import gateway as ir
from meshgw.ir.codes import CODES
from meshgw.ir.finding import Finding, Level
from meshgw.ir.gateway import Binding, Gateway, Role, Settings, Transport
from meshgw.ir.keys import ResourceKey
from meshgw.observe.heap import watched_by_size
from meshgw.observe.log import get_logger
from meshgw.observe.metrics import Metrics
from meshgw.pipeline import build_graph, list_kinds
from meshgw.resolve import tables as t

_log = get_logger("control")

Batch = dict[Table[Any, Any], dict[Any, Any]]
"""Facts to set, and None for those that are gone."""
Publish = Callable[[Key, Mapping[tuple[str, str], Resource | None]], None]
Endpoint = tuple[Transport, int]
"""Transport and port of a listener."""


class Placing(Protocol):
    """Decides where Gateways listen and are reached: on loopback addresses, or behind Services."""

    @property
    def follows(self) -> tuple[Table[Any, Any], ...]:
        """The tables from which it follows: a change in one of them asks again."""

    def place(self, graph: Graph) -> dict[Key, Binding | None]:
        """Return the bindings that must change, None for those to remove."""


class Outcome(msgspec.Struct, frozen=True):
    """What one commit did: `gateways` changed in a way that concerns their proxies or addresses.

    `set_aside` is what of the batch could not be taken in.
    """

    deltas: tuple[Delta, ...]
    seconds: float
    gateways: bool
    set_aside: tuple[Finding, ...] = ()


class _Aside(NamedTuple):
    """A fact that could not be taken in, None for one that could not be removed, and what is said of it."""

    row: Any
    finding: Finding


class Control:
    """One pipeline. `publish` gets each Gateway's changed resources, once per commit."""

    def __init__(
        self, *, settings: Settings, placing: Placing, publish: Publish, metrics: Metrics, incremental: bool = True
    ) -> None:
        self.graph = build_graph(incremental=incremental)
        self._placing = placing
        self._publish = publish
        self._metrics = metrics
        self._held: frozenset[ResourceKey] = frozenset()
        self._unsent: set[ResourceKey] = set()
        self._unreported: list[Delta] = []  # of a commit that failed half-way: the graph has them already
        self._moved = False
        self._aside: dict[tuple[Table[Any, Any], Hashable], _Aside] = {}
        self._findings: tuple[Finding, ...] | None = None
        self.graph.commit({t.SETTINGS: {t.SINGLE: settings}})

    def commit(self, batch: Batch, *, moved: bool = False) -> Outcome:
        """Commit facts; then bindings, if the facts or something else has `moved` them; publish the sum of both.

        What the pipeline cannot take in is set aside and costs nothing else. Raises, and publishes nothing, if not even
        what it had can be computed again, or if a policy can be replaced by nothing that denies; what is taken in by
        then is published and told with the next commit that does not.
        """
        with watched_by_size(batch):
            return self._commit(batch, moved=moved)

    @property
    def aside(self) -> Batch:
        """What has been set aside, to be tried again: it may have been something else's fault."""
        return _batch((table, key, one.row) for (table, key), one in self._aside.items())

    def hold(self, held: frozenset[ResourceKey]) -> None:
        """Keep these resources from the proxies (listeners whose address somebody else holds), and release others."""
        changed = held ^ self._held
        self._held = held
        self._send(changed)

    def gateways(self) -> dict[Key, Gateway]:
        """Return the Gateways that have proxies: the accepted ones, sorted."""
        return accepted_gateways(self.graph)

    def endpoints(self, gateway: Gateway) -> frozenset[Endpoint]:
        """Return transport and port of every listener that could be served, before any offset."""
        return wanted_endpoints(self.graph, gateway)

    def binding(self, gateway: Key) -> Binding:
        """Return where a Gateway listens."""
        return self.graph.get(t.BINDINGS, gateway) or Binding()

    def accounts(self) -> set[Key]:
        """Return the ServiceAccounts whose identity Gateways have."""
        rows = self.gateways().items()
        return {Key(key.namespace, row.service_account) for key, row in rows if row.service_account}

    def nameless(self, refused: Mapping[Key, str]) -> Iterable[Finding]:
        """Return a finding for each Gateway whose ServiceAccount is among the `refused`: why it has no identity."""
        for key, row in self.gateways().items():
            if message := refused.get(Key(key.namespace, row.service_account)):
                field = f"metadata.labels[{names.LABEL_SERVICE_ACCOUNT}]"
                yield Finding(code="MG5004", object=ObjectRef("Gateway", *key), field=field, message=message)

    def findings(self, *others: Iterable[Finding]) -> list[Finding]:
        """Return what the tables have to say, what went wrong in computing them, and `others`, sorted."""
        if self._findings is None:
            self._findings = _sorted(self.graph.rows(t.FINDINGS).values())
        more = {finding for found in others for finding in found}
        more.update(map(_of_fault, self.graph.faults))
        more.update(one.finding for one in self._aside.values())
        return list(_sorted((*self._findings, *more)) if more else self._findings)

    def count(self, findings: Iterable[Finding]) -> None:
        """Let the metrics show how many findings there are of each level."""
        counts = dict.fromkeys(Level, 0)
        for finding in findings:
            counts[CODES[finding.code].level] += 1
        for level, number in counts.items():
            self._metrics.findings.labels(level.value).set(number)

    def _commit(self, batch: Batch, *, moved: bool) -> Outcome:
        began = time.perf_counter()
        known = set(self._aside)
        self._moved = self._moved or moved
        self._take_in(batch)
        follows = self._placing.follows
        moved = self._moved or any(delta.changed(table) for delta in self._unreported for table in follows)
        if moved and (bindings := self._placing.place(self.graph)):
            self._take_in({t.BINDINGS: bindings})
        deltas, self._unreported, self._moved = self._unreported, [], False
        if any(delta.changed(t.FINDINGS) for delta in deltas):
            self._findings = None
        self._send({key for delta in deltas for key in delta.changed(RESOURCES)})
        seconds = time.perf_counter() - began
        self._measure(deltas, seconds)
        new = tuple(one.finding for fact, one in self._aside.items() if fact not in known)
        return Outcome(tuple(deltas), seconds, moved, new)

    def _advance(self, batch: Batch) -> None:
        self._unreported.append(self.graph.commit(batch))

    def _take_in(self, batch: Batch) -> None:
        """Commit facts. Where that fails, halves of them, until what cannot be taken in stands alone."""
        try:
            self._advance(batch)
        except Exception as error:
            # Whatever it is, what is good of the batch must not wait for the rest.
            self._advance({})  # that this works shows that it is the batch
            facts = [(table, key, row) for table, rows in batch.items() for key, row in rows.items()]
            if len(facts) > 1:
                middle = len(facts) // 2
                self._take_in(_batch(facts[:middle]))
                self._take_in(_batch(facts[middle:]))
                return
            if not facts:
                raise
            self._set_aside(*facts[0], error)
            return
        if self._aside:
            for table, rows in batch.items():
                for key in rows:
                    self._aside.pop((table, key), None)
            self._metrics.set_aside.set(len(self._aside))

    def _set_aside(self, table: Table[Any, Any], key: Hashable, row: Any, error: Exception) -> None:
        """Leave a fact as it was known before; for a policy that was not known comes one that denies."""
        fault = fault_of(table.name, key, error)
        _log.error("set aside", table=table.name, key=str(key), error=str(error), at=fault.where)
        ref = _ref(row if row is not None else self.graph.get(table, key)) or _of_fault(fault).object
        message = f"cannot be taken in ({type(error).__name__}): what was known before stays"
        stand = _stand_in(row)
        if stand is not None and self.graph.get(table, key) is None:
            message = f"cannot be taken in ({type(error).__name__}): it denies"
            self._advance({table: {key: stand}})
        self._aside[table, key] = _Aside(row, Finding(code="MG9001", object=ref, message=message))
        self._metrics.set_aside.set(len(self._aside))

    def _send(self, keys: Iterable[ResourceKey]) -> None:
        by_gateway: dict[Key, dict[tuple[str, str], Resource | None]] = {}
        unsent, self._unsent = self._unsent, set()
        for key in {*keys, *unsent} if unsent else keys:
            resource = None if key in self._held else self.graph.get(RESOURCES, key)
            by_gateway.setdefault(key.gateway, {})[key.type_url, key.name] = resource
        for gateway, changes in by_gateway.items():
            try:
                self._publish(gateway, changes)
            except Exception:  # noqa: BLE001 - a bug that concerns one must not cost others; its own get it next time
                _log.exception("not published", gateway=str(gateway))
                self._unsent.update(ResourceKey(gateway, *name) for name in changes)

    def _measure(self, deltas: list[Delta], seconds: float) -> None:
        self._metrics.commits.inc()
        self._metrics.commit_seconds.observe(seconds)
        for delta in deltas:
            self._metrics.recomputed(delta.recomputed)
            for fault in delta.faults:
                self._metrics.faults.labels(fault.table).inc()
                _log.error("internal error", table=fault.table, key=str(fault.key), at=fault.where)


def accepted_gateways(graph: Graph) -> dict[Key, Gateway]:
    """Return the Gateways that have proxies, sorted."""
    return {key: row for key, row in sorted(graph.rows(t.OUR_GATEWAYS).items()) if row.accepted}


def wanted_endpoints(graph: Graph, gateway: Gateway) -> frozenset[Endpoint]:
    """Return transport and port of every listener of a Gateway that could be served."""
    found: set[Endpoint] = {
        ("udp" if listener.protocol is ir.Protocol.UDP else "tcp", listener.port)
        for _key, listener in graph.by(t.LISTENERS, "gateway", gateway.key)
        if listener.protocol is not None
    }
    if gateway.role is Role.WAYPOINT:
        found.add(("tcp", names.HBONE_PORT))
    return frozenset(found)


def requested_addresses(graph: Graph, gateway: Key) -> tuple[str, ...]:
    """Return the values of a Gateway's `spec.addresses`; one without a value asks for any."""
    source = graph.get(t.GATEWAYS, gateway)
    return tuple(a.value for a in (source.spec.addresses or ()) if a.value) if source else ()


def listener_resources(gateway: Key, endpoint: Endpoint) -> tuple[ResourceKey, ...]:
    """Return the keys that the Envoy listener of a port can have."""
    transport, port = endpoint
    named = [f"{transport}/{port}"]
    if endpoint == ("tcp", names.HBONE_PORT):
        named.append(names.LISTENER_CONNECT_TERMINATE)
    return tuple(ResourceKey(gateway, LISTENER, name) for name in named)


def _batch(facts: Iterable[tuple[Table[Any, Any], Hashable, Any]]) -> Batch:
    batch: Batch = {}
    for table, key, row in facts:
        batch.setdefault(table, {})[key] = row
    return batch


def _ref(row: object) -> ObjectRef | None:
    return ObjectRef(list_kinds().kind_of(row).name, *row.key) if isinstance(row, Object) else None


def _stand_in(row: object) -> StrictResource | None:
    """Return what denies in the place of a policy, None for all else."""
    ref = _ref(row)
    if ref is None or not isinstance(row, StrictResource):
        return None
    return stand_in(list_kinds().kind_of(row), ref, msgspec.to_builtins(row), "internal error")


def _sorted(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(set(found), key=lambda finding: finding.sort_key))


def _of_fault(fault: Fault) -> Finding:
    key = fault.key
    namespace, name = (key[-2], key[-1]) if isinstance(key, tuple) and len(key) >= 2 else ("", str(key))
    message = f"{fault.table}: {type(fault.error).__name__}"
    return Finding(code="MG9001", object=ObjectRef("Row", str(namespace), str(name)), message=message)
