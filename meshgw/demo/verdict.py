"""What each check expects, and whether what happened is that. Pure: samples in, outcomes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

import msgspec

from meshgw.demo.client import Greeting, Sample

SPLIT_REQUESTS: Final = 200
SPLIT_RANGE: Final = range(3, 45)
"""How often v2 may answer of 200 requests of which it gets a tenth: a fair draw is outside once in three million."""
LIVE_WITHIN: Final = 0.2
"""Seconds from saving a file to traffic following it."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One check: what should happen, what did, and how long the check took (seconds)."""

    name: str
    expected: str
    observed: str
    passed: bool
    seconds: float = 0.0
    figures: Mapping[str, float] = {}
    """The same in numbers, for programs."""


class Edit(NamedTuple):
    """A route edit under load: when the file was saved (the clock of samples), and which workload must answer then."""

    saved: float
    workload: str


def judge_split(samples: Sequence[Sample]) -> Outcome:
    """About a tenth of the requests go to v2, and all are answered."""
    tally = _tally(samples)
    failed = _failed(samples)
    v1, v2 = tally["shop-v1"], tally["shop-v2"]
    return Outcome(
        name="split 90/10",
        expected=f"about {SPLIT_REQUESTS // 10} of {SPLIT_REQUESTS} requests to v2 "
        f"({SPLIT_RANGE.start} to {SPLIT_RANGE.stop - 1})",
        observed=f"{v1} to v1, {v2} to v2" + _and_failed(samples),
        passed=len(samples) == SPLIT_REQUESTS == v1 + v2 and not failed and v2 in SPLIT_RANGE,
        figures={"v1": v1, "v2": v2, "failed": failed},
    )


def judge_header(samples: Sequence[Sample]) -> Outcome:
    """Requests with the header all go to v2."""
    v2 = sum(sample.workload == "shop-v2" and not sample.failed for sample in samples)
    return Outcome(
        name="header x-version: v2",
        expected=f"{len(samples)} of {len(samples)} requests to v2",
        observed=f"{v2} to v2" + _and_failed(samples),
        passed=bool(samples) and v2 == len(samples),
        figures={"v2": v2, "requests": len(samples)},
    )


def judge_allowed(sample: Sample) -> Outcome:
    """The allowed identity is served."""
    return _status("allowed identity", "frontend", sample, 200, passed=not sample.failed)


def judge_denied(sample: Sample, *, reached: int) -> Outcome:
    """Another identity gets 403; `reached` is how many requests came through all the same."""
    return _status("denied identity", "stranger", sample, 403, passed=sample.status == 403 and not reached)


def judge_greeting(greeting: Greeting, identity: str) -> Outcome:
    """The waypoint proves itself, and refuses a client without a certificate during the handshake."""
    return Outcome(
        name="no client certificate",
        expected="the TLS handshake is refused",
        observed=f"refused: {greeting.refusal}" if greeting.refusal else "let in",
        passed=bool(greeting.refusal) and greeting.identity == identity,
    )


def judge_intruder(sample: Sample, *, reached: int) -> Outcome:
    """A destination that proves another identity than its own gets nothing."""
    return Outcome(
        name="wrong destination identity",
        expected="503, nothing reaches the ledger",
        observed=f"{_answer(sample)}, {reached} requests reached it",
        passed=sample.status == 503 and not reached,
        figures={"status": sample.status, "reached": reached},
    )


def judge_bypass(sample: Sample, *, reached: int) -> Outcome:
    """The way around the waypoint is closed."""
    return Outcome(
        name="around the waypoint",
        expected="the Pod's node proxy refuses, nothing reaches it",
        observed=f"{_answer(sample)}, {reached} requests reached it",
        passed=not sample.status and not reached,
        figures={"status": sample.status, "reached": reached},
    )


def judge_edits(samples: Sequence[Sample], edits: Sequence[Edit]) -> Outcome:
    """Traffic follows each edit in time, and no request fails meanwhile."""
    delays = edit_delays(samples, edits)
    failed = _failed(samples)
    typical, worst = (median(delays), max(delays)) if delays else (0.0, 0.0)
    return Outcome(
        name="route edited under load",
        expected=f"live within {LIVE_WITHIN * 1000:.0f} ms (median of {len(edits)}), 0 failed requests",
        observed=f"{typical * 1000:.0f} ms (worst {worst * 1000:.0f} ms), {failed} of {len(samples)} requests failed",
        passed=0 < len(edits) == len(delays) and typical <= LIVE_WITHIN and not failed,
        figures={"median_ms": typical * 1000, "worst_ms": worst * 1000, "failed": failed, "requests": len(samples)},
    )


def judge_rotation(samples: Sequence[Sample], before: Greeting, after: Greeting) -> Outcome:
    """Everybody's certificate is replaced while requests flow, and none fails."""
    failed = _failed(samples)
    rotated = before.serial != after.serial and before.identity == after.identity
    return Outcome(
        name="certificates rotated under load",
        expected="new certificates, 0 failed requests",
        observed=f"{'new' if rotated else 'old'} certificate, {failed} of {len(samples)} requests failed",
        passed=rotated and bool(samples) and not failed,
        figures={"failed": failed, "requests": len(samples)},
    )


def broken(name: str, error: BaseException) -> Outcome:
    """A check that could not be made."""
    observed = str(error) or type(error).__name__
    return Outcome(name=name, expected="an answer", observed=observed, passed=False)


def edit_delays(samples: Sequence[Sample], edits: Sequence[Edit]) -> list[float]:
    """Return for each edit that came to hold the seconds from saving to the last answer by the rules before it.

    A request counts as answered by the old rules until its answer is there, so delays err on the long side.
    """
    delays = []
    ends = [*(edit.saved for edit in edits[1:]), float("inf")]
    for edit, end in zip(edits, ends, strict=False):
        during = [sample for sample in samples if edit.saved <= sample.began < end]
        old = [sample.ended for sample in during if sample.workload and sample.workload != edit.workload]
        live = max(old, default=edit.saved)
        if any(sample.began >= live and sample.workload == edit.workload for sample in during):
            delays.append(live - edit.saved)
    return delays


def _status(name: str, account: str, sample: Sample, status: int, *, passed: bool) -> Outcome:
    return Outcome(
        name=name,
        expected=f"{account} gets {status}",
        observed=_answer(sample) + (f" from {sample.workload}" if sample.workload else ""),
        passed=passed,
        figures={"status": sample.status},
    )


def _tally(samples: Sequence[Sample]) -> Counter[str]:
    return Counter(sample.workload for sample in samples if not sample.failed)


def _failed(samples: Sequence[Sample]) -> int:
    return sum(sample.failed for sample in samples)


def _and_failed(samples: Sequence[Sample]) -> str:
    causes = Counter(_answer(sample) for sample in samples if sample.failed)
    return "".join(f", {count} failed ({cause})" for cause, count in sorted(causes.items()))


def _answer(sample: Sample) -> str:
    return str(sample.status) if sample.status else sample.error
