"""Keeps one certificate per identity fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from meshgw.identity.certificate import WorkloadCertificate
from meshgw.identity.clock import Clock, SystemClock
from meshgw.identity.errors import IssueError
from meshgw.identity.observer import IdentityObserver, SilentObserver
from meshgw.identity.spiffe import SpiffeId

ROTATE_AT: Final = 0.5
ROTATE_JITTER: Final = 0.01
"""A certificate is replaced at half of what was left of it when it came, plus or minus this share."""

FIRST_RETRY: Final = 1.0
MAX_RETRY: Final = 150.0
"""Seconds between tries while the CA gives nothing: doubling from the first to the last."""

_RETRY_JITTER: Final = 0.1
_LONGEST_SLEEP: Final = 300.0
_AT_ONCE: Final = 8

_log = structlog.get_logger(__name__)


class CertificateSource(Protocol):
    """Where certificates come from; `IstiodClient` is one."""

    async def fetch(self, identity: SpiffeId) -> WorkloadCertificate:
        """Return a new certificate for `identity`; raises `IssueError`."""


class Rotator:
    """Owns the certificates of a set of identities: fetches, publishes, replaces at half-life.

    `publish` gets every new certificate, in the task of that identity. While the CA is away the last certificate stays
    published, and tries go on after it has ended. A bug in `source` or `publish` is a failed try of that identity, of
    which only the type is logged: its text could hold what nobody may read.
    """

    def __init__(
        self,
        source: CertificateSource,
        publish: Callable[[WorkloadCertificate], None],
        *,
        clock: Clock | None = None,
        observer: IdentityObserver | None = None,
    ) -> None:
        self._source = source
        self._publish = publish
        self._clock: Clock = clock or SystemClock()
        self._observer: IdentityObserver = observer or SilentObserver()
        self._certificates: dict[SpiffeId, WorkloadCertificate] = {}
        self._tasks: dict[SpiffeId, asyncio.Task[None] | None] = {}
        self._group: asyncio.TaskGroup | None = None
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Keep every identity fresh until cancelled; belongs in the caller's TaskGroup."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for identity in list(self._tasks):
                    self._tasks[identity] = self._start(identity)
                await asyncio.Event().wait()
            finally:
                self._group = None

    def add(self, identity: SpiffeId) -> None:
        """Keep a certificate for `identity` from now on; nothing changes if there is one already."""
        if identity not in self._tasks:
            self._tasks[identity] = self._start(identity)

    def remove(self, identity: SpiffeId) -> None:
        """Forget `identity`: nothing is published for it any more, not even what is under way."""
        if identity not in self._tasks:
            return
        self._cancel(identity)
        del self._tasks[identity]
        self._certificates.pop(identity, None)
        self._observer.identity_removed(identity)

    def renew(self, identity: SpiffeId) -> None:
        """Fetch a new certificate for a kept `identity` now, such as after a root rotation; the old one stays."""
        if identity in self._tasks:
            self._cancel(identity)
            self._tasks[identity] = self._start(identity)

    @property
    def identities(self) -> frozenset[SpiffeId]:
        """The identities that are kept."""
        return frozenset(self._tasks)

    def certificate(self, identity: SpiffeId) -> WorkloadCertificate | None:
        """Return the certificate last published for `identity`, None before the first; it may have ended."""
        return self._certificates.get(identity)

    def remaining(self, now: datetime) -> Mapping[SpiffeId, float]:
        """Return the seconds each certificate still has at `now`, negative once it has ended."""
        return {identity: certificate.remaining(now) for identity, certificate in self._certificates.items()}

    def _start(self, identity: SpiffeId) -> asyncio.Task[None] | None:
        return self._group.create_task(self._keep(identity), name=f"rotate {identity}") if self._group else None

    def _cancel(self, identity: SpiffeId) -> None:
        task = self._tasks[identity]
        if task is not None:
            task.cancel()

    async def _keep(self, identity: SpiffeId) -> None:
        failures = 0
        while True:
            try:
                async with self._turns:
                    certificate = await self._source.fetch(identity)
                self._accept(identity, certificate)
            except Exception as error:  # noqa: BLE001 - one identity must not end those of all others
                failures += 1
                await self._clock.sleep(self._fail(identity, error, failures))
                continue
            failures = 0
            await self._sleep_until_half(certificate)

    def _fail(self, identity: SpiffeId, error: Exception, failures: int) -> float:
        """Tell of a failed try; return the seconds until the next."""
        delay = self._retry_delay(identity, failures)
        if isinstance(error, IssueError):
            _log.warning("no certificate", identity=identity.uri, error=str(error), retry_seconds=round(delay, 1))
            self._observer.rotation_failed(identity, error.code)
        else:
            bug = type(error).__name__
            _log.error("no certificate: a bug", identity=identity.uri, error=bug, retry_seconds=round(delay, 1))
            self._observer.rotation_failed(identity, bug)
        return delay

    def _accept(self, identity: SpiffeId, certificate: WorkloadCertificate) -> None:
        self._publish(certificate)
        self._certificates[identity] = certificate
        self._observer.certificate_expires(identity, certificate.not_after.timestamp())
        self._observer.certificate_rotated(identity)
        _log.info("certificate rotated", identity=identity.uri, not_after=certificate.not_after.isoformat())

    async def _sleep_until_half(self, certificate: WorkloadCertificate) -> None:
        # From now, not from `not_before`, which lies before the issue to forgive skewed clocks.
        now = self._clock.now()
        share = ROTATE_AT + ROTATE_JITTER * self._clock.jitter()
        rotate_at = now + timedelta(seconds=max(FIRST_RETRY, certificate.remaining(now) * share))
        # In short steps: a machine that was suspended must notice soon after it wakes.
        while (left := (rotate_at - self._clock.now()).total_seconds()) > 0:
            await self._clock.sleep(min(left, _LONGEST_SLEEP))

    def _retry_delay(self, identity: SpiffeId, failures: int) -> float:
        delay = min(MAX_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16))
        certificate = self._certificates.get(identity)
        left = certificate.remaining(self._clock.now()) if certificate else 0.0
        if left > 0:  # try again well before the certificate in use ends
            delay = min(delay, max(FIRST_RETRY, left / 2))
        return min(MAX_RETRY, delay * (1 + _RETRY_JITTER * self._clock.jitter()))
