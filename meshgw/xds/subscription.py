"""One type on one stream: what the proxy wants, what it was sent, and what it said of it."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from meshgw.emit.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTE_CONFIGURATION, SECRET
from meshgw.xds.proxy import TypeState
from meshgw.xds.wire import Entry

WINDOW: Final = {CLUSTER: 32, ENDPOINTS: 8, SECRET: 8, LISTENER: 1, ROUTE_CONFIGURATION: 1}
"""Unanswered responses allowed per type.

Envoy holds CDS ACKs back while a cluster warms (15 s when its endpoints are missing), so clusters must not wait for
them. Routes and listeners are answered at once and are dear to apply: with one on the way, the changes made meanwhile
merge into the next, and no proxy compiles a table that is already outdated.
"""
ACK_PATIENCE: Final = 5.0
"""Seconds after which an unanswered response no longer holds back the next of its type."""
MAX_UNANSWERED: Final = 64
"""Unanswered responses remembered per type; a proxy that never answers costs no more memory than this."""
MAX_NACK_TEXT: Final = 8192


class Response(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A response on its way: what it pushed (name to version) and removed, and which commit it completes."""

    nonce: str
    version: str
    sent_at: float
    commit: int  # 0: it does not carry all that was due
    pushed: Mapping[str, str]
    removed: tuple[str, ...] = ()

    @property
    def covered(self) -> tuple[str, ...]:
        """Every name the response said something about."""
        return (*self.pushed, *self.removed)


class Push(msgspec.Struct, frozen=True):
    """What the next response of a type should carry; `complete` when nothing else is due before it."""

    entries: Mapping[str, Entry]
    removed: tuple[str, ...] = ()
    complete: bool = True


class Subscription:
    """The state of one type on one stream; bounded by the names subscribed and the resources that exist."""

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.requested = False  # the proxy itself has asked on this stream
        self.wildcard = False
        self.names: set[str] = set()
        self.sent: dict[str, str] = {}  # the version of each resource the proxy was sent, or said it holds
        self.claimed: set[str] = set()  # those it said it holds, from an earlier stream
        self.claimed_version = ""  # state of the world: the version of the set it said it holds
        self.dirty: set[str] = set()  # names whose resource may differ from what was sent
        self.asked: set[str] = set()  # names to answer whatever was sent before
        self.answer_due = False  # a response is due even if it is empty
        self.leaving: set[str] = set()  # names gone from the cache, to be removed when nothing else is due
        self.retries: deque[dict[str, str]] = deque()
        self.unanswered: dict[str, Response] = {}
        self.refused: dict[str, str] = {}  # resource to the text it was refused with, until accepted
        self.last_nonce = ""
        self.version_sent = ""
        self.version_acked = ""
        self.acked_commit = 0
        self.ack_seconds: float | None = None

    def wants(self, name: str) -> bool:
        """Whether the proxy follows this name."""
        return self.wildcard or name in self.names

    def ask(self, names: Iterable[str]) -> None:
        """Subscribe to names and owe an answer for each."""
        fresh = set(names)
        self.names |= fresh
        self.asked |= fresh

    def unsubscribe(self, name: str) -> None:
        """Stop following a name; under a wildcard the proxy is told whether the wildcard still covers it."""
        if name not in self.names:
            return
        self.names.discard(name)
        if self.wildcard:
            self.asked.add(name)
        else:
            self._lose(name)
            self.asked.discard(name)
            self.dirty.discard(name)

    def unsubscribe_wildcard(self) -> None:
        """Follow only the names asked for one by one."""
        self.wildcard = False
        for name in self.sent.keys() - self.names:
            self._lose(name)
        self.dirty &= self.names

    def mark(self, names: Collection[str]) -> None:
        """Look at these names before the next push."""
        self.dirty.update(names if self.wildcard else self.names.intersection(names))

    def size(self) -> int:
        """The characters of what the proxy itself named and said it holds."""
        held = sum(len(name) + len(self.sent.get(name, "")) for name in self.claimed)
        return held + sum(map(len, self.names))

    def is_open(self, now: float) -> bool:
        """Whether another response may be sent before the ones on their way are answered."""
        fresh = sum(now - response.sent_at < ACK_PATIENCE for response in self.unanswered.values())
        return fresh < WINDOW.get(self.type_url, 1)

    def is_idle(self) -> bool:
        """Whether the proxy has accepted all there is to send."""
        return not (self.dirty or self.asked or self.answer_due or self.retries or self.unanswered or self.refused)

    def take_retry(self, entries: Mapping[str, Entry]) -> Push | None:
        """The next part of a refused response to try apart, without what has changed or become unwanted since."""
        while self.retries:
            part = self.retries.popleft()
            found = {
                name: entries[name]
                for name, version in part.items()
                if self.wants(name) and name in entries and entries[name].version == version == self.sent.get(name)
            }
            if found:
                return Push(found, complete=False)
        return None

    def record(self, response: Response) -> None:
        """Note a response as sent."""
        self.last_nonce = response.nonce
        self.version_sent = response.version
        for name, version in response.pushed.items():
            if self.wants(name):
                self.sent[name] = version
            self.claimed.discard(name)
        for name in response.removed:
            self._lose(name)
        if len(self.unanswered) >= MAX_UNANSWERED:
            del self.unanswered[next(iter(self.unanswered))]
        self.unanswered[response.nonce] = response

    def clear_due(self) -> None:
        """Nothing is due: it was just sent, or turned out to be nothing new."""
        self.dirty.clear()
        self.asked.clear()
        self.answer_due = False

    def take(self, nonce: str) -> Response | None:
        """The response this nonce answers; older ones are answered by it too. None for a stale nonce."""
        if nonce not in self.unanswered:
            return None
        for older in list(self.unanswered):
            response = self.unanswered.pop(older)
            if older == nonce:
                break
        return response

    def accept(self, response: Response, now: float) -> None:
        """Note an ACK."""
        self.version_acked = response.version
        self.ack_seconds = now - response.sent_at
        for name in [name for name in self.refused if name in response.pushed or name not in self.sent]:
            del self.refused[name]
        if not self.refused:
            self.acked_commit = max(self.acked_commit, response.commit)

    def refuse(self, response: Response, text: str, *, separable: bool) -> None:
        """Keep the text with what it covers, and try each half of a separable response apart.

        Envoy drops good resources along with a bad one in ways the server cannot see; halving until the bad one
        stands alone costs each resource at most a few repeats. What is refused alone is not sent again.
        """
        covered = [name for name in response.pushed if name in self.sent] if response.pushed else response.removed
        self.refused.update(dict.fromkeys(covered, text[:MAX_NACK_TEXT]))
        if separable and len(response.pushed) > 1:
            pushed = list(response.pushed.items())
            middle = len(pushed) // 2
            self.retries += (dict(pushed[:middle]), dict(pushed[middle:]))

    def state(self) -> TypeState:
        """The subscription as of now, for people and status pages."""
        return TypeState(
            wildcard=self.wildcard,
            names=len(self.names),
            resources=len(self.sent),
            version_sent=self.version_sent,
            version_acked=self.version_acked,
            unanswered=len(self.unanswered),
            nack=next(reversed(self.refused.values()), ""),
            refused=tuple(sorted(self.refused)),
            ack_seconds=self.ack_seconds,
        )

    def _lose(self, name: str) -> None:
        """Forget what was sent under a name: the proxy has it no more."""
        self.sent.pop(name, None)
        self.claimed.discard(name)
        self.refused.pop(name, None)
