"""HTTP filters: those of every chain, and what configures them for routes. Both come from the list of features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshgw import features
from meshgw.engine import View
from meshgw.features import RouteFilter, RouteScope, Slot
from meshgw.ir.keys import ListenerKey, RouteConfigKey
from meshgw.protos import AnyMessage, HttpFilter, Message, RouteConfiguration, Router, any_of, encode

ROUTER: Final = "envoy.filters.http.router"


def http_filters(authorization: Iterable[HttpFilter] = ()) -> list[HttpFilter]:
    """The filters of an HTTP chain in the order of their slots, and the router.

    `authorization` are those that the chain has of its own, first in their slot.
    """
    slotted = [(Slot.AUTHORIZATION, item) for item in authorization]
    slotted += [(item.slot, http_filter(item.name, item.inert())) for item in _filters()]
    ordered = sorted(slotted, key=lambda pair: pair[0])
    return [*(item for _slot, item in ordered), http_filter(ROUTER, Router(suppress_envoy_headers=True))]


def _filters() -> Iterator[RouteFilter]:
    for feature in features.FEATURES:
        yield from feature.filters


def http_filter(name: str, config: Message) -> HttpFilter:
    """One HTTP filter."""
    return HttpFilter(name=name, typed_config=any_of(config))


def route_filters(scope: RouteScope) -> dict[str, AnyMessage]:
    """The `typed_per_filter_config` of a route."""
    configs: dict[str, AnyMessage] = {}
    for item in _filters():
        config = item.configure(scope) if item.configure is not None else None
        if config is not None:
            configs[item.name] = any_of(config)
    return configs


def emit_config_filters(
    view: View, config: RouteConfigKey, _members: Mapping[tuple[RouteConfigKey, ListenerKey], bool]
) -> Iterable[tuple[RouteConfigKey, bytes]]:
    """Build the `typed_per_filter_config` of a whole RouteConfiguration."""
    built = RouteConfiguration()
    for item in _filters():
        message = item.configure_all(view, config) if item.configure_all is not None else None
        if message is not None:
            built.typed_per_filter_config[item.name].CopyFrom(any_of(message))
    if built.typed_per_filter_config:
        yield config, encode(built)
