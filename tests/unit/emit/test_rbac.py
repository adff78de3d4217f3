"""Authorization as RBAC rules: every field, its opposite and both actions, against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from meshgw.api.meta import Key
from meshgw.emit.rbac import (
    ALLOW_FILTER,
    DENY_FILTER,
    PEER_FILTER,
    Place,
    authorization_filters,
    build_policy,
    build_rules,
    guards,
    peer_filter,
)
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
from meshgw.protos import HttpRbac, RbacRules, encode
from tests.unit.emit.rbac_reference import Request, envoy_permits, permits

DOMAINS = ("td", "old.td")


def exact(value: str) -> StringMatch:
    return StringMatch(StringKind.EXACT, value)


def policy(action: Action, *rules: AuthorizationRule, name: str = "p") -> AuthorizationPolicy:
    return AuthorizationPolicy(key=Key("default", name), action=action, targets=(), rules=rules)


def rule(*parts: Source | Operation) -> AuthorizationRule:
    return AuthorizationRule(
        sources=tuple(part for part in parts if isinstance(part, Source)),
        operations=tuple(part for part in parts if isinstance(part, Operation)),
    )


def place(request: Request, *, port: int | None = None) -> Place:
    return Place(request.http, request.port if port is None else port, DOMAINS)


def decide(policies: Sequence[AuthorizationPolicy], request: Request, *, port: int | None = None) -> bool:
    """Envoy's decision, after it was found to be the reference's."""
    configs = guards(Authorization(policies=tuple(policies)), place(request, port=port))
    decision = envoy_permits(configs, request)
    assert decision is permits(policies, request)
    return decision


def test_where_nobody_is_known_an_identity_is_never_met_in_favour_of_the_client() -> None:
    stranger = Place(http=True, port=80, trust_domains=DOMAINS, identified=False)
    for source in (Source(principals=(exact("x"),)), Source(not_namespaces=(exact("x"),))):
        assert build_policy(rule(source), Action.ALLOW, stranger) is None
        denial = build_policy(rule(source), Action.DENY, stranger)
        assert denial is not None
        assert [principal.any for principal in denial.principals] == [True]
    assert build_policy(rule(), Action.ALLOW, stranger) is not None


def test_filters_that_are_not_closed_do_nothing_by_themselves() -> None:
    for closed in (True, False):
        for item in authorization_filters(closed=closed):
            config = HttpRbac()
            assert item.typed_config.Unpack(config)
            assert config.HasField("rules") is closed


# --- Fields --------------------------------------------------------------------------------------------------------

FIELDS: list[tuple[Any, str, StringMatch | int, Request, Request]] = [
    (Source, "principals", exact("td/ns/a/sa/b"), Request(namespace="a", account="b"), Request(namespace="a")),
    (Source, "namespaces", exact("a"), Request(namespace="a"), Request(namespace="ab")),
    (Operation, "hosts", exact("Echo"), Request(host="eCHO"), Request(host="echo2")),
    (Operation, "ports", 80, Request(port=80), Request(port=8080)),
    (Operation, "methods", exact("GET"), Request(method="GET"), Request(method="get")),
    (Operation, "paths", exact("/a"), Request(path="/a?b"), Request(path="/a/b")),
]


@pytest.mark.parametrize(("part", "field", "value", "fits", "differs"), FIELDS, ids=[item[1] for item in FIELDS])
@pytest.mark.parametrize("negated", [False, True], ids=["field", "not"])
@pytest.mark.parametrize("action", list(Action))
def test_every_field_and_its_opposite_decides(
    *, part: Any, field: str, value: Any, fits: Request, differs: Request, negated: bool, action: Action
) -> None:
    name = f"not_{field}" if negated else field
    policies = [policy(action, rule(part(**{name: (value,)})))]
    matching = (action is Action.ALLOW) is not negated
    assert decide(policies, fits) is matching
    assert decide(policies, differs) is not matching


@pytest.mark.parametrize(
    ("value", "fits", "differs"),
    [
        (StringMatch(StringKind.PREFIX, "td/ns/a"), Request(namespace="ab"), Request(namespace="b")),
        (StringMatch(StringKind.SUFFIX, "/sa/b"), Request(account="b"), Request(account="ab")),
        (StringMatch(StringKind.PRESENT), Request(), None),
    ],
)
def test_forms_of_principals(value: StringMatch, fits: Request, differs: Request | None) -> None:
    policies = [policy(Action.ALLOW, rule(Source(principals=(value,))))]
    assert decide(policies, fits)
    assert differs is None or not decide(policies, differs)


@pytest.mark.parametrize(
    ("value", "fits", "differs"),
    [
        (exact("a.b"), Request(namespace="a.b"), Request(namespace="axb")),
        (StringMatch(StringKind.PREFIX, "a.b"), Request(namespace="a.bc"), Request(namespace="axbc")),
        (StringMatch(StringKind.SUFFIX, "a.b"), Request(namespace="ca.b"), Request(namespace="caxb")),
        (StringMatch(StringKind.SUFFIX, "a.b"), Request(namespace="a.b", domain="old.td"), Request(account="a.b")),
        (StringMatch(StringKind.PRESENT), Request(), None),
        (exact("sa"), Request(namespace="sa"), Request(account="sa")),
        (StringMatch(StringKind.SUFFIX, "ns"), Request(namespace="ns"), Request(namespace="sa", account="ns")),
    ],
)
@pytest.mark.parametrize("negated", [False, True])
def test_forms_of_namespaces(*, value: StringMatch, fits: Request, differs: Request | None, negated: bool) -> None:
    name = "not_namespaces" if negated else "namespaces"
    policies = [policy(Action.ALLOW, rule(Source(**{name: (value,)})))]
    assert decide(policies, fits) is not negated
    assert differs is None or decide(policies, differs) is negated


@pytest.mark.parametrize("value", ["a/b", "a" * 64])
@pytest.mark.parametrize("kind", [StringKind.EXACT, StringKind.PREFIX, StringKind.SUFFIX])
def test_a_namespace_that_cannot_be_is_nobodys(value: str, kind: StringKind) -> None:
    wanted = policy(Action.ALLOW, rule(Source(namespaces=(StringMatch(kind, value),))))
    assert not decide([wanted], Request())
    unwanted = policy(Action.DENY, rule(Source(not_namespaces=(StringMatch(kind, value),))))
    assert not decide([unwanted], Request())


@pytest.mark.parametrize("length", [1, 63])
def test_the_one_regular_expression_is_small_and_takes_nothing_literally_meant_as_a_pattern(length: int) -> None:
    suffix = ".*+[x]()|^$\\"[:length].ljust(length, "a")
    built = build_policy(
        rule(Source(namespaces=(StringMatch(StringKind.SUFFIX, suffix),))), Action.DENY, place(Request())
    )
    assert built is not None
    pattern = re2.compile(built.principals[0].filter_state.string_match.safe_regex.regex)
    assert pattern.programsize < 500
    assert pattern.fullmatch(f"spiffe://td/ns/{suffix}/sa/a")
    assert not pattern.fullmatch("spiffe://td/ns/other/sa/a")


# --- Hosts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["bad.com", "BAD.com", "bad.com:80", "Bad.Com:8080", "bad.com:"])
def test_a_denied_host_is_denied_in_any_case_and_with_any_port(host: str) -> None:
    assert not decide([policy(Action.DENY, rule(Operation(hosts=(exact("bad.COM"),))))], Request(host=host))
    suffix = StringMatch(StringKind.SUFFIX, "d.COM")
    assert not decide([policy(Action.DENY, rule(Operation(hosts=(suffix,))))], Request(host=host))
    assert not decide([policy(Action.ALLOW, rule(Operation(not_hosts=(exact("bad.com"),))))], Request(host=host))
    assert not decide([policy(Action.ALLOW, rule(Operation(not_hosts=(suffix,))))], Request(host=host))


def test_an_allowed_host_is_allowed_as_it_is_written() -> None:
    allow = policy(Action.ALLOW, rule(Operation(hosts=(exact("good.com"),))))
    assert decide([allow], Request(host="GOOD.com"))
    assert not decide([allow], Request(host="good.com:80"))
    with_ports = policy(Action.ALLOW, rule(Operation(hosts=(StringMatch(StringKind.PREFIX, "good.com:"),))))
    assert decide([with_ports], Request(host="good.com:80"))


# --- Order and combination -----------------------------------------------------------------------------------------

ANYTHING = AuthorizationRule()


def test_no_policy_allows() -> None:
    assert decide([], Request())


def test_an_allow_policy_without_rules_denies_everything() -> None:
    assert not decide([policy(Action.ALLOW)], Request())


def test_a_deny_policy_without_rules_denies_nothing() -> None:
    assert decide([policy(Action.DENY)], Request())


def test_a_rule_without_conditions_matches_everything() -> None:
    assert decide([policy(Action.ALLOW, ANYTHING)], Request())
    assert not decide([policy(Action.DENY, ANYTHING)], Request())


def test_deny_comes_before_allow() -> None:
    assert not decide([policy(Action.ALLOW, ANYTHING), policy(Action.DENY, ANYTHING, name="q")], Request())


def test_one_matching_allow_policy_is_enough() -> None:
    get = policy(Action.ALLOW, rule(Operation(methods=(exact("GET"),))))
    put = policy(Action.ALLOW, rule(Operation(methods=(exact("PUT"),))), name="q")
    assert decide([get, put], Request(method="PUT"))
    assert not decide([get, put], Request(method="POST"))


def test_who_and_what_must_both_match() -> None:
    allow = policy(Action.ALLOW, rule(Source(namespaces=(exact("a"),)), Operation(methods=(exact("GET"),))))
    assert decide([allow], Request(namespace="a"))
    assert not decide([allow], Request(namespace="b"))
    assert not decide([allow], Request(namespace="a", method="PUT"))


def test_several_sources_and_operations_are_alternatives() -> None:
    parts = [Source(namespaces=(exact(name),)) for name in "ab"] + [Operation(paths=(exact(f"/{n}"),)) for n in "xy"]
    allow = policy(Action.ALLOW, rule(*parts))
    assert all(decide([allow], Request(namespace=name, path=path)) for name in "ab" for path in ("/x", "/y"))
    assert not decide([allow], Request(namespace="a", path="/z"))
    assert not decide([allow], Request(namespace="c", path="/x"))


def test_missing_authorization_denies() -> None:
    assert not envoy_permits(guards(None, place(Request())), Request())


# --- Connections ---------------------------------------------------------------------------------------------------

HTTP_FIELDS = ["hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths"]


@pytest.mark.parametrize("field", HTTP_FIELDS)
@pytest.mark.parametrize("port", [0, 80])
def test_http_fields_drop_an_allow_rule_and_widen_a_deny_rule_on_connections(field: str, port: int) -> None:
    operation = Operation(**{field: (exact("/x"),)})
    connection = Request(http=False)
    assert not decide([policy(Action.ALLOW, rule(operation))], connection, port=port)
    assert not decide([policy(Action.ALLOW, rule(operation, Operation(ports=(80,))))], connection, port=port)
    assert decide([policy(Action.ALLOW, rule(operation), ANYTHING)], connection, port=port)
    assert not decide([policy(Action.DENY, rule(operation))], connection, port=port)


@pytest.mark.parametrize("port", [0, 80])
def test_connections_are_told_apart_by_port_and_peer(port: int) -> None:
    connection = Request(http=False)
    assert decide([policy(Action.ALLOW, rule(Operation(ports=(80, 81))))], connection, port=port)
    assert not decide([policy(Action.ALLOW, rule(Operation(ports=(8,))))], connection, port=port)
    assert not decide([policy(Action.ALLOW, rule(Operation(not_ports=(80,))))], connection, port=port)
    assert not decide([policy(Action.DENY, rule(Source(namespaces=(exact("default"),))))], connection, port=port)


# --- Against the reference -----------------------------------------------------------------------------------------

KINDS = st.sampled_from(StringKind)


def values(*texts: str) -> st.SearchStrategy[tuple[StringMatch, ...]]:
    one = st.builds(
        lambda kind, text: StringMatch(kind, "" if kind is StringKind.PRESENT else text), KINDS, st.sampled_from(texts)
    )
    return st.lists(one, max_size=2).map(tuple)


PRINCIPALS = values("td/ns/a/sa/x", "old.td/ns/b", "sa/x", "td")
NAMESPACES = values("a", "b", "ab", "sa", "a.b")
HOSTS = values("a.com", "A.com:80", ".com", "com", "b")
METHODS = values("GET", "P", "T", "PUT")
PATHS = values("/", "/a", "/a/b", "b", "?q")
PORTS = st.lists(st.sampled_from([80, 81, 8]), max_size=2).map(tuple)
SOURCES = st.builds(
    Source, principals=PRINCIPALS, not_principals=PRINCIPALS, namespaces=NAMESPACES, not_namespaces=NAMESPACES
)
OPERATIONS = st.builds(
    Operation,
    hosts=HOSTS,
    not_hosts=HOSTS,
    ports=PORTS,
    not_ports=PORTS,
    methods=METHODS,
    not_methods=METHODS,
    paths=PATHS,
    not_paths=PATHS,
)
LIGHT = st.one_of(
    st.builds(Operation, hosts=HOSTS),
    st.builds(Operation, not_hosts=HOSTS),
    st.builds(Operation, ports=PORTS),
    st.builds(Operation, not_ports=PORTS),
    st.builds(Operation, paths=PATHS, not_methods=METHODS),
    OPERATIONS,
)
RULES = st.builds(
    AuthorizationRule,
    sources=st.lists(SOURCES, max_size=2).map(tuple),
    operations=st.lists(LIGHT, max_size=2).map(tuple),
)
POLICIES = st.lists(st.tuples(st.sampled_from(Action), st.lists(RULES, max_size=2)), max_size=3).map(
    lambda found: [policy(action, *rules, name=f"p{index}") for index, (action, rules) in enumerate(found)]
)
REQUESTS = st.builds(
    Request,
    domain=st.sampled_from(DOMAINS),
    namespace=st.sampled_from(["a", "b", "ab", "sa", "a.b", "axb"]),
    account=st.sampled_from(["x", "sa", "a"]),
    host=st.sampled_from(["a.com", "A.COM", "a.com:80", "b", "x.a.com:80:81", "com:"]),
    method=st.sampled_from(["GET", "PUT", "POST"]),
    path=st.sampled_from(["/", "/a", "/a?q", "/a/b", "/b?q=/a"]),
    port=st.sampled_from([80, 81, 8]),
    http=st.booleans(),
)


@given(policies=POLICIES, request=REQUESTS, any_port=st.booleans())
def test_envoy_decides_as_the_policies_say(
    *, policies: list[AuthorizationPolicy], request: Request, any_port: bool
) -> None:
    decide(policies, request, port=0 if any_port and not request.http else None)


@given(st.permutations([policy(Action.DENY, ANYTHING, name=name) for name in "abc"]))
def test_the_order_of_policies_changes_no_bytes(policies: list[AuthorizationPolicy]) -> None:
    rules = build_rules(policies, Action.DENY, place(Request()))
    assert rules is not None
    assert encode(rules) == encode(
        build_rules(sorted(policies, key=lambda item: item.key), Action.DENY, place(Request()))
    )


# --- The filters ---------------------------------------------------------------------------------------------------


def test_the_filters_are_shut_by_themselves() -> None:
    filters = authorization_filters()
    assert [item.name for item in filters] == [DENY_FILTER, ALLOW_FILTER]
    for item in filters:
        rules = HttpRbac.FromString(item.typed_config.value).rules
        assert rules.action == RbacRules.ALLOW
        assert not rules.policies


@pytest.mark.parametrize(
    ("identity", "good"),
    [
        ("spiffe://td/ns/a/sa/b", True),
        ("spiffe://old.td/ns/a/sa/b", True),
        ("spiffe://oldxtd/ns/a/sa/b", False),
        ("spiffe://td.evil/ns/a/sa/b", False),
        ("spiffe://td/ns/a/sa/b,spiffe://td/ns/c/sa/d", False),
        ("spiffe://td/ns/a/sa/b/c", False),
        ("spiffe://td/ns//sa/b", False),
        ("spiffe://td/workload", False),
        ("-", False),
    ],
)
def test_a_peer_is_exactly_one_workload(*, identity: str, good: bool) -> None:
    built = peer_filter(DOMAINS)
    assert built.name == PEER_FILTER
    rules = HttpRbac.FromString(built.typed_config.value).rules
    assert rules.action == RbacRules.ALLOW
    patterns = [item.filter_state.string_match.safe_regex.regex for item in rules.policies["workload"].principals]
    assert any(re2.fullmatch(pattern, identity) for pattern in patterns) is good
