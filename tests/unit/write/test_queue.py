"""Turns by key: the newest value, one write at a time per object, floors, back-off and an end in bounded time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from meshgw.kube.errors import AccessError, ApiError, UnreachableError
from meshgw.write.queue import Outcome, Pace, Queue, outcome_of
from tests.unit.write.parts import FakeTimer, running, settle

PACE = Pace(at_once=2, floor=1.0, first_retry=0.5, longest_retry=4.0, first_refusal=5.0, longest_refusal=20.0)


class Writer:
    """Notes turns with their times; `answer` says how they end."""

    def __init__(self, answer: Callable[[str], Outcome | Exception] = lambda _key: Outcome.WRITTEN) -> None:
        self.timer = FakeTimer()
        self.answer = answer
        self.turns: list[tuple[float, str]] = []
        self.told: Counter[str] = Counter()
        self.waits: list[int] = []
        self.held: dict[str, asyncio.Event] = {}
        self.queue: Queue[str] = Queue(
            "test", self.write, pace=PACE, observer=self, timer=self.timer, jitter=lambda: 1.0
        )

    async def write(self, key: str) -> Outcome:
        self.turns.append((self.timer.now - 100.0, key))
        if key in self.held:
            await self.held[key].wait()
        found = self.answer(key)
        if isinstance(found, Exception):
            raise found
        return found

    def turn_ended(self, queue: str, outcome: str) -> None:
        self.told[outcome] += 1

    def queue_waits(self, queue: str, keys: int) -> None:
        self.waits.append(keys)


async def test_the_first_write_waits_for_nothing_and_the_next_for_the_floor() -> None:
    writer = Writer()
    async with running(writer.queue.run):
        writer.queue.mark("a")
        await settle()
        assert writer.turns == [(0.0, "a")]
        await writer.timer.advance(0.25)
        for _ in range(100):
            writer.queue.mark("a")
        assert len(writer.queue) == 1
        await writer.timer.advance(3)
        assert writer.turns == [(0.0, "a"), (1.0, "a")]
        writer.queue.mark("a")
        await settle()
        assert writer.turns[2:] == [(3.25, "a")]


async def test_the_first_write_may_wait_a_moment_for_what_follows() -> None:
    writer = Writer()
    writer.queue._pace = msgspec.structs.replace(PACE, moment=0.25)
    async with running(writer.queue.run):
        writer.queue.mark("a")
        await writer.timer.advance(0.125)
        writer.queue.mark("a")
        assert len(writer.queue) == 1
        await writer.timer.advance(0.0625)
        assert writer.turns == []
        await writer.timer.advance(0.125)
        assert writer.turns == [(0.25, "a")]
        writer.queue.mark("b")
        writer.queue.forget("b")
        await settle()
        assert [key for _at, key in writer.turns] == ["a", "b"]
        writer.queue.mark("c")
        drained = asyncio.ensure_future(writer.queue.drain(1.0))
        await writer.timer.advance(0.25)
        assert await drained == 0
        assert [key for _at, key in writer.turns] == ["a", "b", "c"]


async def test_a_turn_without_a_write_holds_up_nothing() -> None:
    writer = Writer(lambda _key: Outcome.IDLE)
    async with running(writer.queue.run):
        for _ in range(3):
            writer.queue.mark("a")
            await settle()
        assert writer.turns == [(0.0, "a")] * 3
        assert writer.timer.alarms == 0


async def test_what_happens_during_a_write_is_not_missed() -> None:
    writer = Writer()
    writer.held["a"] = asyncio.Event()
    async with running(writer.queue.run):
        writer.queue.mark("a")
        await settle()
        writer.queue.mark("a")
        writer.queue.mark("a")
        writer.held["a"].set()
        await writer.timer.advance(5)
        assert writer.turns == [(0.0, "a"), (1.0, "a")]


async def test_no_key_has_two_turns_at_once_and_not_too_many_have_one() -> None:
    writer = Writer()
    writer.held = {key: asyncio.Event() for key in "abc"}
    async with running(writer.queue.run):
        for key in "aabbcc":
            writer.queue.mark(key)
        await settle()
        assert [key for _at, key in writer.turns] == ["a", "b"]
        writer.held["a"].set()
        await settle()
        assert [key for _at, key in writer.turns] == ["a", "b", "c"]
        for event in writer.held.values():
            event.set()
        await settle()
        assert len(writer.queue) == 0


async def test_failures_are_tried_again_ever_later_whatever_happens_meanwhile() -> None:
    writer = Writer(lambda _key: UnreachableError("away"))
    async with running(writer.queue.run):
        writer.queue.mark("a")
        await settle()
        writer.queue.mark("a")
        await writer.timer.advance(11)
        assert [at for at, _key in writer.turns] == [0.0, 0.5, 1.5, 3.5, 7.5]
        writer.answer = lambda _key: Outcome.WRITTEN
        await writer.timer.advance(4)
        assert writer.turns[-1] == (11.5, "a")
        assert len(writer.queue) == 0
        writer.answer = lambda _key: UnreachableError("away")
        await writer.timer.advance(10)
        writer.queue.mark("a")
        await writer.timer.advance(0.5)
        assert [at for at, _key in writer.turns[-2:]] == [25.0, 25.5], "the back-off begins anew"


async def test_the_server_may_ask_for_a_longer_wait() -> None:
    writer = Writer(lambda _key: ApiError(429, "TooManyRequests", "", retry_after=9.0))
    async with running(writer.queue.run):
        writer.queue.mark("a")
        await writer.timer.advance(8.9)
        assert len(writer.turns) == 1
        await writer.timer.advance(0.2)
        assert len(writer.turns) == 2


async def test_a_refused_value_waits_long_and_another_one_does_not() -> None:
    writer = Writer(lambda _key: ApiError(422, "Invalid", "no"))
    async with running(writer.queue.run):
        writer.queue.mark("a")
        await settle()
        writer.queue.mark("a", fresh=False)
        await writer.timer.advance(4)
        assert len(writer.turns) == 1
        writer.queue.mark("a")
        await settle()
        assert [at for at, _key in writer.turns] == [0.0, 4.0]
        await writer.timer.advance(60)
        assert [at for at, _key in writer.turns] == [0.0, 4.0, 14.0, 34.0, 54.0]


async def test_a_refusal_of_what_is_old_already_is_followed_by_the_new_at_once() -> None:
    writer = Writer(lambda _key: ApiError(422, "Invalid", "no"))
    writer.held["a"] = asyncio.Event()
    async with running(writer.queue.run):
        writer.queue.mark("a")
        await settle()
        writer.queue.mark("a")
        writer.answer = lambda _key: ApiError(422) if len(writer.turns) == 1 else Outcome.WRITTEN
        writer.held["a"].set()
        await settle()
        assert writer.turns == [(0.0, "a")] * 2


async def test_whoever_was_slower_waits_to_be_marked_again() -> None:
    writer = Writer(lambda _key: ApiError(409, "Conflict", "changed"))
    async with running(writer.queue.run):
        writer.queue.mark("a")
        await writer.timer.advance(60)
        assert len(writer.turns) == 1
        assert writer.timer.alarms == 0
        writer.queue.mark("a")
        await settle()
        assert len(writer.turns) == 2


async def test_what_is_made_anew_is_not_held_up_by_what_was_written_before() -> None:
    writer = Writer()
    async with running(writer.queue.run):
        writer.queue.forget("never seen")
        writer.queue.mark("a")
        await writer.timer.advance(0.1)
        writer.queue.forget("a")
        assert writer.timer.alarms == 0
        writer.queue.mark("a")
        await settle()
        writer.queue.mark("a")
        writer.queue.forget("a")
        await settle()
        assert [key for _at, key in writer.turns] == ["a"] * 3
        assert writer.turns[2][0] < 0.2


async def test_a_bug_costs_its_own_key_only() -> None:
    writer = Writer(lambda key: KeyError("bug") if key == "a" else Outcome.WRITTEN)
    async with running(writer.queue.run):
        for key in "ab":
            writer.queue.mark(key)
        await settle()
        assert writer.told == {"refused": 1, "written": 1}
        assert len(writer.queue) == 1


async def test_what_is_marked_while_nobody_writes_is_forgotten() -> None:
    writer = Writer()
    writer.queue.mark("a")
    async with running(writer.queue.run):
        await settle()
        assert writer.turns == []
        writer.queue.mark("b")
        await settle()
        writer.queue.mark("b")
    assert len(writer.queue) == 0
    assert writer.timer.alarms == 0
    async with running(writer.queue.run):
        writer.queue.mark("b")
        await settle()
    assert [key for _at, key in writer.turns] == ["b", "b"]


async def test_an_end_waits_for_what_waits_but_not_for_ever() -> None:
    writer = Writer(lambda key: UnreachableError("away") if key == "x" else Outcome.WRITTEN)
    writer.held["slow"] = asyncio.Event()
    async with running(writer.queue.run):
        for key in ("a", "x", "slow"):
            writer.queue.mark(key)
        await settle()
        writer.queue.mark("a")
        async with asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(writer.queue.drain(30))
            await settle()
            writer.queue.mark("late")
            assert not ended.done()
            writer.held["slow"].set()
            await settle()
            assert not ended.done(), "the floor of a"
            await writer.timer.advance(1)
            await settle()
            assert ended.done()
        assert ended.result() == 1, "x was left"
    assert "late" not in [key for _at, key in writer.turns]
    assert [key for _at, key in writer.turns].count("a") == 2


async def test_an_end_is_bounded() -> None:
    writer = Writer()
    writer.held["a"] = asyncio.Event()
    async with running(writer.queue.run):
        writer.queue.mark("a")
        await settle()
        assert await writer.queue.drain(0.01) == 1


async def test_age_and_length_are_those_of_what_waits() -> None:
    writer = Writer()
    writer.held["a"] = asyncio.Event()
    async with running(writer.queue.run):
        assert writer.queue.oldest == 0.0
        writer.queue.mark("a")
        await writer.timer.advance(2)
        writer.queue.mark("b")
        assert (len(writer.queue), writer.queue.oldest) == (2, 2.0)
        writer.held["a"].set()
        await settle()
        assert (len(writer.queue), writer.queue.oldest) == (0, 0.0)
    assert writer.waits[-1] == 0
    assert max(writer.waits) == 2


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ApiError(404), Outcome.IDLE),
        (ApiError(409), Outcome.STALE),
        (ApiError(422), Outcome.REFUSED),
        (ApiError(403), Outcome.REFUSED),
        (ApiError(401), Outcome.FAILED),
        (ApiError(503), Outcome.FAILED),
        (AccessError("no kubeconfig"), Outcome.FAILED),
        (UnreachableError("reset"), Outcome.FAILED),
        (TimeoutError(), Outcome.FAILED),
    ],
)
def test_errors_have_outcomes(error: Exception, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome
