"""Parts that tests of the cluster application share: objects from YAML, as reflectors see them."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from meshgw.api.decode import decode
from meshgw.api.meta import Key, Resource
from meshgw.api.registry import Kind
from meshgw.control import Batch
from meshgw.kube.seen import Observed, Seen
from meshgw.pipeline import list_facts, list_kinds

KINDS = list_kinds()


def kind(name: str) -> Kind:
    """Return a kind by name."""
    found = KINDS.by_name(name)
    assert found is not None
    return found


def objects(text: str) -> Iterator[Resource]:
    """Yield the objects of YAML documents."""
    for document in yaml.safe_load_all(text):
        decoded = decode(document, KINDS)
        assert decoded.object is not None, decoded.problems
        yield decoded.object


def batch(text: str) -> Batch:
    """Return the objects of YAML documents as facts."""
    tables = list_facts()
    found: Batch = {}
    for row in objects(text):
        found.setdefault(tables[KINDS.kind_of(row).name], {})[row.key] = row
    return found


def seen(row: Resource, *, version: str = "1", status: bytes = b"") -> Seen:
    """Return an object as a reflector has seen it."""
    return Seen(row.key, row, Observed(uid="u", resource_version=version, generation=1, status=status))


def gone(key: Key) -> Seen:
    """Return that an object is gone."""
    return Seen(key, None, None)
