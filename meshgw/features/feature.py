"""What a policy feature is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from meshgw.api.meta import ObjectRef
from meshgw.api.registry import Kind
from meshgw.engine import Step, Table, View
from meshgw.ir.keys import RouteKey
from meshgw.ir.route import Filters, Rule
from meshgw.ir.status import PolicyStatus
from meshgw.protos import Message


class Stage(IntEnum):
    """Where a feature's HTTP filter stands: earlier stages see the request first (Envoy: filter order)."""

    NORMALIZE = 0
    FAULT = 10
    CORS = 20
    AUTHENTICATION = 30
    AUTHORIZATION = 40
    RATE_LIMIT = 50
    TRANSFORM = 60
    SESSION = 70


class RouteScope(NamedTuple):
    """One rule of a route, about to become Envoy routes.

    `filters` are those in force: the rule's own, or merged with those of a backend that is served apart. `redirects`
    says that no backend is asked. What `view` is asked for is recorded: the route is compiled again when it changes.
    """

    view: View
    route: RouteKey
    rule: Rule
    filters: Filters
    redirects: bool = False


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One policy feature: the kinds it reads, the tables it derives, and what it adds to Envoy's configuration.

    Its filter stands in every HTTP chain and does nothing until a route configures it, so that a new policy changes
    routes and never a listener (a changed listener drains its connections).
    """

    name: str
    stage: Stage
    filter_name: str = ""
    """Name of the HTTP filter, which is also the key of what routes configure."""
    inert: Callable[[], Message] | None = None
    """Returns the filter's configuration for listeners: one that does nothing."""
    configure: Callable[[RouteScope], Message | None] | None = None
    """Returns what a route asks of the filter, None for nothing."""
    kinds: tuple[Kind, ...] = ()
    facts: Mapping[str, Table[Any, Any]] = field(default_factory=dict)
    """Kind to the table of its objects."""
    steps: tuple[Step, ...] = ()
    """Steps over facts and resolved tables; they run before statuses and emission."""
    findings: tuple[Table[Any, Any], ...] = ()
    """Tables of those steps whose rows have `findings`."""
    statuses: tuple[Table[ObjectRef, PolicyStatus], ...] = ()
    """Tables of those steps that hold statuses by object."""
