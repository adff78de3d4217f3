"""What connections of which only the port is known may do."""

from __future__ import annotations

import pytest

from meshgw.api.meta import Key
from meshgw.ir.mesh import (
    Action,
    Authorization,
    AuthorizationPolicy,
    AuthorizationRule,
    Operation,
    Source,
    StringKind,
    StringMatch,
)

ANYBODY = AuthorizationRule()
SOMEBODY = AuthorizationRule(sources=(Source(principals=(StringMatch(StringKind.PRESENT),)),))
HTTP = AuthorizationRule(operations=(Operation(methods=(StringMatch(StringKind.EXACT, "GET"),)),))
PORT = AuthorizationRule(operations=(Operation(ports=(80,)),))
NOT_PORT = AuthorizationRule(operations=(Operation(not_ports=(80,)),))
PORT_AND_HTTP = AuthorizationRule(operations=(*PORT.operations, *HTTP.operations))


def admits(*policies: tuple[Action, tuple[AuthorizationRule, ...]], port: int = 80) -> bool:
    rows = tuple(AuthorizationPolicy(key=Key("", ""), action=a, targets=(), rules=rules) for a, rules in policies)
    return Authorization(policies=rows).admits_strangers(port)


def test_without_policies_everybody_is_let_in() -> None:
    assert admits()


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [(ANYBODY, True), (PORT, True), (NOT_PORT, False), (SOMEBODY, False), (HTTP, False), (PORT_AND_HTTP, False)],
)
def test_an_allow_rule_lets_in_by_port_alone(rule: AuthorizationRule, *, admitted: bool) -> None:
    assert admits((Action.ALLOW, (rule,))) is admitted


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [(ANYBODY, False), (PORT, False), (NOT_PORT, True), (SOMEBODY, False), (HTTP, False), (PORT_AND_HTTP, False)],
)
def test_a_deny_rule_does_not_ask_for_what_cannot_be_known(rule: AuthorizationRule, *, admitted: bool) -> None:
    assert admits((Action.DENY, (rule,))) is admitted


def test_an_allow_policy_without_rules_lets_nobody_in_and_a_deny_policy_everybody() -> None:
    assert not admits((Action.ALLOW, ()))
    assert admits((Action.DENY, ()))


def test_denial_comes_first_and_one_allow_policy_is_enough() -> None:
    assert not admits((Action.ALLOW, (ANYBODY,)), (Action.DENY, (PORT,)))
    assert admits((Action.ALLOW, (ANYBODY,)), (Action.DENY, (PORT,)), port=81)
    assert admits((Action.ALLOW, ()), (Action.ALLOW, (PORT,)))
