"""What the writers' tests share: time that moves when told to, and an API server that answers as told."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from meshgw.kube.errors import ApiError
from meshgw.kube.lease import NotLeaderError


async def settle() -> None:
    """Let every task go on until it waits for something."""
    for _ in range(50):
        await asyncio.sleep(0)


def hold_while(leads: Callable[[], bool]) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Let requests be made while `leads` says so."""

    @asynccontextmanager
    async def hold() -> AsyncIterator[None]:
        if not leads():
            raise NotLeaderError("another one leads")
        yield

    return hold


class Alarm:
    def __init__(self) -> None:
        self.off = False

    def cancel(self) -> None:
        self.off = True


class FakeTimer:
    """Time that moves only by `advance`."""

    def __init__(self) -> None:
        self.now = 100.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Alarm, Callable[..., object], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Alarm:
        alarm = Alarm()
        heapq.heappush(self._due, (self.now + delay, next(self._order), alarm, callback, args))
        return alarm

    @property
    def alarms(self) -> int:
        return sum(1 for item in self._due if not item[2].off)

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        await settle()
        while self._due and self._due[0][0] <= end:
            at, _order, alarm, callback, args = heapq.heappop(self._due)
            self.now = at
            if not alarm.off:
                callback(*args)
            await settle()
        self.now = end


@asynccontextmanager
async def running(*parts: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run writers until the block ends."""
    with suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(_whole(part)) for part in parts]
            await settle()
            try:
                yield
            finally:
                for task in started:
                    task.cancel()


async def _whole(part: Callable[[], Awaitable[None]]) -> None:
    await part()


class Request:
    """One request that was made."""

    def __init__(self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str) -> None:
        self.method = method
        self.path = path
        self.query = dict(query)
        self.body: Any = None if body is None else json.loads(body)
        self.content_type = content_type

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"


Answer = Callable[[Request], Any]


class FakeClient:
    """Stands where `meshgw.kube.client.Client` does: every request is noted and answered by a function.

    An answer is a document, an exception to raise, or an awaitable of either.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout: float = 30.0,  # noqa: ASYNC109 - as the client has it
    ) -> bytes:
        request = Request(method, path, query or {}, body, content_type)
        self.requests.append(request)
        found = self.answer(request)
        if isinstance(found, Awaitable):
            found = await found
        if isinstance(found, Exception):
            raise found
        return json.dumps(found).encode()

    @property
    def made(self) -> list[str]:
        return [repr(request) for request in self.requests]


def refusal(status: int, reason: str = "", message: str = "") -> ApiError:
    return ApiError(status, reason, message)
