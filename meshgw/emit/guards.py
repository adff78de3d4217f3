"""Who may use which routes: authorization as part of RouteConfigurations, in wire form.

Each guard is a row of its own, so that one that cannot be built denies and costs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshgw.api.meta import Key
from meshgw.emit.rbac import Place, guards, shut
from meshgw.engine import View
from meshgw.ir.gateway import Gateway, Role
from meshgw.ir.keys import ListenerKey, RouteConfigKey
from meshgw.protos import AnyMessage, RouteConfiguration, encode
from meshgw.resolve.authorization import WORKLOADS_OF
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import AUTHORIZATIONS, LISTENERS

Member = tuple[RouteConfigKey, ListenerKey]


def place(view: View, *, http: bool, port: int, identified: bool = True) -> Place:
    """Where policies of this mesh are enforced."""
    return Place(http, port, read_settings(view).trust_domains, identified)


def group_guards(key: Member, _row: bool) -> Iterable[RouteConfigKey]:  # noqa: FBT001 - what the table holds
    """The RouteConfiguration of a listener, or of a service port behind a waypoint."""
    return (key[0],)


def emit_guards(
    view: View, config: RouteConfigKey, members: Mapping[Member, bool]
) -> Iterable[tuple[RouteConfigKey, bytes]]:
    """Build the guard of a RouteConfiguration; a listener of a Gateway without policies needs none."""
    listener = next(iter(members))[1]
    if listener.owner_kind == "Service":
        authorization = view.get(AUTHORIZATIONS, (config.gateway, listener.owner))
        yield config, _fields(guards(authorization, place(view, http=True, port=int(listener.name))))
        return
    authorization = view.get(AUTHORIZATIONS, (config.gateway, WORKLOADS_OF))
    row = view.get(LISTENERS, listener)
    if row is None or authorization is None:
        yield config, _fields(shut())
    elif authorization.policies:
        yield config, _fields(guards(authorization, place(view, http=True, port=row.port, identified=False)))


def deny_guards(
    config: RouteConfigKey, _members: Mapping[Member, bool], _error: Exception
) -> Iterable[tuple[RouteConfigKey, bytes]]:
    """Deny everything when building the guard failed by a bug of ours."""
    yield config, _fields(shut())


def emit_tunnel_guard(view: View, gateway: Key, row: Gateway) -> Iterable[tuple[Key, bytes]]:
    """Build the guard of a waypoint's tunnels, which is that of traffic to workloads."""
    if row.role is Role.WAYPOINT:
        authorization = view.get(AUTHORIZATIONS, (gateway, WORKLOADS_OF))
        yield gateway, _fields(guards(authorization, place(view, http=False, port=0)))


def deny_tunnels(gateway: Key, _row: Gateway, _error: Exception) -> Iterable[tuple[Key, bytes]]:
    """Deny all traffic to workloads when building the guard failed by a bug of ours."""
    yield gateway, _fields(shut())


def _fields(configs: Mapping[str, AnyMessage]) -> bytes:
    built = RouteConfiguration()
    for name, config in configs.items():
        built.typed_per_filter_config[name].CopyFrom(config)
    return encode(built)
