"""What counts as the expected outcome of each check."""

from __future__ import annotations

import pytest

from meshgw.demo.client import Greeting, Sample
from meshgw.demo.verdict import (
    Edit,
    broken,
    edit_delays,
    judge_allowed,
    judge_bypass,
    judge_denied,
    judge_edits,
    judge_greeting,
    judge_header,
    judge_intruder,
    judge_rotation,
    judge_split,
)

IDENTITY = "spiffe://cluster.local/ns/shop/sa/waypoint"
REFUSED = Greeting(IDENTITY, 1, "certificate required")


def ok(workload: str = "shop-v1", began: float = 0.0, ended: float = 0.0) -> Sample:
    return Sample(began=began, ended=ended or began + 0.001, status=200, workload=workload)


def bad(status: int = 503) -> Sample:
    return Sample(began=0.0, ended=0.0, status=status)


LOST = Sample(began=0.0, ended=0.0, error="connection reset")


@pytest.mark.parametrize(("v2", "passed"), [(0, False), (2, False), (3, True), (20, True), (44, True), (100, False)])
def test_a_tenth_goes_to_v2(v2: int, *, passed: bool) -> None:
    outcome = judge_split([ok("shop-v2")] * v2 + [ok()] * (200 - v2))
    assert outcome.passed is passed
    assert outcome.figures == {"v1": 200 - v2, "v2": v2, "failed": 0}


def test_a_split_with_a_failure_or_too_few_requests_fails() -> None:
    failed = judge_split([ok("shop-v2")] * 20 + [ok()] * 179 + [bad()])
    assert not failed.passed
    assert "1 failed (503)" in failed.observed
    assert not judge_split([ok("shop-v2")] * 19 + [ok()] * 180).passed
    assert not judge_split([ok("shop-v2")] * 20 + [ok()] * 179 + [ok("ledger")]).passed


def test_requests_with_the_header_all_go_to_v2() -> None:
    assert judge_header([ok("shop-v2")] * 20).passed
    assert not judge_header([ok("shop-v2")] * 19 + [ok()]).passed
    assert not judge_header([ok("shop-v2")] * 19 + [LOST]).passed
    assert not judge_header([]).passed


def test_the_allowed_identity_needs_200() -> None:
    assert judge_allowed(ok()).passed
    assert not judge_allowed(bad(403)).passed
    assert judge_allowed(LOST).observed == "connection reset"


def test_the_denied_identity_needs_403_and_reaches_nothing() -> None:
    assert judge_denied(bad(403), reached=0).passed
    assert not judge_denied(bad(403), reached=1).passed
    assert not judge_denied(bad(503), reached=0).passed
    assert not judge_denied(LOST, reached=0).passed
    assert not judge_denied(ok(), reached=1).passed


def test_a_client_without_certificate_is_refused_by_the_waypoint_itself() -> None:
    assert judge_greeting(REFUSED, IDENTITY).passed
    assert not judge_greeting(REFUSED, "spiffe://cluster.local/ns/shop/sa/other").passed
    assert not judge_greeting(Greeting(IDENTITY, 1, ""), IDENTITY).passed


def test_an_intruder_gets_nothing() -> None:
    assert judge_intruder(bad(503), reached=0).passed
    assert not judge_intruder(bad(503), reached=1).passed
    assert not judge_intruder(ok("ledger"), reached=1).passed


def test_the_way_around_the_waypoint_is_closed() -> None:
    assert judge_bypass(LOST, reached=0).passed
    assert not judge_bypass(ok(), reached=1).passed
    assert not judge_bypass(LOST, reached=1).passed


def test_a_delay_lasts_until_the_last_answer_by_the_old_rules() -> None:
    samples = [ok("shop-v1", 0.9), ok("shop-v1", 1.0, 1.01), ok("shop-v2", 1.02), ok("shop-v1", 1.03, 1.05)]
    samples += [ok("shop-v2", 1.06), ok("shop-v1", 2.01)]
    edits = [Edit(1.0, "shop-v2"), Edit(2.0, "shop-v1")]
    assert edit_delays(samples, edits) == pytest.approx([0.05, 0.0])


def test_an_edit_that_never_holds_has_no_delay() -> None:
    assert edit_delays([ok("shop-v1", 1.1), ok("shop-v1", 1.2)], [Edit(1.0, "shop-v2")]) == []
    assert edit_delays([ok("shop-v2", 1.1), ok("shop-v1", 1.2)], [Edit(1.0, "shop-v2")]) == []
    assert edit_delays([], [Edit(1.0, "shop-v2")]) == []


def edited(delay: float, count: int = 3) -> tuple[list[Sample], list[Edit]]:
    names = ("shop-v2", "shop-v1")
    edits = [Edit(float(number), names[number % 2]) for number in range(count)]
    samples = []
    for number, edit in enumerate(edits):
        samples.append(ok(names[(number + 1) % 2], edit.saved, edit.saved + delay))
        samples.append(ok(edit.workload, edit.saved + delay + 0.01))
    return samples, edits


@pytest.mark.parametrize(("delay", "passed"), [(0.05, True), (0.199, True), (0.25, False)])
def test_edits_hold_within_200_ms(delay: float, *, passed: bool) -> None:
    outcome = judge_edits(*edited(delay))
    assert outcome.passed is passed
    assert outcome.figures["median_ms"] == pytest.approx(delay * 1000)


def test_edits_under_load_lose_no_request_and_all_hold() -> None:
    samples, edits = edited(0.05)
    assert not judge_edits([*samples, bad()], edits).passed
    assert not judge_edits(samples, [*edits, Edit(9.0, "shop-v2")]).passed
    assert not judge_edits(samples, []).passed


def test_rotation_needs_a_new_certificate_of_the_same_identity_and_no_failure() -> None:
    renewed = Greeting(IDENTITY, 2, "certificate required")
    assert judge_rotation([ok()], REFUSED, renewed).passed
    assert not judge_rotation([ok()], REFUSED, REFUSED).passed
    assert not judge_rotation([ok()], REFUSED, Greeting("spiffe://other", 2, "")).passed
    assert not judge_rotation([ok(), LOST], REFUSED, renewed).passed
    assert not judge_rotation([], REFUSED, renewed).passed


def test_a_check_that_cannot_be_made_is_a_failed_one() -> None:
    outcome = broken("split", TimeoutError())
    assert not outcome.passed
    assert outcome.observed == "TimeoutError"
