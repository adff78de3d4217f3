from __future__ import annotations

from datetime import UTC, timedelta

from meshgw.identity.clock import SystemClock


async def test_system_clock_is_in_utc_and_moves_while_it_sleeps() -> None:
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(0.01)
    assert before.tzinfo is UTC
    assert clock.now() - before >= timedelta(milliseconds=5)


def test_jitter_spreads_to_both_sides_of_zero() -> None:
    draws = [SystemClock().jitter() for _ in range(200)]
    assert all(-1 <= draw <= 1 for draw in draws)
    assert min(draws) < 0 < max(draws)
