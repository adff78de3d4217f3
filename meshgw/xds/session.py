"""The state machine of one ADS stream, without I/O: events in, commands out.

Order on the wire: clusters, endpoints, secrets, listeners, routes, then removals of the first three. What is pending
is always the difference between the cache and what was sent, so changes made while a proxy is slow merge into one
push, and a session holds no queue. Nothing ever waits for a CDS ACK.

`StreamSession` is common to both protocols, `DeltaSession` is incremental xDS; `sotw.py` has the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import count
from typing import Any, ClassVar, Final

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.json_format import MessageToDict

from meshgw.emit.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTE_CONFIGURATION, SECRET
from meshgw.xds.cache import LINGERING, Cache, Changes, Group
from meshgw.xds.events import (
    Acked,
    Changed,
    Close,
    Command,
    Event,
    Nacked,
    Received,
    Send,
    Settled,
)
from meshgw.xds.proxy import Authorize, Limits, Peer, ProxyState, Refused
from meshgw.xds.subscription import Push, Response, Subscription
from meshgw.xds.wire import Entry, delta_response

ORDER: Final = (CLUSTER, ENDPOINTS, SECRET, LISTENER, ROUTE_CONFIGURATION)
WILDCARD_TYPES: Final = frozenset({CLUSTER, LISTENER})
_FREE: Final = frozenset({ENDPOINTS, SECRET})  # never held up: a held CDS ACK may be waiting for them
_FRACTION: Final = 64
RESUME_GRACE: Final = 1.0
"""Seconds a resumed stream has to ask for its routes; until it has, it may still be using old ones."""


class StreamSession(ABC):
    """What delta and state-of-the-world streams share."""

    protocol: ClassVar[str]
    whole_types: ClassVar[frozenset[str]] = frozenset()  # types whose responses always carry the whole set

    def __init__(
        self, cache: Cache, *, proxy: int, peer: Peer, authorize: Authorize, now: float, limits: Limits | None = None
    ) -> None:
        self.proxy = proxy
        self.closed = False
        self.node_id = ""
        self._metadata: Mapping[str, object] = {}
        self._cache = cache
        self.peer = peer
        self._authorize = authorize
        self._limits = limits or Limits()
        self._connected_at = now
        self._group: Group | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._nonces = count(1)
        self._resumed = False  # the proxy holds configuration from an earlier stream
        self._ready_since: float | None = None
        self._settled = 0
        self._taken = 0  # bytes of requests since what the session holds of them was last summed up

    @property
    def group(self) -> str | None:
        """The group whose configuration the proxy gets; None until its first request is admitted."""
        return None if self._group is None else self._group.name

    def handle(self, event: Event) -> list[Command]:
        """What to do about an event. `Writable` yields at most one `Send`; no other event yields any."""
        if self.closed:
            return []
        if isinstance(event, Received):
            commands = self._receive(event.request, event.now)
        elif isinstance(event, Changed):
            commands = self._change(event.changes)
        else:
            commands = self._next(event.now)
        if self._group is not None and not self.closed:
            commands += self._settle(self._group, event.now)
        return commands

    def is_answered(self) -> bool:
        """Whether the proxy has answered every response: a good moment to end the stream."""
        return not any(subscription.unanswered for subscription in self._subscriptions.values())

    def state(self) -> ProxyState:
        """The stream as of now, for people and status pages."""
        return ProxyState(
            proxy=self.proxy,
            node_id=self.node_id,
            group=self.group or "",
            address=self.peer.address,
            protocol=self.protocol,
            connected_at=self._connected_at,
            connected=not self.closed,
            types={type_url: subscription.state() for type_url, subscription in self._subscriptions.items()},
        )

    # Requests

    def _receive(self, request: Any, now: float) -> list[Command]:
        refusal = self._admit(request) or self._check_size(request)
        if refusal is None and request.type_url not in self._subscriptions:
            known = len(request.type_url) <= self._limits.metadata_bytes // _FRACTION
            if not request.type_url or not known or len(self._subscriptions) >= self._limits.types:
                refusal = Close("INVALID_ARGUMENT", "no or too long a type URL, or too many types on one stream")
            else:
                self._subscriptions[request.type_url] = Subscription(request.type_url)
        if refusal is not None:
            return self._close(refusal)
        subscription = self._subscriptions[request.type_url]
        commands = self._answer(subscription, request, now)
        self._subscribe(subscription, request)
        subscription.requested = True
        if sum(len(found.names) for found in self._subscriptions.values()) > self._limits.names:
            return [*commands, *self._close(Close("RESOURCE_EXHAUSTED", "too many names subscribed"))]
        return commands

    def _admit(self, request: Any) -> Close | None:
        """Decide the group on the first request, and on every later one that nothing about it has changed."""
        if request.HasField("node"):
            node_id = request.node.id
            if self._group is not None and node_id and node_id != self.node_id:
                return Close("PERMISSION_DENIED", "the node id of a stream cannot change")
            if self._group is None and (refusal := self._note_node(request.node)):
                return refusal
        if not self.node_id:
            return Close("INVALID_ARGUMENT", "the first request names no node id")
        verdict = self._authorize(self.peer, self.node_id, self._metadata)
        if isinstance(verdict, Refused):
            return Close(verdict.code, verdict.reason)
        if self._group is None:
            self._group = self._cache.attach(verdict, self.proxy, self.node_id)
        elif verdict != self._group.name:
            return Close("PERMISSION_DENIED", "the proxy belongs to another group now")
        return None

    def _note_node(self, node: Any) -> Close | None:
        limit = self._limits.metadata_bytes
        if node.metadata.ByteSize() > limit or len(node.id) > limit // _FRACTION:
            return Close("INVALID_ARGUMENT", "the node id or metadata is too long")
        try:
            self.node_id, self._metadata = node.id, MessageToDict(node.metadata)
        except ValueError:  # protobuf has numbers that JSON does not have
            return Close("INVALID_ARGUMENT", "the node metadata is not JSON")
        return None

    def _check_size(self, request: Any) -> Close | None:
        if self._count_names(request) > self._limits.names:
            return Close("RESOURCE_EXHAUSTED", "too many names in one request")
        # Summing up takes long, so it is done once so much has come that it may matter.
        self._taken += request.ByteSize()
        if self._taken > self._limits.held_bytes:
            self._taken = request.ByteSize() + sum(found.size() for found in self._subscriptions.values())
            if self._taken > self._limits.held_bytes // 2:
                return Close("RESOURCE_EXHAUSTED", "too much to remember of one stream")
        return None

    def _answer(self, subscription: Subscription, request: Any, now: float) -> list[Command]:
        """Take the ACK or NACK in a request, if it holds one that is not stale."""
        response = subscription.take(request.response_nonce)
        if response is None:
            return []
        if not request.HasField("error_detail"):
            subscription.accept(response, now)
            return [Acked(subscription.type_url, response.version, now - response.sent_at)]
        text = request.error_detail.message
        subscription.refuse(response, text, separable=subscription.type_url not in self.whole_types)
        return [Nacked(subscription.type_url, response.version, text, response.covered)]

    def _close(self, close: Close) -> list[Command]:
        self.closed = True
        return [close]

    # Changes and pushes

    def _change(self, changes: Changes) -> list[Command]:
        for type_url, names in changes.names.items():
            if type_url in self._subscriptions:
                self._subscriptions[type_url].mark(names)
        secrets = self._subscriptions.get(SECRET)
        if secrets is not None and self._is_live():
            # A new cluster may need a new secret; sent along, it is there when the routes arrive.
            secrets.asked |= changes.added.get(SECRET, frozenset()) - secrets.names
        return []

    def _next(self, now: float) -> list[Command]:
        group = self._group
        if group is None or not group.ready:
            return []
        if self._ready_since is None:
            self._ready_since = now
        blocked = False
        for subscription in self._in_order():
            type_url = subscription.type_url
            if blocked and type_url not in _FREE:
                continue
            push = self._due(subscription, group)
            is_open = subscription.is_open(now)
            if push is not None and is_open:
                subscription.clear_due()
                return [self._push(subscription, push, group, now)]
            blocked = blocked or push is not None
            retry = subscription.take_retry(group.entries(type_url)) if is_open else None
            if retry is not None:
                return [self._push(subscription, retry, group, now)]
        settled = self._settle(group, now)  # which may let removals go
        return settled if blocked else [*settled, *self._remove(group, now)]

    def _in_order(self) -> list[Subscription]:
        known = [self._subscriptions[type_url] for type_url in ORDER if type_url in self._subscriptions]
        return known + [found for type_url, found in self._subscriptions.items() if type_url not in ORDER]

    def _push(self, subscription: Subscription, push: Push, group: Group, now: float) -> Send:
        if subscription.type_url == CLUSTER:
            self._warm(subscription, push, group)
        response = Response(
            nonce=str(next(self._nonces)),
            version=group.version(subscription.type_url),
            sent_at=now,
            commit=group.commit if push.complete else 0,
            pushed={name: entry.version for name, entry in push.entries.items()},
            removed=push.removed,
        )
        subscription.record(response)
        body = self._encode(subscription.type_url, response, push)
        return Send(subscription.type_url, response.nonce, body, len(push.entries))

    def _warm(self, clusters: Subscription, push: Push, group: Group) -> None:
        """Send the endpoints of new and changed clusters right behind them.

        Envoy warms a changed cluster on endpoints it need not ask for again, and routes must not arrive at a cluster
        that is still waiting. On a cold start nothing is routed yet and the proxy's own request is answered instead,
        so that the set is not sent twice.
        """
        endpoints = self._subscriptions.get(ENDPOINTS)
        if endpoints is None:
            if not self._is_live():
                return
            endpoints = self._subscriptions[ENDPOINTS] = Subscription(ENDPOINTS)
        existing = group.entries(ENDPOINTS)
        for name, entry in push.entries.items():
            target = entry.endpoints
            if target is None or target not in existing:
                continue
            is_news = clusters.sent.get(name) != entry.version or not push.complete
            if is_news and (self._is_live() or target in endpoints.names):
                endpoints.asked.add(target)

    def _is_live(self) -> bool:
        """Whether the proxy may be routing already."""
        return self._resumed or LISTENER in self._subscriptions

    def _remove(self, group: Group, now: float) -> list[Command]:
        """Removals come after everything else; what an earlier stream left must not go before its routes do."""
        ready_since = now if self._ready_since is None else self._ready_since
        released = self._settled > 0 or now >= ready_since + self._cache.linger
        for subscription in self._in_order():
            entries = group.entries(subscription.type_url)
            subscription.leaving = {
                name for name in subscription.leaving if name in subscription.sent and name not in entries
            }
            gone = {name for name in subscription.leaving if released or name not in subscription.claimed}
            if gone and subscription.is_open(now):
                subscription.leaving -= gone
                push = Push({}, tuple(sorted(gone)), complete=False)
                return [self._push(subscription, push, group, now)]
        return []

    # Settling: which commit the proxy has fully moved to

    def _settle(self, group: Group, now: float) -> list[Command]:
        if not group.ready or self._awaits_resumption(now):
            return []
        settled = min(self._through(LISTENER, group), self._through(ROUTE_CONFIGURATION, group))
        if settled <= self._settled:
            return []
        self._settled = settled
        return [Settled(settled)]

    def _awaits_resumption(self, now: float) -> bool:
        if not self._resumed or ROUTE_CONFIGURATION in self._subscriptions:
            return False
        return self._ready_since is None or now < self._ready_since + RESUME_GRACE

    def _through(self, type_url: str, group: Group) -> int:
        subscription = self._subscriptions.get(type_url)
        if subscription is None or subscription.is_idle():
            return group.commit
        return subscription.acked_commit

    # The protocols

    @abstractmethod
    def _count_names(self, request: Any) -> int: ...

    @abstractmethod
    def _subscribe(self, subscription: Subscription, request: Any) -> None: ...

    @abstractmethod
    def _due(self, subscription: Subscription, group: Group) -> Push | None: ...

    @abstractmethod
    def _encode(self, type_url: str, response: Response, push: Push) -> bytes: ...


class DeltaSession(StreamSession):
    """One incremental ADS stream."""

    protocol = "delta"

    def _count_names(self, request: discovery_pb2.DeltaDiscoveryRequest) -> int:
        return (
            len(request.resource_names_subscribe)
            + len(request.resource_names_unsubscribe)
            + len(request.initial_resource_versions)
        )

    def _subscribe(self, subscription: Subscription, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        names = {name for name in request.resource_names_subscribe if name}
        may_wildcard = subscription.type_url in WILDCARD_TYPES
        wildcard = may_wildcard and ("*" in names or (not subscription.requested and not names))
        if may_wildcard:
            names.discard("*")
        owed = frozenset(subscription.asked)
        subscription.ask(names)
        if wildcard and not subscription.wildcard:
            subscription.wildcard = True
            subscription.answer_due = True
            subscription.dirty.update(self._group.entries(subscription.type_url) if self._group is not None else ())
        if not subscription.requested and request.initial_resource_versions:
            self._resume(subscription, dict(request.initial_resource_versions))
            subscription.asked |= owed
        for name in request.resource_names_unsubscribe:
            if name == "*" and may_wildcard:
                subscription.unsubscribe_wildcard()
            else:
                subscription.unsubscribe(name)

    def _resume(self, subscription: Subscription, versions: Mapping[str, str]) -> None:
        """Take over what the proxy holds from an earlier stream: only what differs is due."""
        held = {name: version for name, version in versions.items() if subscription.wants(name)}
        subscription.sent.update(held)
        subscription.claimed.update(held)
        subscription.dirty.update(held)
        subscription.asked -= held.keys()
        subscription.answer_due = False
        self._resumed = self._resumed or subscription.type_url in WILDCARD_TYPES

    def _due(self, subscription: Subscription, group: Group) -> Push | None:
        """Changed and requested resources, and the names that turned out not to exist."""
        entries = group.entries(subscription.type_url)
        push: dict[str, Entry] = {}
        removed: list[str] = []
        keep: set[str] = set()
        for name in sorted(subscription.asked | subscription.dirty):
            entry = entries.get(name)
            asked = name in subscription.asked
            if entry is not None:
                if asked or entry.version != subscription.sent.get(name):
                    push[name] = entry
            elif name in subscription.sent and subscription.type_url in LINGERING:
                keep.add(name)
            elif asked or name in subscription.sent:
                removed.append(name)
        subscription.leaving |= keep
        if push or removed or subscription.answer_due:
            return Push(push, tuple(removed))
        subscription.clear_due()
        return None

    def _encode(self, type_url: str, response: Response, push: Push) -> bytes:
        return delta_response(
            type_url=type_url,
            version=response.version,
            nonce=response.nonce,
            entries=push.entries.values(),
            removed=push.removed,
        )
