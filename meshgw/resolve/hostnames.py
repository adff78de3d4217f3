"""Host names: what a listener and a route have in common, which listener owns a host, and who claims which domain.

A host name is lower case; "" matches every host and `*.x` every host below x, at any depth, but not x itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from meshgw.api.meta import Key
from meshgw.engine import View
from meshgw.ir.gateway import Binding, Listener, Protocol
from meshgw.ir.keys import BackendTarget, ListenerKey, RouteConfigKey, RouteKey
from meshgw.ir.mesh import AppProtocol, WaypointService
from meshgw.ir.route import Attachment, HostEntry, HostKind
from meshgw.resolve.tables import ATTACHMENTS, BINDINGS, LISTENERS

Claim = tuple[tuple[RouteConfigKey, str, RouteKey], HostEntry]

SERVICE_ROUTES = "service/"
"""How the names of RouteConfigurations of service ports begin."""
HTTP_PROTOCOLS = frozenset({Protocol.HTTP, Protocol.HTTPS})


def covers(pattern: str, host: str) -> bool:
    """Whether `pattern` matches every host that `host` (itself perhaps a wildcard) matches."""
    if pattern in {"", host}:
        return True
    return pattern.startswith("*.") and host.endswith(pattern[1:])


def intersect(one: str, other: str) -> str | None:
    """Return the hosts that both match, which is always one of the two; None when there are none."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def intersection(listener: str, hostnames: Iterable[str]) -> tuple[str, ...]:
    """Return what remains of a route's host names on a listener, sorted; a route without any gets the listener's."""
    wanted = {host.lower() for host in hostnames}
    if not wanted:
        return (listener,)
    return tuple(sorted({common for host in wanted if (common := intersect(listener, host)) is not None}))


def covering(host: str) -> Iterator[str]:
    """Yield every host name that covers `host`, the most specific first: a.b.c, *.b.c, *.c, ""."""
    yield host
    rest = host.removeprefix("*.")
    while "." in rest:
        rest = rest.split(".", 1)[1]
        yield f"*.{rest}"
    if host:
        yield ""


def most_specific(hostnames: Collection[str], host: str) -> str | None:
    """Return which of some host names owns `host` (a host or a wildcard), or None."""
    return next((name for name in covering(host) if name in hostnames), None)


def domain(host: str) -> str:
    """Return a host name as Envoy's virtual hosts word it."""
    return host or "*"


def route_config(listener: Listener) -> RouteConfigKey:
    """Return the RouteConfiguration of an HTTP or HTTPS listener.

    HTTP listeners of a port share one, as only the Host header tells them apart. HTTPS listeners are told apart by SNI
    and have one each, so that a connection made for one cannot reach the routes of another.
    """
    key = listener.key
    if listener.protocol is Protocol.HTTP:
        return RouteConfigKey(key.gateway, f"http/{listener.port}")
    owner = f"{key.owner.namespace}/{key.owner.name}"
    if key.owner_kind != "Gateway":
        owner = f"{key.owner_kind.lower()}/{owner}"
    return RouteConfigKey(key.gateway, f"https/{listener.port}/{owner}/{key.name}")


def service_route_config(gateway: Key, service: Key, port: int) -> RouteConfigKey:
    """Return the RouteConfiguration of a service port behind a waypoint."""
    return RouteConfigKey(gateway, f"{SERVICE_ROUTES}{service.namespace}/{service.name}/{port}")


def service_listener(gateway: Key, service: Key, port: int) -> ListenerKey:
    """Return the attachment point of a service port behind a waypoint."""
    return ListenerKey(gateway, "Service", service, str(port))


def name_route_configs(
    _view: View, _table: Any, _key: Any, row: Listener | WaypointService
) -> Iterable[tuple[tuple[RouteConfigKey, ListenerKey], bool]]:
    """Return the RouteConfigurations of a listener or of a service behind a waypoint."""
    if isinstance(row, Listener):
        if serves_hosts(row):
            yield (route_config(row), row.key), True
        return
    for port in row.ports:
        if port.protocol is AppProtocol.HTTP:
            place = (row.gateway, row.service, port.port)
            yield (service_route_config(*place), service_listener(*place)), True


def serves_hosts(listener: Listener) -> bool:
    """Whether the listener takes part in choosing a virtual host."""
    return listener.serving and listener.protocol in HTTP_PROTOCOLS


def claim_hosts(view: View, _table: Any, _key: Any, row: Attachment | Listener | WaypointService) -> Iterable[Claim]:
    """Return the domains that an attachment, a listener or a service behind a waypoint claims."""
    if isinstance(row, Attachment):
        return _claim_for_route(view, row)
    if isinstance(row, Listener):
        return _claim_for_listener(view, row)
    return _claim_for_service(view, row)


def _claim_for_route(view: View, row: Attachment) -> Iterator[Claim]:
    key = row.listener
    if key.owner_kind == "Service":
        port = int(key.name)
        config = service_route_config(key.gateway, key.owner, port)
        yield (config, "*", row.route), HostEntry(kind=HostKind.ROUTE, port=port)
        return
    listener = view.get(LISTENERS, key)
    if listener is None or not serves_hosts(listener):
        return
    entry = _entry(view, listener, HostKind.ROUTE)
    for host in row.hostnames:
        if _owner(view, listener, host) == key:
            yield (route_config(listener), domain(host), row.route), entry


def _owner(view: View, listener: Listener, host: str) -> ListenerKey | None:
    """Return the most specific listener for a host among those of the listener's port and protocol (isolation)."""
    place = (listener.key.gateway, listener.port, listener.protocol)
    return next((key for name in covering(host) for key, _row in view.by(LISTENERS, "host", (*place, name))), None)


def _claim_for_listener(view: View, row: Listener) -> Iterator[Claim]:
    if not serves_hosts(row):
        return
    config, claimant = route_config(row), RouteKey("", "", row.key.name)
    yield (config, domain(row.hostname), claimant), _entry(view, row, HostKind.EMPTY)
    if row.protocol is not Protocol.HTTPS:
        return
    misdirected = _entry(view, row, HostKind.MISDIRECTED)
    for key, other in view.by(LISTENERS, "port", (row.key.gateway, row.port)):
        if key != row.key and other.protocol is Protocol.HTTPS and other.serving:
            yield (config, domain(other.hostname), claimant), misdirected


def _claim_for_service(view: View, row: WaypointService) -> Iterator[Claim]:
    for port in row.ports:
        listener = service_listener(row.gateway, row.service, port.port)
        if port.protocol is not AppProtocol.HTTP or view.by(ATTACHMENTS, "listener", listener):
            continue
        target = BackendTarget("Service", row.service.namespace, row.service.name, port.port)
        config = service_route_config(row.gateway, row.service, port.port)
        entry = HostEntry(kind=HostKind.DEFAULT, port=port.port, target=target)
        yield (config, "*", RouteKey("", "", listener.name)), entry


def _entry(view: View, listener: Listener, kind: HostKind) -> HostEntry:
    binding = view.get(BINDINGS, listener.key.gateway) or Binding()
    return HostEntry(kind=kind, port=binding.port(listener.port), https=listener.protocol is Protocol.HTTPS)
