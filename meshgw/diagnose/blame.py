"""Which objects are behind a resource that an Envoy refuses: those whose change made it what it is.

The engine knows which commit changed a row last, and what of its sources changed in that commit. Followed back from the
resource to objects, that is what somebody did just before Envoy said no.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from meshgw.api.meta import Key, ObjectRef
from meshgw.api.registry import Registry
from meshgw.emit.tables import RESOURCES
from meshgw.engine import Cause, Graph, why
from meshgw.ir.keys import ResourceKey

FEW: Final = 3
"""More objects than these are nobody's fault in particular, unless Envoy names them."""
_MOST: Final = 500
"""Rows that are looked at."""

Row = tuple[str, Any]
"""Table and key."""


def blame(graph: Graph, kinds: Registry, refused: Iterable[ResourceKey], said: str) -> tuple[ObjectRef, ...]:
    """Return the objects by whose last change these resources are refused, sorted; none where nobody can say.

    Of many objects, as after a start, only those count that Envoy names in what it `said`. A resource that has changed
    again since is judged as it is now.
    """
    tables = {kind.plural: kind.name for kind in kinds.kinds}
    found: set[ObjectRef] = set()
    for table, key in _origins(graph, refused):
        if table in tables and isinstance(key, Key):
            found.add(ObjectRef(tables[table], *key))
    if len(found) > FEW:
        found = {ref for ref in found if f"{ref.namespace}/{ref.name}" in said}
    return tuple(sorted(found)) if len(found) <= FEW else ()


def _origins(graph: Graph, refused: Iterable[ResourceKey]) -> Iterator[Row]:
    """Yield the source rows that changed with the resources."""
    waiting: list[Row] = [(RESOURCES.name, key) for key in refused if graph.get(RESOURCES, key) is not None]
    seen = set(waiting)
    while waiting:
        name, key = waiting.pop()
        reason = why(graph, graph.tables[name], key)
        if not reason.step:
            yield name, key
            continue
        for cause in reason.latest:
            new = [row for row in _changed(graph, cause) if row not in seen]
            if len(seen) + len(new) > _MOST:
                return
            seen.update(new)
            waiting += new


def _changed(graph: Graph, cause: Cause) -> Iterator[Row]:
    """Yield the rows of a cause that changed with it."""
    store = graph.store(graph.tables[cause.table])
    return ((cause.table, key) for key in cause.keys if store.stamp(key) == cause.changed)
