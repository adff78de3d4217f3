"""Who gets a stream: peers that prove who they are, as many as the bounds allow."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec.structs import replace

from meshgw.observe.log import get_logger
from meshgw.xds.pace import Pace
from meshgw.xds.proxy import Account, Authenticate, Limits, Peer, Refused

CREDENTIAL: Final = "authorization"
"""The request header that is dropped once the peer is authenticated."""
_SOURCES: Final = 4096
"""Addresses whose failures are counted."""

K = TypeVar("K")

_log = get_logger("xds")


class Admission:
    """Counts streams from `enter`, which lets them in or refuses, to `leave`."""

    def __init__(
        self, authenticate: Authenticate | None, limits: Limits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._authenticate = authenticate
        self._limits = limits
        self._clock = clock
        self._failures: OrderedDict[str, Pace] = OrderedDict()  # by address, the newest last
        self._waiting = 0
        self._streams = 0
        self._of_namespace: Counter[str] = Counter()
        self._of_account: Counter[tuple[str, str]] = Counter()
        self._of_pod: Counter[tuple[str, str]] = Counter()

    async def enter(self, peer: Peer) -> Peer | Refused:
        """The peer as it has proven to be, from now on counted until `leave`; or why it gets no stream."""
        if self._streams + self._waiting >= self._limits.streams:
            return Refused("too many streams", "RESOURCE_EXHAUSTED")
        if self._authenticate is not None:
            if self._waiting >= self._limits.waiting:
                return Refused("too many streams are being authenticated", "RESOURCE_EXHAUSTED")
            source = peer.address.rpartition(":")[0]
            failures = self._failures.get(source)
            if failures is not None and failures.is_spent(self._clock()):
                return Refused("too many streams from this address were refused", "RESOURCE_EXHAUSTED")
            verdict = await self._prove(self._authenticate, peer)
            if isinstance(verdict, Refused):
                if verdict.code == "UNAUTHENTICATED":
                    self._count_failure(source)
                return verdict
            peer = verdict
        account = peer.account
        if account is not None and (refused := self._check(account)):
            return refused
        self._streams += 1
        if account is not None:
            self._of_namespace[account.namespace] += 1
            self._of_account[_name(account)] += 1
            self._of_pod[_pod(account)] += 1
        return peer

    def leave(self, peer: Peer) -> None:
        """Count a stream no more; `peer` is what `enter` returned."""
        self._streams -= 1
        if peer.account is not None:
            _uncount(self._of_namespace, peer.account.namespace)
            _uncount(self._of_account, _name(peer.account))
            _uncount(self._of_pod, _pod(peer.account))

    async def _prove(self, authenticate: Authenticate, peer: Peer) -> Peer | Refused:
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.patience):
                verdict = await authenticate(peer)
        except TimeoutError:
            return Refused("authentication took too long", "UNAVAILABLE")
        except Exception as error:  # noqa: BLE001 - whatever went wrong, nobody is let in for it
            # Not its text or trace: it may have been about the token.
            _log.error("authentication failed", error=type(error).__name__)
            return Refused("authentication is not possible now", "UNAVAILABLE")
        finally:
            self._waiting -= 1
        if isinstance(verdict, Refused):
            return verdict
        if verdict.account is None:
            return Refused("the peer has not proven who it is", "UNAUTHENTICATED")
        headers = {name: value for name, value in verdict.headers.items() if name != CREDENTIAL}
        return replace(verdict, headers=headers)

    def _count_failure(self, source: str) -> None:
        now, limits = self._clock(), self._limits
        failures = self._failures.pop(source, None)
        if failures is None:
            failures = Pace(rate=limits.failures, burst=limits.failure_burst, now=now)
        failures.spend(1.0, now)
        self._failures[source] = failures
        if len(self._failures) > _SOURCES:
            self._failures.popitem(last=False)

    def _check(self, account: Account) -> Refused | None:
        if self._of_pod[_pod(account)] >= self._limits.streams_per_pod:
            return Refused("too many streams of this pod", "RESOURCE_EXHAUSTED")
        if self._of_account[_name(account)] >= self._limits.streams_per_account:
            return Refused("too many streams of this ServiceAccount", "RESOURCE_EXHAUSTED")
        if self._of_namespace[account.namespace] >= self._limits.streams_per_namespace:
            return Refused("too many streams of this namespace", "RESOURCE_EXHAUSTED")
        return None


def _uncount(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _name(account: Account) -> tuple[str, str]:
    return account.namespace, account.service_account


def _pod(account: Account) -> tuple[str, str]:
    return account.namespace, account.pod_uid
