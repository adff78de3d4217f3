"""Handles of the emitted tables. `meshgw.pipeline` says how each is derived."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from meshgw.api.meta import Key, ObjectRef
from meshgw.emit.resource import Resource
from meshgw.engine import Table
from meshgw.ir.backend import SecretUse
from meshgw.ir.keys import ResourceKey, RouteConfigKey, RouteKey
from meshgw.ir.route import HostEntry


class Fragment(msgspec.Struct, frozen=True, gc=False):
    """One match of a rule as `routes` fields of a VirtualHost in wire form; `order` sorts them, smallest first.

    It is (match precedence, creation time, namespace, name, kind, position of the rule, position of the match).
    `inherits` says whether retries of the virtual host hold for one of the routes.
    """

    order: tuple[object, ...]
    body: bytes
    inherits: bool


class Placed(msgspec.Struct, frozen=True, gc=False):
    """A claim on a host with what it adds to it."""

    claim: HostEntry
    fragments: tuple[Fragment, ...] = ()


class VirtualHost(msgspec.Struct, frozen=True, gc=False):
    """One VirtualHost as a field of RouteConfiguration in wire form, ready to be joined, with a digest of it."""

    body: bytes
    digest: bytes


class Shard(msgspec.Struct, frozen=True, gc=False):
    """Some VirtualHosts of one RouteConfiguration, joined, with a digest of them."""

    body: bytes
    digest: bytes


class Inbound(msgspec.Struct, frozen=True, gc=False):
    """Parts of the listener inside of tunnels in wire form: `ranges` of its IPMatcher and its own filter `chains`."""

    ranges: bytes
    chains: bytes
    digest: bytes


class ProxyObject(msgspec.Struct, frozen=True, gc=False):
    """One Kubernetes object of a Gateway's deployment: `body` is its JSON for server-side apply, in canonical order.

    Equal bodies mean equal objects. It has the owner reference to its Gateway, and its labels.
    """

    gateway: Key
    api_version: str
    body: bytes


FRAGMENTS: Table[tuple[RouteConfigKey, RouteKey], tuple[Fragment, ...]] = Table("fragments")
"""The routes that one route object adds to one RouteConfiguration, sorted."""
PLACED: Table[tuple[RouteConfigKey, str, RouteKey], Placed] = Table("placed")
"""Host claims with their fragments."""
VIRTUAL_HOSTS: Table[tuple[RouteConfigKey, str], VirtualHost] = Table("virtual-hosts")
SHARDS: Table[tuple[RouteConfigKey, int], Shard] = Table("shards")
"""Virtual hosts by a number that their domain gives, so that a change joins a part anew and copies the others."""
ROUTE_CONFIGS: Table[ResourceKey, Resource] = Table("route-configs")
LISTENER_RESOURCES: Table[ResourceKey, Resource] = Table("listener-resources")
CLUSTER_RESOURCES: Table[ResourceKey, Resource] = Table("cluster-resources")
ENDPOINT_RESOURCES: Table[ResourceKey, Resource] = Table("endpoint-resources")
SECRET_USES: Table[tuple[Key, str, tuple[Hashable, ...]], SecretUse] = Table("secret-uses")
"""By (Gateway, secret, what names it)."""
SECRET_RESOURCES: Table[ResourceKey, Resource] = Table("secret-resources")
ORIGINATE_RESOURCES: Table[ResourceKey, Resource] = Table("originate-resources")
"""Of every Gateway that opens HBONE connections: the internal listener that does, and its cluster."""
GUARDS: Table[RouteConfigKey, bytes] = Table("guards")
"""Who may use the routes of a RouteConfiguration: fields of it in wire form."""
TUNNEL_GUARDS: Table[Key, bytes] = Table("tunnel-guards")
"""Who may call workloads behind a waypoint: fields of the RouteConfiguration of its tunnels in wire form."""
CONFIG_FILTERS: Table[RouteConfigKey, bytes] = Table("config-filters")
"""What features do for every route of a RouteConfiguration: fields of it in wire form."""
INBOUND: Table[tuple[Key, str, Key], Inbound] = Table("inbound", indexes={"gateway": lambda key, _row: (key[0],)})
"""By (waypoint, Service or Pod, key): what is served inside of tunnels to it."""
CONNECT_HOSTS: Table[tuple[Key, str, Key], VirtualHost] = Table(
    "connect-hosts", indexes={"gateway": lambda key, _row: (key[0],)}
)
"""By (waypoint, Service or Pod, key): which tunnels to it are opened, and for whom."""
WAYPOINT_RESOURCES: Table[ResourceKey, Resource] = Table("waypoint-resources")
"""Of every waypoint: the listeners that end HBONE connections and serve what is inside, and their cluster."""
RESOURCES: Table[ResourceKey, Resource] = Table("resources", indexes={"gateway": lambda key, _row: (key.gateway,)})
"""Everything a Gateway's proxies are given."""
PROXY_OBJECTS: Table[ObjectRef, ProxyObject] = Table(
    "proxy-objects", indexes={"gateway": lambda _key, row: (row.gateway,)}
)
"""The Kubernetes objects that run the proxies of each Gateway, in a cluster.

A Gateway's objects that are not here are to be removed, unless its row of PROXY_PLANS is HELD or missing.
"""
