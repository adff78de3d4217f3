from __future__ import annotations

from meshgw.features.sessions import configure, sticky_session
from meshgw.ir.route import Rule, SessionPersistence
from meshgw.protos import CookieBasedSessionState, HeaderBasedSessionState
from tests.unit.features.scopes import scope


def test_sessions_are_kept_in_a_cookie_or_a_header() -> None:
    state = sticky_session(SessionPersistence(name="s", lifetime=3, path="/a")).stateful_session.session_state
    cookie = CookieBasedSessionState.FromString(state.typed_config.value).cookie
    assert (cookie.name, cookie.path, cookie.ttl.seconds) == ("s", "/a", 3)
    brief = sticky_session(SessionPersistence(name="s")).stateful_session.session_state
    assert not CookieBasedSessionState.FromString(brief.typed_config.value).cookie.HasField("ttl")
    state = sticky_session(SessionPersistence(name="h", header=True)).stateful_session.session_state
    assert HeaderBasedSessionState.FromString(state.typed_config.value).name == "h"


def test_only_a_rule_that_forwards_has_a_session() -> None:
    rule = Rule(session=SessionPersistence(name="s"))
    assert configure(scope(rule=rule)) is not None
    assert configure(scope(rule=rule, redirects=True)) is None
    assert configure(scope(rule=Rule())) is None
