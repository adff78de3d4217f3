"""Writes statuses: compares what every object should say with what it says, and sends the difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from meshgw.api.meta import Key, ObjectRef
from meshgw.api.registry import Kind, Registry
from meshgw.ir.status import Status
from meshgw.kube.client import MERGE_PATCH, Client
from meshgw.kube.paths import path_of
from meshgw.kube.seen import Observed, Seen
from meshgw.write.queue import Hold, Outcome, Pace, Queue, Timer, WriteObserver
from meshgw.write.status import build_patch, generation_of

_log = structlog.get_logger(__name__)

_VERB: Final = "patch status"
_PACE: Final = Pace(moment=0.02)


class _Metadata(msgspec.Struct, frozen=True, rename="camel", gc=False):
    uid: str = ""
    resource_version: str = ""
    generation: int = 0


class _Answer(msgspec.Struct, frozen=True, gc=False):
    """What a write returns: the object as it is now."""

    metadata: _Metadata
    status: msgspec.Raw = msgspec.Raw(b"")


class _Object:
    """What is known of one object."""

    __slots__ = ("last", "observed", "status", "unkept")

    def __init__(self) -> None:
        self.observed: Observed | None = None
        self.status: Status | None = None
        self.last: Status | None = None
        """The status before there was none."""
        self.unkept: tuple[Status | None, bytes] | None = None
        """A status, and what the API server did not keep of it."""


class StatusWriter:
    """Brings the statuses of all objects to what they should say, while this replica leads.

    On the event loop of every replica, `observe` is called with what is seen of objects, and `desire` after each commit
    of that, also if it changed no status: until then what is said of a changed object is about its past. `hold` lets
    the leader write, and nobody else. `version` gives the served version of a kind.
    """

    def __init__(
        self,
        client: Client,
        *,
        registry: Registry,
        controller: str,
        hold: Hold,
        version: Callable[[Kind], str] = lambda _kind: "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pace: Pace | None = None,
        observer: WriteObserver | None = None,
        timer: Timer | None = None,
    ) -> None:
        self._client = client
        self._registry = registry
        self._controller = controller
        self._hold = hold
        self._version = version
        self._now = now
        self._observer = observer
        self._objects: dict[ObjectRef, _Object] = {}
        self._uncommitted: set[ObjectRef] = set()
        """Objects seen since the last commit with a generation, or a status, of which it knew nothing."""
        self.queue: Final = Queue[ObjectRef]("status", self._write, pace=pace or _PACE, observer=observer, timer=timer)

    def observe(self, kind: Kind, seen: Sequence[Seen]) -> None:
        """Take in what was seen of objects of a kind; kinds without status of ours are passed over."""
        if _VERB not in kind.verbs:
            return
        for item in seen:
            ref = ObjectRef(kind.name, *item.key)
            known = self._objects.get(ref)
            if item.observed is None:
                self.queue.forget(ref)
                self._uncommitted.discard(ref)
                if known is not None:
                    known.observed = known.last = known.unkept = None
                    self._forget(ref, known)
                continue
            if known is None:
                known = self._objects[ref] = _Object()
            known.observed = item.observed
            if generation_of(known.status) < item.observed.generation:
                self._uncommitted.add(ref)
            else:
                self.queue.mark(ref, fresh=False)

    def desire(self, changes: Mapping[ObjectRef, Status | None]) -> None:
        """Take in the statuses that a commit changed, if any; None is for an object about which nothing is said now."""
        for ref, status in changes.items():
            self._uncommitted.discard(ref)
            known = self._objects.setdefault(ref, _Object())
            if status is None and known.status is not None:
                known.last = known.status
            known.status = status
            if not self._forget(ref, known):
                self.queue.mark(ref)
        for ref in self._uncommitted:
            self.queue.mark(ref, fresh=False)
        self._uncommitted.clear()

    async def run(self) -> None:
        """Write until cancelled: while this replica leads, and not before the first commit of all that there is."""
        await self.queue.run(tuple(self._objects))

    async def drain(self, within: float) -> int:
        """Write what waits, for so many seconds at most; return how many objects were left."""
        return await self.queue.drain(within)

    def _forget(self, ref: ObjectRef, known: _Object) -> bool:
        if known.observed is not None or known.status is not None:
            return False
        del self._objects[ref]
        return True

    async def _write(self, ref: ObjectRef) -> Outcome:
        known = self._objects.get(ref)
        kind = self._registry.by_name(ref.kind)
        if known is None or known.observed is None or kind is None or ref in self._uncommitted:
            return Outcome.IDLE
        observed, status = known.observed, known.status
        body = self._patch(known, observed, self._now().strftime("%Y-%m-%dT%H:%M:%SZ"))
        if body is None or (known.unkept is not None and known.unkept == (status, self._essence(known, observed))):
            return Outcome.IDLE
        path = path_of(kind, Key(ref.namespace, ref.name), subresource="status", version=self._version(kind))
        async with self._hold():
            answer = await self._client.request("PATCH", path, body=body, content_type=MERGE_PATCH)
        if self._observer is not None:
            self._observer.wrote(ref.kind, _VERB)
        after = _observed(answer)
        rest = self._essence(known, after) if known.status == status else None
        if rest is not None and (known.unkept is None or known.unkept != (status, rest)):
            _log.info("the API server keeps less of a status than it was sent: older definitions?", object=str(ref))
        known.unkept = None if rest is None else (status, rest)
        if known.observed is observed:
            # Nobody was seen since, and whoever comes later builds on this.
            known.observed = after
        return Outcome.WRITTEN

    def _patch(self, known: _Object, observed: Observed, now: str) -> bytes | None:
        return build_patch(known.status, observed, controller=self._controller, now=now, last=known.last)

    def _essence(self, known: _Object, observed: Observed) -> bytes | None:
        """Return the patch without what differs every time."""
        return self._patch(known, msgspec.structs.replace(observed, uid="", resource_version=""), "")


_answer_of = msgspec.json.Decoder(_Answer).decode


def _observed(body: bytes) -> Observed:
    answer = _answer_of(body)
    metadata = answer.metadata
    return Observed(
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        generation=metadata.generation,
        status=bytes(answer.status),
    )
