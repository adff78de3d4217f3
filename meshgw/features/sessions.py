"""Sessions that stick to an endpoint (GEP-1619)."""

from __future__ import annotations

from typing import Any, Final

from meshgw.features.feature import Feature, RouteFilter, RouteScope, Slot
from meshgw.ir.route import SessionPersistence
from meshgw.protos import (
    CookieBasedSessionState,
    HeaderBasedSessionState,
    StatefulSession,
    StatefulSessionPerRoute,
    TypedExtensionConfig,
    any_of,
    duration,
)


def configure(scope: RouteScope) -> StatefulSessionPerRoute | None:
    """The session of a rule that has one and forwards its requests."""
    session = scope.rule.session
    return sticky_session(session) if session is not None and not scope.redirects else None


def sticky_session(session: SessionPersistence) -> StatefulSessionPerRoute:
    """Sessions that stick to an endpoint; one that is gone is replaced."""
    state: Any
    if session.header:
        state = HeaderBasedSessionState(name=session.name)
    else:
        state = CookieBasedSessionState()
        state.cookie.name = session.name
        state.cookie.path = session.path
        if session.lifetime:
            state.cookie.ttl.CopyFrom(duration(session.lifetime * 1000))
    kind = "header" if session.header else "cookie"
    return StatefulSessionPerRoute(
        stateful_session=StatefulSession(
            session_state=TypedExtensionConfig(name=f"envoy.http.stateful_session.{kind}", typed_config=any_of(state))
        )
    )


SESSIONS: Final = Feature(
    name="sessions",
    filters=(
        RouteFilter(
            slot=Slot.SESSION,
            name="envoy.filters.http.stateful_session",
            inert=StatefulSession,
            configure=configure,
        ),
    ),
)
