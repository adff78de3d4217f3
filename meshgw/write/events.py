"""Tells people what happened to an object as Kubernetes Events (events.k8s.io/v1): once, then as a count.

Any replica may tell what it sees, so nothing here asks who leads. Events are a courtesy: they never hold anything up,
and one that cannot be written is dropped and counted.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol

import msgspec
import structlog

from meshgw.api.meta import ObjectRef
from meshgw.api.registry import Registry
from meshgw.kube.client import MERGE_PATCH, Client
from meshgw.kube.errors import AccessError, ApiError
from meshgw.kube.paths import resource_path
from meshgw.names import CONTROLLER_NAME
from meshgw.write.queue import Outcome, Pace, Queue, QueueObserver, Timer, outcome_of
from meshgw.write.workload import PROXY_KINDS

_log = structlog.get_logger(__name__)

API: Final = "events.k8s.io/v1"
TOGETHER: Final = timedelta(minutes=10)
"""What happens again within this time is counted in the same Event."""

_TEXTS: Final = 3
"""Events about one object with one reason: what then still has another text is counted in the last of them."""
_MOST: Final = 1000
_TRIES: Final = 3
_BURST: Final = 25.0
_PER_SECOND: Final = 1.0
"""New Events of one namespace: a tenant with much to be told about must not keep others from being told."""
_NAMESPACES: Final = 4096
_PACE: Final = Pace(at_once=2, floor=30.0, first_retry=1.0, longest_retry=30.0)

# Limits of the API.
_NOTE: Final = 1024
_WORD: Final = 128
_NAME: Final = 200


class EventObserver(QueueObserver, Protocol):
    """Is told what becomes of Events."""

    def event_told(self, reason: str) -> None:
        """Count something that happened and was told."""

    def event_dropped(self, reason: str) -> None:
        """Count something that happened and was not told."""


class _Topic(NamedTuple):
    """What one Event is about."""

    about: ObjectRef
    reason: str
    note: str


class _Series:
    """One Event: how often it happened, and how often the API server knows."""

    __slots__ = ("count", "first", "last", "name", "told", "tries", "uid", "warning")

    def __init__(self, at: datetime, uid: str, *, warning: bool) -> None:
        self.first = self.last = at
        self.uid = uid
        self.warning = warning
        self.count = 1
        self.told = 0
        self.tries = 0
        self.name = ""


class EventWriter:
    """Writes Events; `instance` names this replica, usually its pod."""

    def __init__(
        self,
        client: Client,
        *,
        registry: Registry,
        instance: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pace: Pace = _PACE,
        observer: EventObserver | None = None,
        timer: Timer | None = None,
    ) -> None:
        self._client = client
        self._instance = instance[:_WORD] or "meshgw"
        self._now = now
        self._observer = observer
        self._api_versions = {kind.name: kind.api_version for kind in (*PROXY_KINDS, *registry.kinds)}
        self._series: OrderedDict[_Topic, _Series] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[float, datetime]] = OrderedDict()  # by namespace: how many, and when
        self.queue: Final = Queue[_Topic]("events", self._write, pace=pace, observer=observer, timer=timer)

    def publish(self, about: ObjectRef, reason: str, note: str, *, uid: str = "", warning: bool = True) -> None:
        """Tell what happened to an object; `reason` is one word for programs, `note` a sentence for people.

        `uid` is the object's: `kubectl describe` shows only Events that have it.
        """
        now = self._now()
        self._prune(now)
        topic = self._topic(about, reason[:_WORD], _cut(note))
        series = self._series.get(topic)
        if series is not None:
            series.count += 1
            series.last = now
            self._series.move_to_end(topic)
        elif self._take_token(about.namespace, now):
            self._series[topic] = _Series(now, uid, warning=warning)
        else:
            self._drop(reason)
            return
        self.queue.mark(topic)

    async def run(self) -> None:
        """Write until cancelled; belongs to the whole life of a replica."""
        await self.queue.run(tuple(self._series))

    def _topic(self, about: ObjectRef, reason: str, note: str) -> _Topic:
        """Return what an occurrence is counted as: itself, or the last of too many texts."""
        topic = _Topic(about, reason, note)
        if topic in self._series:
            return topic
        others = [other for other in self._series if other[:2] == (about, reason)]
        return topic if len(others) < _TEXTS else others[-1]

    def _prune(self, now: datetime) -> None:
        while self._series:
            topic, series = next(iter(self._series.items()))
            if now - series.last < TOGETHER and len(self._series) < _MOST:
                return
            del self._series[topic]

    def _take_token(self, namespace: str, now: datetime) -> bool:
        tokens, filled = self._tokens.pop(namespace, (_BURST, now))
        tokens = min(_BURST, tokens + max(0.0, (now - filled).total_seconds()) * _PER_SECOND)
        taken = tokens >= 1
        self._tokens[namespace] = (tokens - 1 if taken else tokens, now)
        if len(self._tokens) > _NAMESPACES:
            self._tokens.popitem(last=False)
        return taken

    async def _write(self, topic: _Topic) -> Outcome:
        series = self._series.get(topic)
        if series is None or series.told == series.count:
            return Outcome.IDLE
        count = series.count
        try:
            if series.name:
                await self._count(topic, series, count)
            else:
                await self._create(topic, series)
                count = 1
        except (ApiError, AccessError, OSError) as error:
            return self._fail(topic, series, error)
        series.tries = 0
        series.told = count
        if self._observer is not None:
            self._observer.event_told(topic.reason)
        if series.count > count:
            self.queue.mark(topic)
        return Outcome.WRITTEN

    def _fail(self, topic: _Topic, series: _Series, error: Exception) -> Outcome:
        """Try again, anew if the Event is forgotten by now; give up on what does not get better."""
        series.tries += 1
        if series.name and isinstance(error, ApiError) and error.status == 404:
            series.name = ""
            return Outcome.FAILED
        if outcome_of(error) is Outcome.FAILED and series.tries < _TRIES:
            return Outcome.FAILED
        _log.info("an event was not told", object=str(topic.about), reason=topic.reason, error=str(error))
        self._series.pop(topic, None)
        self._drop(topic.reason)
        return Outcome.IDLE

    async def _create(self, topic: _Topic, series: _Series) -> None:
        about = topic.about
        name = f"{about.name[:_NAME].rstrip('.-')}.{secrets.token_hex(8)}"
        regarding = {"kind": about.kind, "name": about.name, "apiVersion": self._api_versions.get(about.kind, "v1")}
        body = {
            "apiVersion": API,
            "kind": "Event",
            "metadata": {"name": name, "namespace": _namespace(about)},
            "eventTime": _micro(series.first),
            "reportingController": CONTROLLER_NAME,
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": topic.reason,
            "note": topic.note,
            "type": "Warning" if series.warning else "Normal",
            "regarding": regarding
            | ({"namespace": about.namespace} if about.namespace else {})
            | ({"uid": series.uid} if series.uid else {}),
        }
        await self._client.request("POST", _path(about), body=msgspec.json.encode(body))
        series.name = name

    async def _count(self, topic: _Topic, series: _Series, count: int) -> None:
        body = {"series": {"count": count, "lastObservedTime": _micro(series.last)}}
        await self._client.request(
            "PATCH", _path(topic.about, series.name), body=msgspec.json.encode(body), content_type=MERGE_PATCH
        )

    def _drop(self, reason: str) -> None:
        if self._observer is not None:
            self._observer.event_dropped(reason)


def _namespace(about: ObjectRef) -> str:
    """Return where the Event goes: the API wants those about cluster-scoped objects in `default`."""
    return about.namespace or "default"


def _path(about: ObjectRef, name: str = "") -> str:
    return resource_path(API, "events", namespace=_namespace(about), name=name)


def _micro(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(note: str) -> str:
    """Return a note of at most so many bytes."""
    encoded = note.encode()
    return note if len(encoded) <= _NOTE else encoded[: _NOTE - 3].decode(errors="ignore") + "…"
