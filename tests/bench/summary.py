"""The benchmark's own arithmetic."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import msgspec


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of some times in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float
    min: float


class Median(msgspec.Struct, frozen=True, kw_only=True):
    """A median in milliseconds, and the bounds between which the true one is in 95 of 100 cases at least."""

    value: float
    low: float
    high: float


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the sorted values does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summarise(seconds: Iterable[float]) -> Summary:
    """Return the quantiles of times given in seconds."""
    ordered = sorted(1000 * value for value in seconds)
    return Summary(
        count=len(ordered),
        p50=_round(quantile(ordered, 0.5)),
        p90=_round(quantile(ordered, 0.9)),
        p99=_round(quantile(ordered, 0.99)),
        max=_round(ordered[-1]),
        min=_round(ordered[0]),
    )


def median(seconds: Iterable[float]) -> Median:
    """Return the median of values given in seconds; its interval is that of order statistics and assumes nothing."""
    ordered = sorted(1000 * value for value in seconds)
    outside = _outside(len(ordered))
    return Median(
        value=_round(quantile(ordered, 0.5)), low=_round(ordered[outside]), high=_round(ordered[-1 - outside])
    )


def _outside(count: int) -> int:
    """Return how many of so many sorted values may be left out at each end of the interval.

    The true median is below the smallest k values with the chance that a coin falls so k times or less.
    """
    left, chance = 0, Fraction(1, 2**count)
    while chance <= Fraction(1, 40):
        left += 1
        chance += Fraction(math.comb(count, left), 2**count)
    return max(0, left - 1)


def difference(measured: Summary, floor: Summary) -> dict[str, float]:
    """Return by how much each quantile exceeds that of the floor."""
    return {name: _round(getattr(measured, name) - getattr(floor, name)) for name in ("p50", "p90", "p99", "max")}


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds an action took."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _round(value: float) -> float:
    return round(value, 3)
