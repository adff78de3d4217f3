"""Credit, debt and time."""

import pytest

from meshgw.xds.pace import Pace


def test_a_burst_is_free_and_a_debt_takes_its_time() -> None:
    pace = Pace(rate=10.0, burst=5.0, now=0.0)
    assert [pace.spend(1.0, 0.0) for _ in range(5)] == [0.0] * 5
    assert pace.spend(1.0, 0.0) == pytest.approx(0.1)
    assert pace.spend(20.0, 0.0) == pytest.approx(2.1)
    assert pace.spend(1.0, 2.1) == pytest.approx(0.1)


def test_credit_grows_to_the_burst_and_no_further() -> None:
    pace = Pace(rate=10.0, burst=5.0, now=0.0)
    assert pace.spend(5.0, 1000.0) == 0.0
    assert pace.spend(1.0, 1000.0) == pytest.approx(0.1)


def test_what_is_not_allowed_costs_nothing() -> None:
    pace = Pace(rate=1.0, burst=2.0, now=0.0)
    assert [pace.allows(0.0) for _ in range(4)] == [True, True, False, False]
    assert [pace.allows(1.0), pace.allows(1.0)] == [True, False]


def test_a_clock_that_goes_back_gives_and_takes_nothing() -> None:
    pace = Pace(rate=1.0, burst=1.0, now=10.0)
    assert pace.allows(10.0)
    assert not pace.allows(5.0)
    assert not pace.allows(10.5)
    assert pace.allows(11.0)
