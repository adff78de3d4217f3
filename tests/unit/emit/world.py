"""A small world of resolved rows and what the emit steps make of them, wired as in the pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from meshgw import pipeline
from meshgw.api.meta import Key
from meshgw.emit import tables as out
from meshgw.emit.resource import Resource
from meshgw.emit.static import emit_static
from meshgw.engine import Delta, Graph, Table
from meshgw.ir.backend import Cluster, Endpoint, Endpoints
from meshgw.ir.gateway import Binding, Gateway, Listener, ListenerTls, Protocol, Role
from meshgw.ir.keys import BackendTarget, ClusterKey, ListenerKey, ResourceKey, RouteConfigKey, RouteKey
from meshgw.ir.mesh import Authorization
from meshgw.ir.route import Backend, Filters, HostEntry, HostKind, L4Binding, L4Chain, Match, Route, Rule
from meshgw.resolve import tables as t
from meshgw.resolve.authorization import WORKLOADS_OF
from meshgw.resolve.hostnames import route_config

GATEWAY = Key("default", "gw")
CONFIG = RouteConfigKey(GATEWAY, "http/80")
FACTS = tuple(value for value in vars(t).values() if isinstance(value, Table))
STEPS = tuple(step for step in pipeline.list_steps() if step.table not in FACTS)
"""The emit steps: all that derive no table of the resolve layer."""


def emit_graph() -> Graph:
    return Graph(sources=FACTS, steps=STEPS)


def target(name: str = "app", port: int = 80, protocol: str = "") -> BackendTarget:
    return BackendTarget("Service", "default", name, port, protocol)


def backend(name: str = "app", weight: int = 1, **filters: Any) -> Backend:
    return Backend(target=target(name), weight=weight, filters=Filters(**filters) if filters else None)


def route(*rules: Rule, name: str = "route", kind: str = "HTTPRoute", created: str = "") -> Route:
    return Route(key=RouteKey(kind, "default", name), rules=rules, created=created)


def match(*precedence: int, **conditions: Any) -> Match:
    return Match(precedence=precedence or (0,), **conditions)


def listener(
    name: str = "http", port: int = 80, protocol: Protocol = Protocol.HTTP, hostname: str = "", **rest: Any
) -> Listener:
    key = ListenerKey(GATEWAY, "Gateway", GATEWAY, name)
    return Listener(key=key, port=port, protocol=protocol, hostname=hostname, serving=True, accepted=True, **rest)


def https(name: str, hostname: str, *certificates: str, port: int = 443, **rest: Any) -> Listener:
    return listener(name, port, Protocol.HTTPS, hostname, tls=ListenerTls(certificates=certificates, **rest))


class World:
    """Rows, committed to a graph of the emit steps."""

    def __init__(self, *, bind: str = "127.0.0.1", offset: int = 0, role: Role = Role.INGRESS) -> None:
        self.graph = emit_graph()
        self.rows: dict[Any, dict[Any, Any]] = {
            t.BINDINGS: {GATEWAY: Binding(bind=bind, port_offset=offset)},
            t.OUR_GATEWAYS: {
                GATEWAY: Gateway(key=GATEWAY, class_name="meshgw", role=role, accepted=True, service_account="gw")
            },
            t.AUTHORIZATIONS: {(GATEWAY, WORKLOADS_OF): Authorization()},
        }

    def put(self, table: Any, key: Any, row: Any) -> None:
        self.rows.setdefault(table, {})[key] = row

    def listen(self, *listeners: Listener) -> None:
        for row in listeners:
            self.put(t.LISTENERS, row.key, row)
            if row.protocol in {Protocol.HTTP, Protocol.HTTPS}:
                self.claim(row, row.hostname or "*", RouteKey("", "", row.key.name), HostKind.EMPTY)

    def claim(
        self, row: Listener, domain: str, claimant: RouteKey, kind: HostKind = HostKind.ROUTE, **rest: Any
    ) -> None:
        entry = HostEntry(kind=kind, port=row.port, https=row.protocol is Protocol.HTTPS, **rest)
        self.put(t.HOSTS, (route_config(row), domain, claimant), entry)

    def serve(self, row: Listener, compiled: Route, *domains: str) -> None:
        self.put(t.ROUTES, compiled.key, compiled)
        for domain in domains or ("*",):
            self.claim(row, domain, compiled.key)

    def forward(self, row: Listener, *chains: tuple[Sequence[str], Iterable[Backend]]) -> None:
        key = RouteKey("TLSRoute", "default", "route")
        self.put(
            t.L4_BINDINGS,
            row.key,
            L4Binding(
                listener=row.key,
                chains=tuple(
                    L4Chain(
                        route=key._replace(name=f"route-{index}"), server_names=tuple(names), backends=tuple(backends)
                    )
                    for index, (names, backends) in enumerate(chains)
                ),
            ),
        )

    def reach(self, where: BackendTarget, *endpoints: Endpoint | tuple[str, int], **cluster: Any) -> ClusterKey:
        key = ClusterKey(GATEWAY, where)
        rows = [item if isinstance(item, Endpoint) else Endpoint(address=item[0], port=item[1]) for item in endpoints]
        self.put(t.CLUSTERS, key, Cluster(key=key, **cluster))
        self.put(t.ENDPOINTS, key, Endpoints(key=key, endpoints=tuple(rows)))
        return key

    def commit(self) -> Delta:
        delta = self.graph.commit(self.rows)
        self.rows = {}
        assert delta.faults == ()
        return delta

    @property
    def resources(self) -> dict[ResourceKey, Resource]:
        return dict(self.graph.rows(out.RESOURCES))

    def resource(self, type_url: str, name: str) -> Resource:
        return self.resources[ResourceKey(GATEWAY, type_url, name)]

    def static(self) -> dict[str, Any]:
        return emit_static(self.resources.values())


def replace(row: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(row, **changes)


__all__ = ["RouteConfigKey", "Rule", "World"]


NOTHING = Graph(sources=(), steps=())
"""A view of no tables at all."""
