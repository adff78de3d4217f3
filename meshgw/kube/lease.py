"""Election of the one that writes, by a Lease of coordination.k8s.io.

Whoever holds the Lease renews it; others take it when it has not changed for its duration *by their own clock*, so
clocks need not agree. The holder counts from the moment before it sent the last renewal that succeeded, and stops well
before the others may begin: by its own clock again, which runs on while the process is stopped. So one that was frozen
finds out at its next look at the clock, which `hold` makes right before a write.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from meshgw.kube.client import GUARD, MERGE_PATCH, Client
from meshgw.kube.clock import Clock, SystemClock
from meshgw.kube.errors import AccessError, ApiError, UnreachableError
from meshgw.kube.paths import LEASE_API, resource_path
from meshgw.kube.reading import parse

DURATION: Final = 15.0
"""Seconds after which a Lease that nobody renews may be taken."""

_RELEASE: Final = 2.0

_log = structlog.get_logger(__name__)


class NotLeaderError(Exception):
    """This process does not hold the Lease, or no longer, so it must not write."""


class _Spec(msgspec.Struct, rename="camel", omit_defaults=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Metadata(msgspec.Struct, rename="camel", omit_defaults=True):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Lease(msgspec.Struct, rename="camel"):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    api_version: str = LEASE_API
    kind: str = "Lease"


_DECODER: Final = msgspec.json.Decoder(_Lease)


class Elector:
    """One candidate for one Lease; `identity` must be another for each process, also of one pod.

    The holder renews every `duration / 7.5` seconds and stops to be leader `duration * 2 / 3` after its last success.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: float = DURATION,
        changed: Callable[[bool], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.identity: Final = identity
        self.transitions = 0
        """How often this process became leader or ceased to be."""
        self.holder = ""
        """Who held the Lease when it was last looked at, empty if nobody."""
        self._client = client
        self._path = resource_path(LEASE_API, "leases", namespace=namespace, name=name)
        self._folder = resource_path(LEASE_API, "leases", namespace=namespace)
        self._metadata = _Metadata(name=name, namespace=namespace)
        self._duration = duration
        self._valid = duration * 2 / 3
        self._period = duration / 7.5
        self._changed = changed
        self._clock: Clock = clock or SystemClock()
        self._leads = False
        self._until = 0.0
        self._lease: _Lease | None = None
        self._version = ""
        self._seen_at = 0.0

    @property
    def is_leader(self) -> bool:
        """Whether this process may write now."""
        return self._leads and self._clock.now() < self._until

    def check(self) -> float:
        """Return the seconds for which this process may still write; raises `NotLeaderError`."""
        left = self._until - self._clock.now()
        if not self._leads:
            raise NotLeaderError(f"{self.holder or 'nobody'} holds the lease")
        if left <= 0:
            raise NotLeaderError("the lease was renewed too long ago")
        return left

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Give the time for one write, which is cancelled when it outlasts the Lease; raises `NotLeaderError`.

        A request within looks at the clock once more right before its body is sent, so that one who was stopped after
        having been allowed to write does not. What is left to chance are microseconds, for which writes have a resource
        version as precondition.
        """
        left = self.check()
        token = GUARD.set(self.check)
        try:
            async with asyncio.timeout(left) as limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise NotLeaderError("the lease ended during the write") from None
            raise
        finally:
            GUARD.reset(token)

    async def run(self) -> None:
        """Campaign, lead, and campaign again, until cancelled; then give the Lease back."""
        try:
            while True:
                # A leader's answer that comes after the end is of no use, and the end has to be told.
                limit = self._until - self._clock.now() if self._leads else self._valid
                try:
                    async with asyncio.timeout(max(limit, self._period / 10)):
                        await self._try()
                except (ApiError, UnreachableError, AccessError, TimeoutError) as error:
                    self._lease = None
                    _log.info("the lease cannot be had or renewed", error=str(error) or "no answer in time")
                self._settle(leads=self.is_leader)
                await self._clock.sleep(self._period * (1 + self._clock.chance() / 5))
        finally:
            await self._release()

    async def _try(self) -> None:
        """Renew the Lease, or take it if it is free."""
        if self._lease is None or not self._leads:
            await self._look()
        now = self._clock.now()
        if self._lease is None:
            body = _encode(self._metadata, self._claim(None))
            answer = await self._client.request("POST", self._folder, body=body, timeout=self._valid)
        else:
            spec = self._lease.spec
            given = spec.lease_duration_seconds or 0
            if spec.holder_identity not in {None, "", self.identity} and now < self._seen_at + given:
                return
            metadata = _Metadata(resource_version=self._lease.metadata.resource_version)
            answer = await self._patch(metadata, self._claim(spec))
        self._note(parse(_DECODER, answer))
        self._until = now + self._valid
        self._settle(leads=self._clock.now() < self._until)

    async def _look(self) -> None:
        """Read the Lease; what is new of it counts from now."""
        try:
            answer = await self._client.request("GET", self._path, timeout=self._valid)
        except ApiError as error:
            if error.status != 404:
                raise
            self._lease, self.holder = None, ""
            return
        self._note(parse(_DECODER, answer))

    def _note(self, lease: _Lease) -> None:
        if lease.metadata.resource_version != self._version:
            self._version = lease.metadata.resource_version
            self._seen_at = self._clock.now()
        self._lease = lease
        self.holder = lease.spec.holder_identity or ""
        if self.holder != self.identity:
            self._settle(leads=False)

    def _claim(self, before: _Spec | None) -> _Spec:
        """Return what the Lease says when this process has it."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        keeps = before is not None and before.holder_identity == self.identity
        transitions = 0 if before is None else (before.lease_transitions or 0) + (not keeps)
        return _Spec(
            holder_identity=self.identity,
            lease_duration_seconds=max(1, round(self._duration)),
            acquire_time=before.acquire_time if before is not None and keeps else now,
            renew_time=now,
            lease_transitions=transitions,
        )

    async def _patch(self, metadata: _Metadata, spec: _Spec) -> bytes:
        # Only what is ours changes, and only if nobody else changed the Lease.
        body = _encode(metadata, spec)
        return await self._client.request("PATCH", self._path, body=body, content_type=MERGE_PATCH, timeout=self._valid)

    async def _release(self) -> None:
        """Let others have the Lease at once."""
        lease, led = self._lease, self._leads
        self._settle(leads=False)
        if lease is None or not led:
            return
        with contextlib.suppress(ApiError, UnreachableError, AccessError, TimeoutError):
            async with asyncio.timeout(_RELEASE):
                metadata = _Metadata(resource_version=lease.metadata.resource_version)
                await self._patch(metadata, _Spec(holder_identity="", lease_duration_seconds=1))

    def _settle(self, *, leads: bool) -> None:
        """Tell a change of leadership."""
        if leads != self._leads:
            self._leads = leads
            self.transitions += 1
            _log.info("the lease is held" if leads else "the lease is not held", holder=self.holder)
            if self._changed is not None:
                self._changed(leads)


def _encode(metadata: _Metadata, spec: _Spec) -> bytes:
    return msgspec.json.encode(_Lease(metadata=metadata, spec=spec))
