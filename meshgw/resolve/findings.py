"""Findings of all tables in one: every resolved row carries its own, here they become rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshgw.api.meta import ObjectRef
from meshgw.engine import View
from meshgw.ir.finding import Finding
from meshgw.ir.route import Route
from meshgw.resolve.tables import PARENTS


def gather_findings(view: View, table: str, key: Any, row: Any) -> Iterable[tuple[tuple[ObjectRef, str, int], Finding]]:
    """Return the findings of one row, keyed by the object they are about and the row they came from.

    A route that names no Gateway of ours is another controller's business.
    """
    if not row.findings or (isinstance(row, Route) and not view.by(PARENTS, "route", row.key)):
        return
    for position, finding in enumerate(row.findings):
        yield (finding.object, f"{table}:{key!r}", position), finding
