"""A bug for tests: a feature whose step reads an index that there is not, for objects of certain names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshgw.api.meta import Key
from meshgw.engine import Derived, Table, View
from meshgw.features.feature import Feature
from meshgw.resolve import tables as t

SWALLOWED: Table[Key, str] = Table("swallowed")


def _swallow(view: View, key: Key, row: object) -> Iterable[tuple[Key, str]]:
    if key.name == "venom" or (key.name == "poison" and not getattr(row, "unreadable", "")):
        view.by(t.GATEWAYS, "no such index", None)
    return ()


def poisonous(source: Table[Key, Any]) -> Feature:
    """Return the feature that no commit of an object called `poison` gets past.

    What stands for an unreadable policy does, unless that is called `venom`.
    """
    return Feature(name="poisonous", steps=(Derived(SWALLOWED, source=source, fn=_swallow),))
