"""The resources of a waypoint: where HBONE ends, what is served inside, and the ways between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshgw.api.meta import Key
from meshgw.emit.connect import connect_listener, connect_routes
from meshgw.emit.internal import direct_cluster, internal_cluster, internal_listener, tunnel_cluster
from meshgw.emit.resource import CLUSTER, LISTENER, Resource
from meshgw.engine import View
from meshgw.ir.gateway import Binding, Gateway, Role, Settings, WaypointFor
from meshgw.ir.keys import ResourceKey
from meshgw.protos import Cluster, encode
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import BINDINGS


def emit_waypoint(view: View, key: Key, gateway: Gateway) -> Iterable[tuple[ResourceKey, Resource]]:
    """Build what a waypoint has of its own; one that is not accepted, or has no mesh identity, serves nothing."""
    settings = read_settings(view)
    if gateway.role is not Role.WAYPOINT or not gateway.accepted or not settings.mesh:
        return
    for resource in _resources(view, gateway, settings):
        yield ResourceKey(key, resource.type_url, resource.name), resource


def _resources(view: View, gateway: Gateway, settings: Settings) -> Iterator[Resource]:
    outer = connect_listener(view.get(BINDINGS, gateway.key) or Binding(), settings)
    yield Resource.of(LISTENER, outer.name, encode(outer))
    yield connect_routes(view, gateway.key)
    inner = internal_listener(view, gateway.key)
    if inner is not None:
        yield inner
    for cluster in _clusters(gateway):
        yield Resource.of(CLUSTER, cluster.name, encode(cluster))


def _clusters(gateway: Gateway) -> Iterator[Cluster]:
    yield internal_cluster()
    if gateway.waypoint_for in {WaypointFor.WORKLOAD, WaypointFor.ALL}:
        yield tunnel_cluster()
        yield direct_cluster()
