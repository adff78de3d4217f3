from __future__ import annotations

from meshgw.features.cors import configure, cors_policy
from meshgw.ir.route import Cors, Filters
from tests.unit.features.scopes import scope


def test_origins_are_exact_or_patterns_within_one_host() -> None:
    policy = cors_policy(Cors(origins=("https://a.test", "https://*.b.test", "*")))
    exact, wild, every = policy.allow_origin_string_match
    assert exact.exact == "https://a.test"
    assert wild.safe_regex.regex == r"https://[^/]+\.b\.test"
    assert every.safe_regex.regex == ".*"
    assert not policy.HasField("allow_credentials")


def test_an_origin_too_long_for_a_pattern_matches_nothing() -> None:
    assert list(cors_policy(Cors(origins=("https://*." + "a" * 2000,))).allow_origin_string_match) == []


def test_preflights_never_reach_a_backend() -> None:
    policy = cors_policy(Cors(credentials=True, methods=("GET", "PUT")))
    assert policy.HasField("forward_not_matching_preflights")
    assert not policy.forward_not_matching_preflights.value
    assert policy.allow_credentials.value
    assert policy.allow_methods == "GET, PUT"
    assert policy.max_age == "5"


def test_a_rule_without_cors_asks_for_nothing() -> None:
    assert configure(scope(filters=Filters())) is None
    assert configure(scope(filters=Filters(cors=Cors()))) is not None
