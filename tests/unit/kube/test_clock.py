from __future__ import annotations

from meshgw.kube.clock import Backoff, SystemClock


class Chance(SystemClock):
    def __init__(self, value: float) -> None:
        self.value = value

    def chance(self) -> float:
        return self.value


def test_waits_double_up_to_a_limit_and_start_anew() -> None:
    backoff = Backoff(Chance(0.0), first=1, most=10)
    assert [backoff.next() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert backoff.failures == 6
    backoff.reset()
    assert backoff.next() == 1


def test_chance_cuts_up_to_a_half() -> None:
    assert Backoff(Chance(1.0), first=8).next() == 4
    assert Backoff(Chance(0.5), first=8).next() == 6


def test_long_outages_stay_finite() -> None:
    backoff = Backoff(Chance(0.0))
    assert max(backoff.next() for _ in range(5000)) == 30


async def test_system_clock_goes_forward() -> None:
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(0.01)
    assert clock.now() - before >= 0.009
    assert 0 <= clock.chance() < 1
