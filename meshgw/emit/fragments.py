"""RouteConfigurations joined from bytes: a change costs its own route, and one copy of what did not change."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from heapq import merge
from typing import Final

from meshgw.emit.action import answer, safe_retries
from meshgw.emit.resource import ROUTE_CONFIGURATION, Resource, content_version
from meshgw.emit.route import Claim
from meshgw.emit.tables import CONFIG_FILTERS, FRAGMENTS, GUARDS, Fragment, Placed, Shard, VirtualHost
from meshgw.engine import View
from meshgw.ir.keys import BackendTarget, ResourceKey, RouteConfigKey
from meshgw.ir.route import HostEntry, HostKind
from meshgw.protos import BoolValue, Duration, Route, RouteAction, RouteConfiguration, RouteMatch, encode, field
from meshgw.protos import VirtualHost as VirtualHostMessage
from meshgw.resolve import checks
from meshgw.resolve.hostnames import SERVICE_ROUTES

_ROUTES: Final = 3  # field number of `routes` in VirtualHost
_VIRTUAL_HOSTS: Final = 2  # field number of `virtual_hosts` in RouteConfiguration
_RETRIES: Final = encode(VirtualHostMessage(retry_policy=safe_retries()))
_SETTINGS: Final = encode(
    RouteConfiguration(
        validate_clusters=BoolValue(value=False),
        ignore_port_in_host_matching=True,
    )
)

SHARD_COUNT: Final = 64
"""About the square root of the thousands of hosts that a RouteConfiguration may hold: both joins stay short."""

Host = tuple[RouteConfigKey, str]
ShardKey = tuple[RouteConfigKey, int]


def place_fragments(view: View, key: Claim, row: HostEntry) -> Iterable[tuple[Claim, Placed]]:
    """Put the fragments of a route on a host that it claims."""
    fragments: tuple[Fragment, ...] = ()
    if row.kind is HostKind.ROUTE:
        fragments = view.get(FRAGMENTS, (key[0], key[2])) or ()
    yield key, Placed(row, fragments)


def group_hosts(key: Claim, _row: Placed) -> Iterable[Host]:
    """The virtual host of a claim; what cannot be a domain claims nothing."""
    domain = key[1].lower()
    return ((key[0], domain),) if checks.domain(domain) else ()


def build_virtual_host(_view: View, host: Host, members: Mapping[Claim, Placed]) -> Iterable[tuple[Host, VirtualHost]]:
    """Join the routes of all claims on a host. A host of another listener answers 421 whoever else claims it."""
    placed = members.values()
    kinds = {item.claim.kind for item in placed}
    if HostKind.MISDIRECTED in kinds:
        routes, inherits = _misdirected(), False
    else:
        fragments = list(merge(*(item.fragments for item in placed), key=_order))
        routes, inherits = b"".join([fragment.body for fragment in fragments]), _inherit(fragments)
        for item in placed:
            if item.claim.kind is HostKind.DEFAULT and item.claim.target is not None:
                routes, inherits = routes + _straight(item.claim.target), True
        if host[0].name.startswith(SERVICE_ROUTES):
            routes += _absent()
    head = encode(VirtualHostMessage(name=host[1], domains=[host[1]]))
    body = field(_VIRTUAL_HOSTS, b"".join((head, routes, _RETRIES if inherits else b"")))
    yield host, VirtualHost(body, hashlib.blake2b(body, digest_size=16).digest())


def group_shards(host: Host, _row: VirtualHost) -> Iterable[ShardKey]:
    """The shard of a virtual host."""
    return ((host[0], zlib.crc32(host[1].encode()) % SHARD_COUNT),)


def join_shard(_view: View, shard: ShardKey, members: Mapping[Host, VirtualHost]) -> Iterable[tuple[ShardKey, Shard]]:
    """Join virtual hosts in order of their domains; the digest comes from theirs, so joined bytes are never hashed."""
    hosts = members.values()
    body = b"".join([host.body for host in hosts])
    yield shard, Shard(body, hashlib.blake2b(b"".join([host.digest for host in hosts]), digest_size=16).digest())


def group_route_config(shard: ShardKey, _row: Shard) -> Iterable[RouteConfigKey]:
    """The RouteConfiguration of a shard."""
    return (shard[0],)


def build_route_config(
    view: View, config: RouteConfigKey, members: Mapping[ShardKey, Shard]
) -> Iterable[tuple[ResourceKey, Resource]]:
    """Line up shards; Envoy does not care for the order of virtual hosts."""
    shards = members.values()
    head = encode(RouteConfiguration(name=config.name))
    tail = _SETTINGS + _common(view, config)
    parts = (head, *[shard.body for shard in shards], tail)
    version = content_version(head, b"".join([shard.digest for shard in shards]), tail)
    key = ResourceKey(config.gateway, ROUTE_CONFIGURATION, config.name)
    yield key, Resource.of(ROUTE_CONFIGURATION, config.name, *parts, version=version)


def _inherit(fragments: Iterable[Fragment]) -> bool:
    """Whether one has no retries of its own: Envoy takes time and memory for those of a virtual host, used or not."""
    return any(fragment.inherits for fragment in fragments)


def _order(fragment: Fragment) -> tuple[object, ...]:
    return fragment.order


@cache
def _misdirected() -> bytes:
    return field(_ROUTES, encode(Route(match=RouteMatch(prefix="/"), direct_response=answer(421))))


def _common(view: View, config: RouteConfigKey) -> bytes:
    """What holds for all routes: who may use them, where there is a say in that, and what features ask for.

    Two tables, so that a feature that fails holds no authorization up.
    """
    parts = (view.get(GUARDS, config), view.get(CONFIG_FILTERS, config))
    return b"".join(part for part in parts if part is not None)


@cache
def _absent() -> bytes:
    """What no route takes has a route too, so that authorization, which is the routes' to configure, comes first."""
    return field(_ROUTES, encode(Route(match=RouteMatch(prefix="/"), direct_response=answer(404))))


def _straight(target: BackendTarget) -> bytes:
    action = RouteAction(cluster=target.cluster, timeout=Duration())
    return field(_ROUTES, encode(Route(match=RouteMatch(prefix="/"), route=action)))
