"""HTTP filters: those of every chain, and what routes ask of them. Both come from the list of features."""

from __future__ import annotations

from typing import Final

from meshgw import features
from meshgw.features import Feature, RouteScope
from meshgw.protos import AnyMessage, HttpFilter, Message, Router, any_of

ROUTER: Final = "envoy.filters.http.router"


def http_filters(*before: HttpFilter) -> list[HttpFilter]:
    """The filters of every HTTP chain, in the order of their stages. What a route does not configure does nothing."""
    return [
        *before,
        *(
            http_filter(feature.filter_name, feature.inert())
            for feature in sorted(features.FEATURES, key=_place)
            if feature.inert is not None
        ),
        http_filter(ROUTER, Router(suppress_envoy_headers=True)),
    ]


def _place(feature: Feature) -> tuple[int, str]:
    return feature.stage, feature.name


def http_filter(name: str, config: Message) -> HttpFilter:
    """One HTTP filter."""
    return HttpFilter(name=name, typed_config=any_of(config))


def route_filters(scope: RouteScope) -> dict[str, AnyMessage]:
    """The `typed_per_filter_config` of a route."""
    configs: dict[str, AnyMessage] = {}
    for feature in features.FEATURES:
        config = feature.configure(scope) if feature.configure is not None else None
        if config is not None:
            configs[feature.filter_name] = any_of(config)
    return configs
