"""Cross-origin answers (GEP-1767)."""

from __future__ import annotations

from typing import Final

from meshgw.features.feature import Feature, RouteFilter, RouteScope, Slot
from meshgw.ir.route import Cors
from meshgw.protos import BoolValue, CorsPolicy, RegexMatcher, StringMatcher
from meshgw.protos import Cors as CorsFilter
from meshgw.resolve.matches import check_regex

_SPECIAL: Final = frozenset(r"\.+*?()|[]{}^$")


def configure(scope: RouteScope) -> CorsPolicy | None:
    """The policy of a rule that has one."""
    return cors_policy(scope.filters.cors) if scope.filters.cors is not None else None


def cors_policy(cors: Cors) -> CorsPolicy:
    """Cross-origin answers. Preflights of other origins end here too: no backend ever sees one."""
    policy = CorsPolicy(
        allow_origin_string_match=[origin for value in cors.origins for origin in _origin(value)],
        allow_methods=", ".join(cors.methods),
        allow_headers=", ".join(cors.headers),
        expose_headers=", ".join(cors.expose),
        max_age=str(cors.max_age),
        forward_not_matching_preflights=BoolValue(value=False),
    )
    if cors.credentials:
        policy.allow_credentials.value = True
    return policy


def _origin(value: str) -> tuple[StringMatcher, ...]:
    """Conditions on the Origin header; an expression too large for Envoy matches nothing."""
    if "*" not in value:
        return (StringMatcher(exact=value, ignore_case=True),)
    if value == "*":
        return (StringMatcher(safe_regex=RegexMatcher(regex=".*")),)
    pattern = "".join("[^/]+" if char == "*" else f"\\{char}" if char in _SPECIAL else char for char in value)
    return (StringMatcher(safe_regex=RegexMatcher(regex=pattern)),) if not check_regex(pattern) else ()


CORS: Final = Feature(
    name="cors",
    filters=(RouteFilter(slot=Slot.CORS, name="envoy.filters.http.cors", inert=CorsFilter, configure=configure),),
)
