from __future__ import annotations

import pytest

from meshgw.emit.action import NO_CLUSTER, RedirectPort, forward, redirect_port, retry_policy
from meshgw.ir.route import Backend, Filters, HeaderEdit, Mirror, Redirect, Retry, Rule
from meshgw.protos import FractionalPercent, RouteAction
from tests.unit.emit.world import backend, target


@pytest.mark.parametrize(
    ("redirect", "port", "https", "expected"),
    [
        (Redirect(), 80, False, RedirectPort()),
        (Redirect(), 8080, False, RedirectPort(always=8080)),
        (Redirect(), 443, True, RedirectPort()),
        (Redirect(scheme="https"), 80, False, RedirectPort(if_given=443)),
        (Redirect(scheme="https", hostname="h.test"), 8080, False, RedirectPort()),
        (Redirect(scheme="http"), 8443, True, RedirectPort(if_given=80)),
        (Redirect(port=8080), 80, False, RedirectPort(always=8080)),
        (Redirect(port=80, scheme="https"), 80, False, RedirectPort(always=80)),
        (Redirect(port=443, hostname="h.test"), 8443, True, RedirectPort()),
    ],
)
def test_a_redirect_leaves_out_the_default_port(
    redirect: Redirect, *, port: int, https: bool, expected: RedirectPort
) -> None:
    assert redirect_port(redirect, port=port, https=https) == expected


def test_rules_without_retries_inherit_the_virtual_hosts() -> None:
    assert retry_policy(None, None) is None
    assert retry_policy(None, 0) is None


def test_a_try_of_its_own_timeout_keeps_the_safe_retries() -> None:
    policy = retry_policy(None, 1500)
    assert policy is not None
    assert policy.per_try_timeout.ToMilliseconds() == 1500
    assert policy.retry_on == "connect-failure,refused-stream,reset-before-request"


def test_retries_are_counted_and_sorted() -> None:
    policy = retry_policy(Retry(attempts=3, codes=(503, 500, 503), backoff=250), 100)
    assert policy is not None
    assert (policy.num_retries.value, list(policy.retriable_status_codes)) == (3, [500, 503])
    assert policy.retry_back_off.base_interval.ToMilliseconds() == 250
    assert policy.retry_on == "connect-failure,refused-stream,reset,retriable-status-codes"
    none = retry_policy(Retry(attempts=0), None)
    assert none is not None
    assert (none.retry_on, none.HasField("num_retries")) == ("", True)


def test_a_single_backend_is_named_directly() -> None:
    action = forward(Rule(), (backend(),), Filters())
    assert action.cluster == "service/default/app/80"
    assert action.HasField("timeout")
    assert action.timeout.ToMilliseconds() == 0


def test_a_share_without_a_target_goes_to_no_cluster() -> None:
    action = forward(Rule(timeout=2000), (backend(weight=9), Backend(target=None)), Filters())
    assert [(item.name, item.weight.value) for item in action.weighted_clusters.clusters] == [
        ("service/default/app/80", 9),
        (NO_CLUSTER, 1),
    ]
    assert action.cluster_not_found_response_code == RouteAction.INTERNAL_SERVER_ERROR
    assert action.timeout.ToMilliseconds() == 2000


def test_header_edits_of_one_backend_move_all_edits_to_the_backends() -> None:
    outer = Filters(request=HeaderEdit(set=(("a", "rule"),)))
    action = forward(Rule(), (backend(request=HeaderEdit(set=(("a", "own"),))), backend("b")), outer)
    one, two = action.weighted_clusters.clusters
    assert [item.header.value for item in one.request_headers_to_add] == ["own"]
    assert [item.header.value for item in two.request_headers_to_add] == ["rule"]


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [
        (1, 2, (50, FractionalPercent.HUNDRED)),
        (1, 1000, (10, FractionalPercent.TEN_THOUSAND)),
        (1, 3, (333_333, FractionalPercent.MILLION)),
        (1, 1_000_000, (1, FractionalPercent.MILLION)),
    ],
)
def test_mirror_fractions_are_as_exact_as_envoy_can_be(
    numerator: int, denominator: int, expected: tuple[int, int]
) -> None:
    mirror = Mirror(target=target("copy"), numerator=numerator, denominator=denominator)
    (policy,) = forward(Rule(), (backend(),), Filters(mirrors=(mirror,))).request_mirror_policies
    fraction = policy.runtime_fraction.default_value
    assert (fraction.numerator, fraction.denominator) == expected
    assert policy.disable_shadow_host_suffix_append


def test_mirrors_of_nothing_are_left_out_and_of_all_have_no_fraction() -> None:
    none, every = Mirror(target=target("none"), numerator=0), Mirror(target=target("all"))
    (policy,) = forward(Rule(), (backend(),), Filters(mirrors=(none, every))).request_mirror_policies
    assert policy.cluster == "service/default/all/80"
    assert not policy.HasField("runtime_fraction")
