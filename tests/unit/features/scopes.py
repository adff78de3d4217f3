"""Scopes for the tests of features."""

from __future__ import annotations

from meshgw.features import RouteScope
from meshgw.ir.keys import RouteKey
from meshgw.ir.route import Filters, Rule
from tests.unit.emit.world import CONFIG, NOTHING

ROUTE = RouteKey("HTTPRoute", "default", "echo")


def scope(*, rule: Rule | None = None, filters: Filters | None = None, redirects: bool = False) -> RouteScope:
    """A scope whose view holds nothing."""
    return RouteScope(NOTHING, CONFIG, ROUTE, rule or Rule(), filters or Filters(), redirects)
