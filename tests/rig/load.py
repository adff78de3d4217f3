"""A bounded closed-loop load generator: N clients, each sending one request after the other until told to stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.rig.clients import HttpClient, HttpVersion, Response, Target
from tests.rig.tls import ClientTls


@dataclass
class Report:
    """Counts of a run; `latencies` are seconds of successful exchanges (any status)."""

    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    pods: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Requests that got an answer or an error."""
        return self.statuses.total() + self.errors.total()

    @property
    def failed(self) -> int:
        """Requests without an answer, or with one that `accept` refused."""
        return self.errors.total()

    def percentile(self, share: float) -> float:
        """Return the latency below which `share` (0 to 1) of the requests stayed, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Load:
    """Runs while its `async with` block runs; `report` is complete after it.

    `path` may be a function of the request's number. `accept` says which responses are fine (default: status 200);
    others count as errors, with the first few kept in `samples`. `pause` seconds separate a client's requests;
    `reuse=False` opens a connection per request. It stops by itself after `limit` requests.
    """

    def __init__(
        self,
        target: Target,
        path: str | Callable[[int], str] = "/",
        *,
        clients: int = 4,
        host: str | None = None,
        headers: dict[str, str] | None = None,
        http: HttpVersion = "1.1",
        tls: ClientTls | None = None,
        accept: Callable[[Response], bool] = lambda response: response.status == 200,
        pause: float = 0.002,
        reuse: bool = True,
        limit: int = 1_000_000,
        within: float = 5.0,
        open_client: Callable[[], HttpClient] | None = None,
    ) -> None:
        self.report = Report()
        self._path = path if callable(path) else lambda _number: path
        self._options: dict[str, Any] = {"host": host, "headers": headers or {}}
        self._open = open_client or (lambda: HttpClient(target, tls=tls, http=http, within=within))
        self._clients, self._accept, self._pause, self._reuse, self._limit = clients, accept, pause, reuse, limit
        self._stop = asyncio.Event()
        self._progress = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._sent = 0

    async def at_least(self, number: int, *, within: float = 30.0) -> None:
        """Wait until `number` more requests are done."""
        goal = self.report.total + number
        async with asyncio.timeout(within), self._progress:
            await self._progress.wait_for(lambda: self.report.total >= goal)

    async def stop(self) -> Report:
        """Let requests in flight finish and return the report."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        return self.report

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(), name=f"load {index}") for index in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _run(self) -> None:
        client = self._open()
        try:
            while not self._stop.is_set() and self._sent < self._limit:
                self._sent += 1
                await self._one(client, self._path(self._sent))
                if not self._reuse:
                    await client.__aexit__(None, None, None)
                    client = self._open()
                await asyncio.sleep(self._pause)
        finally:
            await client.__aexit__(None, None, None)

    async def _one(self, client: HttpClient, path: str) -> None:
        report, clock = self.report, asyncio.get_running_loop().time
        began = clock()
        try:
            response = await client.get(path, **self._options)
        except Exception as error:  # noqa: BLE001 - any failure of the path under test is a counted error
            self._fail(f"{type(error).__name__}: {error}")
        else:
            report.latencies.append(clock() - began)
            report.statuses[response.status] += 1
            report.pods[response.pod or ""] += 1
            if not self._accept(response):
                report.statuses[response.status] -= 1
                self._fail(f"status {response.status} {response.body[:200]!r}")
        async with self._progress:
            self._progress.notify_all()

    def _fail(self, reason: str) -> None:
        self.report.errors[reason] += 1
        if len(self.report.samples) < 20:
            self.report.samples.append(reason)
