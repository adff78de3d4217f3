"""What a policy feature is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from meshgw.api.meta import ObjectRef
from meshgw.api.registry import Kind
from meshgw.engine import Step, Table, View
from meshgw.ir.keys import RouteConfigKey, RouteKey
from meshgw.ir.route import Filters, Rule
from meshgw.ir.status import PolicyStatus
from meshgw.protos import Message


class Slot(IntEnum):
    """Where a feature's filter stands in every HTTP chain: lower ones see the request first.

    This is the order of Istio's waypoints, but for CORS (decision 3). Filters of one slot keep the order of the list of
    features; a chain's own authorization is first in its slot.
    """

    NORMALIZE = 0
    CORS = 10
    AUTHENTICATION = 20
    AUTHORIZATION = 30
    RATE_LIMIT = 40
    FAULT = 50
    TRANSFORM = 60
    SESSION = 70


class RouteScope(NamedTuple):
    """One rule of a route, about to become Envoy routes of the RouteConfiguration `config`.

    `filters` are those in force: the rule's own, or merged with those of a backend that is served apart. `redirects`
    says that no backend is asked. What `view` is asked for is recorded: the route is compiled again when it changes.
    """

    view: View
    config: RouteConfigKey
    route: RouteKey
    rule: Rule
    filters: Filters
    redirects: bool = False


@dataclass(frozen=True, kw_only=True)
class RouteFilter:
    """One HTTP filter. It stands in every HTTP chain and does nothing until it is configured for routes.

    So a new policy changes routes and never a listener: a changed listener drains its connections.
    """

    slot: Slot
    name: str
    """Its name in the chain, which is also the key of what configures it."""
    inert: Callable[[], Message]
    """Returns its configuration for listeners: one that does nothing."""
    configure: Callable[[RouteScope], Message | None] | None = None
    """Returns what a rule asks of it, None for nothing."""
    configure_all: Callable[[View, RouteConfigKey], Message | None] | None = None
    """Returns what it does for every route of a RouteConfiguration, None for nothing.

    A route that has a configuration of its own has it instead. The table CONFIG_LISTENERS says which listeners, or
    service port behind a waypoint, the RouteConfiguration is of.
    """


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One policy feature: the kinds it reads, the tables it derives, and what it adds to Envoy's configuration."""

    name: str
    filters: tuple[RouteFilter, ...] = ()
    kinds: tuple[Kind, ...] = ()
    facts: Mapping[str, Table[Any, Any]] = field(default_factory=dict)
    """Kind to the table of its objects."""
    steps: tuple[Step, ...] = ()
    """Steps over facts and resolved tables; they run before statuses and emission."""
    resolved: tuple[Table[Any, Any], ...] = ()
    """Tables of those steps that `translate --to ir` shows: none with key material."""
    findings: tuple[Table[Any, Any], ...] = ()
    """Tables of those steps whose rows have `findings`."""
    statuses: tuple[Table[ObjectRef, PolicyStatus], ...] = ()
    """Tables of those steps that hold statuses by object (see `meshgw.resolve.status.policy_status`)."""
