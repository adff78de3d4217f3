"""Handles of the emitted tables. `meshgw.pipeline` says how each is derived."""

from __future__ import annotations

import msgspec

from meshgw.emit.resource import Resource
from meshgw.engine import Table
from meshgw.ir.keys import ResourceKey, RouteConfigKey, RouteKey


class Fragment(msgspec.Struct, frozen=True, gc=False):
    """One Envoy route in wire form; `order` sorts the routes of a virtual host, smallest first.

    It is (match precedence, creation time, namespace, name, position in the route).
    """

    order: tuple[object, ...]
    body: bytes


class VirtualHost(msgspec.Struct, frozen=True, gc=False):
    """One VirtualHost as a length-delimited field of RouteConfiguration, ready to be joined."""

    body: bytes


FRAGMENTS: Table[tuple[RouteConfigKey, RouteKey], tuple[Fragment, ...]] = Table("fragments")
"""The routes that one route object adds to one RouteConfiguration."""
PLACED: Table[tuple[RouteConfigKey, str, RouteKey], object] = Table("placed")
"""Host claims with their fragments."""
VIRTUAL_HOSTS: Table[tuple[RouteConfigKey, str], VirtualHost] = Table("virtual-hosts")
ROUTE_CONFIGS: Table[ResourceKey, Resource] = Table("route-configs")
LISTENER_RESOURCES: Table[ResourceKey, Resource] = Table("listener-resources")
CLUSTER_RESOURCES: Table[ResourceKey, Resource] = Table("cluster-resources")
ENDPOINT_RESOURCES: Table[ResourceKey, Resource] = Table("endpoint-resources")
SECRET_RESOURCES: Table[ResourceKey, Resource] = Table("secret-resources")
RESOURCES: Table[ResourceKey, Resource] = Table("resources", indexes={"gateway": lambda key, _row: (key.gateway,)})
"""Everything a Gateway's proxies are given."""
