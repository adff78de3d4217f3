"""Writes by key: many at once, one at a time for each object, and no faster than an object's watchers want to hear.

The queue holds keys, not values: what is written is looked up when its turn comes, so it is the newest. There is one
slot per key that has something to write or has just been written, hence nothing can pile up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
import structlog

from meshgw.kube.errors import AccessError, ApiError
from meshgw.kube.lease import NotLeaderError

K = TypeVar("K")

_log = structlog.get_logger(__name__)

Hold = Callable[[], AbstractAsyncContextManager[None]]
"""Gives the time for one request that only the leader may make, as `Elector.hold` does; raises `NotLeaderError`."""


class Outcome(Enum):
    """How the turn of a key ended."""

    IDLE = "idle"
    """There was nothing to write, or there is no such object any more."""
    WRITTEN = "written"
    STALE = "stale"
    """Somebody else was faster: what the API server shows next brings the key back."""
    REFUSED = "refused"
    """The API server will not have this value. Another one may do, so a fresh mark ends the wait."""
    FAILED = "failed"
    """The API server did not do it this time."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the queue is; seconds."""

    at_once: int = 8
    floor: float = 1.0
    """Least time between two writes of one key."""
    moment: float = 0.0
    """For how long the first write waits: what a change means for traffic goes first, and what follows comes along."""
    first_retry: float = 0.5
    longest_retry: float = 30.0
    first_refusal: float = 5.0
    longest_refusal: float = 300.0


class Alarm(Protocol):
    """Something that will be called, until cancelled."""

    def cancel(self) -> None:
        """Do not call."""


class Timer(Protocol):
    """Time, as an event loop has it."""

    def time(self) -> float:
        """Return the seconds of a monotonic clock."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Alarm:
        """Call back after `delay` seconds."""


class QueueObserver(Protocol):
    """Is told how a queue does."""

    def turn_ended(self, queue: str, outcome: str) -> None:
        """Count a turn."""

    def queue_waits(self, queue: str, keys: int) -> None:
        """Set the number of keys that have something to write."""


class WriteObserver(QueueObserver, Protocol):
    """Is told of every change made through the API server, too."""

    def wrote(self, kind: str, verb: str) -> None:
        """Count a request that changed something, or may have."""


class _State(Enum):
    READY = 1
    RUNNING = 2
    RESTING = 3


_HOPELESS: Final = frozenset({Outcome.REFUSED, Outcome.FAILED})


class _Slot:
    """A key's place: `dirty` once something happened that its last turn did not see."""

    __slots__ = ("alarm", "attempts", "dirty", "outcome", "since", "state", "written")

    def __init__(self) -> None:
        self.state = _State.RESTING
        self.dirty = False
        self.attempts = 0
        self.outcome = Outcome.IDLE
        self.since = 0.0
        self.written: float | None = None
        self.alarm: Alarm | None = None

    @property
    def waits(self) -> bool:
        """Whether there is something to write."""
        return self.dirty or self.state is not _State.RESTING

    @property
    def hopeful(self) -> bool:
        """Whether it will be written soon, if nothing unexpected happens."""
        return self.waits and not (self.state is _State.RESTING and self.outcome in _HOPELESS)


class Queue(Generic[K]):
    """Gives each marked key its turn: `write` brings the API server up to date about it and says how that ended.

    `run` belongs to the time in which the keys are ours to write; what is marked at other times is not remembered.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[K], Awaitable[Outcome]],
        *,
        pace: Pace | None = None,
        observer: QueueObserver | None = None,
        timer: Timer | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name: Final = name
        self._write = write
        self._pace = pace or Pace()
        self._observer = observer
        self._given_timer = timer
        self._timer: Timer | None = None
        self._jitter = jitter
        self._slots: dict[K, _Slot] = {}
        self._ready: deque[K] = deque()
        self._wake = asyncio.Event()
        self._waiting = 0
        self._hopeful = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._ending = False

    def __len__(self) -> int:
        """Return the number of keys that have something to write."""
        return self._waiting

    @property
    def oldest(self) -> float:
        """The seconds for which the longest waiting key has had something to write, 0 if none has."""
        now = self._timer.time() if self._timer is not None else 0.0
        return max((now - slot.since for slot in self._slots.values() if slot.waits), default=0.0)

    def mark(self, key: K, *, fresh: bool = True) -> None:
        """Say that `key` may need a write. With `fresh` it is another value than one that was refused."""
        if self._timer is None or self._ending:
            return
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot()
            slot.since = self._timer.time()
            self._set(slot, dirty=True)
            self._rest(key, slot, self._pace.moment)
        elif slot.state is not _State.READY:
            if not slot.waits:
                slot.since = self._timer.time()
            self._set(slot, dirty=True)
            if fresh and slot.state is _State.RESTING and slot.outcome is Outcome.REFUSED:
                self._rest(key, slot, self._left_of_floor(slot))

    def forget(self, key: K) -> None:
        """Say that what `key` stands for is gone: whatever gets its name is not held up by what was written before."""
        slot = self._slots.get(key)
        if slot is not None:
            slot.written, slot.attempts = None, 0
            if slot.state is _State.RESTING:
                self._rest(key, slot, 0.0)

    async def run(self, keys: Iterable[K] = ()) -> None:
        """Give turns until cancelled, to these keys first; afterwards nothing is remembered."""
        self._timer = self._given_timer or asyncio.get_running_loop()
        self._ending = False
        for key in keys:
            self.mark(key)
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._pace.at_once):
                    tasks.create_task(self._work(), name=f"{self.name} {number}")
        finally:
            for slot in self._slots.values():
                if slot.alarm is not None:
                    slot.alarm.cancel()
            self._slots.clear()
            self._ready.clear()
            self._timer = None
            self._waiting = self._hopeful = 0
            self._tell()

    async def drain(self, within: float) -> int:
        """Take nothing new, wait at most so long for what waits, and return how many keys were left unwritten.

        Keys that the API server refuses or fails are not waited for.
        """
        self._ending = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._hopeful:
                    await self._quiet.wait()
        return self._waiting

    async def _work(self) -> None:
        while True:
            while not self._ready:
                self._wake.clear()
                await self._wake.wait()
            key = self._ready.popleft()
            slot = self._slots[key]
            self._set(slot, state=_State.RUNNING, dirty=False)
            outcome, asked = await self._turn(key)
            self._end_turn(key, slot, outcome, asked)

    async def _turn(self, key: K) -> tuple[Outcome, float]:
        """Return how the turn ended, and the seconds that the API server asks to wait."""
        try:
            return await self._write(key), 0.0
        except NotLeaderError:
            # It may be a moment between two renewals; who ceases to lead is cancelled.
            return Outcome.FAILED, 0.0
        except (ApiError, AccessError, OSError, TimeoutError) as error:
            outcome = outcome_of(error)
            if outcome in _HOPELESS:
                _log.warning("not written", queue=self.name, object=str(key), error=str(error))
            return outcome, error.retry_after if isinstance(error, ApiError) else 0.0
        except Exception:  # noqa: BLE001 - a bug costs its own object only; the others have their turns
            _log.exception("not written", queue=self.name, object=str(key))
            return Outcome.REFUSED, 0.0

    def _end_turn(self, key: K, slot: _Slot, outcome: Outcome, asked: float) -> None:
        assert self._timer is not None  # noqa: S101 - turns are given by `run`
        pace, fresh = self._pace, slot.dirty
        if outcome not in _HOPELESS:
            slot.attempts = 0
        if outcome is Outcome.WRITTEN:
            slot.written = self._timer.time()
        delay = self._left_of_floor(slot)
        if outcome is Outcome.FAILED:
            delay = max(asked, delay, self._back_off(slot, pace.first_retry, pace.longest_retry))
        elif outcome is Outcome.REFUSED and not fresh:
            delay = max(delay, self._back_off(slot, pace.first_refusal, pace.longest_refusal))
        self._set(slot, outcome=outcome, dirty=fresh or outcome in _HOPELESS)
        self._rest(key, slot, delay)
        if self._observer is not None:
            self._observer.turn_ended(self.name, outcome.value)

    def _back_off(self, slot: _Slot, first: float, longest: float) -> float:
        slot.attempts += 1
        return min(longest, first * 2.0 ** min(slot.attempts - 1, 30)) * (0.75 + self._jitter() / 4)

    def _left_of_floor(self, slot: _Slot) -> float:
        assert self._timer is not None  # noqa: S101 - turns are given by `run`
        return 0.0 if slot.written is None else slot.written + self._pace.floor - self._timer.time()

    def _rest(self, key: K, slot: _Slot, delay: float) -> None:
        """Let the key have no turn for a while; a slot that then has nothing to write is given up."""
        assert self._timer is not None  # noqa: S101 - turns are given by `run`
        self._set(slot, state=_State.RESTING)
        if slot.alarm is not None:
            slot.alarm.cancel()
        if delay > 0:
            slot.alarm = self._timer.call_later(delay, self._end_rest, key, slot)
        else:
            self._end_rest(key, slot)

    def _end_rest(self, key: K, slot: _Slot) -> None:
        slot.alarm = None
        if slot.dirty:
            self._make_ready(key, slot)
        else:
            del self._slots[key]

    def _make_ready(self, key: K, slot: _Slot) -> None:
        self._set(slot, state=_State.READY)
        self._ready.append(key)
        self._wake.set()

    def _set(
        self, slot: _Slot, *, state: _State | None = None, dirty: bool | None = None, outcome: Outcome | None = None
    ) -> None:
        """Change a slot and the counts of slots."""
        waited, hoped = slot.waits, slot.hopeful
        slot.state = slot.state if state is None else state
        slot.dirty = slot.dirty if dirty is None else dirty
        slot.outcome = slot.outcome if outcome is None else outcome
        self._hopeful += slot.hopeful - hoped
        if self._hopeful:
            self._quiet.clear()
        else:
            self._quiet.set()
        if slot.waits != waited:
            self._waiting += slot.waits - waited
            self._tell()

    def _tell(self) -> None:
        if self._observer is not None:
            self._observer.queue_waits(self.name, self._waiting)


def outcome_of(error: Exception) -> Outcome:
    """Return how a turn ended whose request failed."""
    if not isinstance(error, ApiError):
        return Outcome.FAILED
    match error.status:
        case 404 | 410:
            return Outcome.IDLE
        case 409:
            return Outcome.STALE
        case 400 | 403 | 405 | 413 | 415 | 422:
            return Outcome.REFUSED
        case _:
            return Outcome.FAILED
