"""Plain documents (mappings, lists, strings, numbers) from the tables: resolved values, statuses, findings."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum
from typing import Any

import msgspec

from meshgw import features
from meshgw.api.meta import Key
from meshgw.emit.proxy import API_VERSIONS
from meshgw.emit.tables import PROXY_OBJECTS
from meshgw.engine import Graph, Table
from meshgw.ir.codes import CODES
from meshgw.ir.finding import Finding
from meshgw.ir.status import document
from meshgw.resolve import tables as t

RESOLVED: tuple[Table[Any, Any], ...] = (
    t.CLASSES,
    t.OUR_GATEWAYS,
    t.LISTENERS,
    t.PROXY_PLANS,
    t.ENROLMENTS,
    t.WAYPOINT_SERVICES,
    t.WAYPOINT_WORKLOADS,
    t.AUTHORIZATIONS,
    t.ATTACHMENTS,
    t.ROUTES,
    t.HOSTS,
    t.L4_BINDINGS,
    t.CLUSTERS,
    t.ENDPOINTS,
)
"""Tables that `translate --to ir` shows, besides those of features. None of them holds key material."""


def render_resolved(graph: Graph) -> dict[str, Any]:
    """Return the resolved tables by name, rows by key; empty tables, status conditions and findings are left out."""
    rendered = {}
    for table in (*RESOLVED, *(table for feature in features.FEATURES for table in feature.resolved)):
        rows = {name_key(key): _row(row) for key, row in sorted(graph.rows(table).items())}
        if rows:
            rendered[table.name] = rows
    return rendered


_ELSEWHERE = frozenset({"conditions", "findings", "key"})
"""Fields of rows that other outputs show, or that repeat the row's key."""


def _row(row: Any) -> Any:
    built = _plain(row)
    if isinstance(built, dict):
        return {name: value for name, value in built.items() if name not in _ELSEWHERE}
    return built


def _plain(value: Any) -> Any:
    """Return builtins: keys become paths, defaults are left out."""
    match value:
        case msgspec.Struct():
            fields = msgspec.structs.fields(value)
            pairs = ((field.name, getattr(value, field.name), field.default) for field in fields)
            return {name: _plain(content) for name, content, default in pairs if content != default}
        case tuple() if hasattr(value, "_fields"):
            return name_key(value)
        case tuple() | list():
            return [_plain(part) for part in value]
        case bytes():
            return value.decode()
        case Enum():
            return value.value
        case _:
            return value


def name_key(key: Any) -> str:
    """Return a key as a path of its parts; empty parts are kept as `-` so that places do not shift."""
    return "/".join(_parts(key))


def _parts(key: Any) -> Iterable[str]:
    if isinstance(key, tuple):
        for part in key:
            yield from _parts(part)
    else:
        yield str(key) or "-"


def render_statuses(graph: Graph) -> list[dict[str, Any]]:
    """Return one document per object with our status, in the order of kind, namespace, name."""
    return [
        {"kind": ref.kind, **({"namespace": ref.namespace} if ref.namespace else {}), "name": ref.name}
        | {"status": document(status)}
        for ref, status in sorted(graph.rows(t.STATUSES).items())
    ]


def render_proxies(graph: Graph, gateways: Collection[Key] | None = None) -> dict[str, Any]:
    """Return the Kubernetes objects of proxies as one List, Gateway by Gateway in the order in which they are made."""
    order = list(API_VERSIONS)
    rows = sorted(
        graph.rows(PROXY_OBJECTS).items(), key=lambda item: (item[1].gateway, order.index(item[0].kind), item[0])
    )
    items = [msgspec.json.decode(row.body) for _ref, row in rows if gateways is None or row.gateway in gateways]
    return {"apiVersion": "v1", "kind": "List", "items": [_as_read(item) for item in items]}


_FIRST = ("apiVersion", "kind", "metadata")


def _as_read(item: dict[str, Any]) -> dict[str, Any]:
    """Return an object with its fields in the order in which people look for them."""
    return {name: item[name] for name in _FIRST} | item


def render_finding(finding: Finding) -> dict[str, str]:
    """Return a finding with its level."""
    return {
        "code": finding.code,
        "level": CODES[finding.code].level.value,
        "object": str(finding.object),
        **({"field": finding.field} if finding.field else {}),
        "message": finding.message,
    }


def render_findings(graph: Graph, others: Iterable[Finding] = ()) -> list[dict[str, str]]:
    """Return all findings of the tables and the given ones, sorted, without repeats."""
    found = {*graph.rows(t.FINDINGS).values(), *others}
    return [render_finding(finding) for finding in sorted(found, key=lambda finding: finding.sort_key)]
