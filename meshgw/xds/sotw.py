"""The state-of-the-world variant of an ADS stream.

Clusters and listeners are sent as whole sets, where absence means removal; of the other types only what changed is
sent, which the protocol allows and which spares a proxy hundreds of milliseconds at thousands of endpoints. A name
that does not exist cannot be said to be absent here: its response simply lacks it. A cluster that went while no
controller ran leaves with the first set, because its bytes are no longer known.
"""

from collections.abc import Mapping
from typing import ClassVar

from envoy.service.discovery.v3 import discovery_pb2

from meshgw.xds.cache import Group
from meshgw.xds.session import WILDCARD_TYPES, StreamSession
from meshgw.xds.subscription import Push, Response, Subscription
from meshgw.xds.wire import Entry, sotw_response


class SotwSession(StreamSession):
    """One state-of-the-world ADS stream."""

    protocol = "sotw"
    whole_types: ClassVar[frozenset[str]] = WILDCARD_TYPES

    def _count_names(self, request: discovery_pb2.DiscoveryRequest) -> int:
        return len(request.resource_names)

    def _subscribe(self, subscription: Subscription, request: discovery_pb2.DiscoveryRequest) -> None:
        """Every request names all that is wanted; one that answers an outdated response is ignored."""
        nonce = request.response_nonce
        first = not subscription.requested
        if nonce and nonce != subscription.last_nonce and not first:
            return
        names = {name for name in request.resource_names if name}
        wildcard = False
        if subscription.type_url in self.whole_types:
            wildcard = "*" in names or (not names and (first or subscription.wildcard))
            names.discard("*")
        if wildcard and not subscription.wildcard:
            subscription.wildcard = True
            subscription.answer_due = True
            if first:
                subscription.claimed_version = request.version_info
        elif subscription.wildcard and not wildcard:
            subscription.unsubscribe_wildcard()
        self._resumed = self._resumed or (wildcard and first and bool(request.version_info))
        repeated = not first and not nonce  # a proxy that asks without answering wants all of it again
        subscription.answer_due = subscription.answer_due or (repeated and wildcard)
        for name in subscription.names - names:
            subscription.unsubscribe(name)
        subscription.ask(names if repeated else names - subscription.names)

    def _due(self, subscription: Subscription, group: Group) -> Push | None:
        entries = group.entries(subscription.type_url)
        if subscription.claimed_version:
            self._resume(subscription, entries, group)
        changed = {
            name
            for name in subscription.dirty | subscription.asked
            if (entry := entries.get(name)) is None or entry.version != subscription.sent.get(name)
        }
        gone = {name for name in changed if name not in entries}
        due = subscription.answer_due or bool(subscription.asked) or not changed <= gone
        if subscription.type_url in self.whole_types:
            if due or not gone.isdisjoint(subscription.sent):
                wanted = {name: entries[name] for name in sorted(entries) if subscription.wants(name)}
                return Push(wanted, tuple(sorted(gone & subscription.sent.keys())))
        elif due:
            news = sorted((changed - gone) | (subscription.asked & entries.keys()))
            return Push({name: entries[name] for name in news})
        subscription.clear_due()
        return None

    def _resume(self, subscription: Subscription, entries: Mapping[str, Entry], group: Group) -> None:
        """Send nothing for a set the proxy holds already."""
        if subscription.claimed_version == group.version(subscription.type_url):
            subscription.sent = {name: entry.version for name, entry in entries.items()}
            subscription.answer_due = False
        subscription.claimed_version = ""

    def _encode(self, type_url: str, response: Response, push: Push) -> bytes:
        return sotw_response(
            type_url=type_url, version=response.version, nonce=response.nonce, entries=push.entries.values()
        )
