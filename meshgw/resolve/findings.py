"""Findings of all tables in one: every resolved row carries its own, here they become rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshgw.api.meta import ObjectRef
from meshgw.engine import View
from meshgw.ir.finding import Finding


def gather_findings(
    _view: View, table: str, key: Any, row: Any
) -> Iterable[tuple[tuple[ObjectRef, str, int], Finding]]:
    """Return the findings of one row, keyed by the object they are about and the row they came from."""
    for position, finding in enumerate(row.findings):
        yield (finding.object, f"{table}:{key!r}", position), finding
