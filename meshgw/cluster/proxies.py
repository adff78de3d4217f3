"""The proxies that are connected, as each replica sees them: what it says of itself, and what people are shown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from meshgw.api.meta import Key
from meshgw.diagnose.proxy_config import NOTHING, Sheet
from meshgw.emit.resource import SHORT_NAMES
from meshgw.kube.client import ApiError, Client, UnreachableError, resource_path
from meshgw.kube.forward import get_from_pod
from meshgw.xds.proxy import ProxyState, TypeState

if TYPE_CHECKING:
    from aiohttp import web

LISTEN: Final = "127.0.0.1:8082"
"""Where a replica tells of its proxies: only to who may forward ports of its pod."""
PATH: Final = "/proxies"
SERVICES: Final = ("CDS", "LDS", "RDS", "EDS", "SDS")
SYNCED, WAITING, REFUSED, UNUSED = "synced", "waiting", "refused", NOTHING
CONTROLLERS: Final = "app.kubernetes.io/name=meshgw,app.kubernetes.io/component=controller"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What a proxy has of one discovery service; `nack` is Envoy's complaint about what it refused."""

    state: str
    resources: int = 0
    nack: str = ""


class Connected(msgspec.Struct, frozen=True, kw_only=True):
    """One connected proxy; `seconds` is how long it has been."""

    node: str
    gateway: str
    address: str
    protocol: str
    seconds: float
    services: Mapping[str, Share] = {}

    @property
    def name(self) -> str:
        """The pod, which is the last part of the node id."""
        return self.node.rpartition("/")[2] or self.node

    @property
    def is_synced(self) -> bool:
        """Whether it has and accepted all that it asked for."""
        return all(share.state in (SYNCED, UNUSED) for share in self.services.values())


def describe(states: Iterable[ProxyState], now: float) -> tuple[Connected, ...]:
    """Return what a server tells of its proxies; `now` is by the server's clock."""
    return tuple(
        Connected(
            node=state.node_id,
            gateway=state.group,
            address=state.address,
            protocol=state.protocol,
            seconds=max(0.0, round(now - state.connected_at, 1)),
            services={SHORT_NAMES[url]: _share(found) for url, found in state.types.items() if url in SHORT_NAMES},
        )
        for state in states
        if state.connected
    )


def _share(found: TypeState) -> Share:
    if found.nack:
        state = REFUSED
    elif found.unanswered or found.version_sent != found.version_acked:
        state = WAITING
    else:
        state = SYNCED if found.version_acked else UNUSED
    return Share(state=state, resources=found.resources, nack=found.nack)


@contextlib.asynccontextmanager
async def serve_proxies(
    proxies: Callable[[], Iterable[ProxyState]], clock: Callable[[], float], *, listen: str = LISTEN
) -> AsyncIterator[int]:
    """Serve `/proxies` at `host:port` until the block ends; gives the port. Raises OSError."""
    from aiohttp import web  # noqa: PLC0415 - slow to import

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(describe(proxies(), clock())), content_type="application/json")

    host, _, port = listen.rpartition(":")
    app = web.Application()
    app.add_routes([web.get(PATH, answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host.strip("[]"), int(port))
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


class _Named(msgspec.Struct):
    name: str = ""


class _Item(msgspec.Struct):
    metadata: _Named


class _Pods(msgspec.Struct):
    items: list[_Item] = []


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """What the replicas tell, by their pods, and why others tell nothing."""

    told: Mapping[str, tuple[Connected, ...]]
    silent: Mapping[str, str] = {}


async def collect(client: Client, home: str) -> Gathered:
    """Return what each replica in the namespace tells; a pod that is gone meanwhile is none.

    Raises `ApiError` if replicas may not be asked, `UnreachableError` if the API server does not answer.
    """
    query = {"labelSelector": CONTROLLERS, "fieldSelector": "status.phase=Running"}
    pods = msgspec.json.decode(
        await client.request("GET", resource_path("v1", "pods", namespace=home), query=query), type=_Pods
    )
    names = sorted(item.metadata.name for item in pods.items)
    answers = await asyncio.gather(*(_ask(client, Key(home, name)) for name in names), return_exceptions=True)
    told, silent = {}, {}
    for name, answer in zip(names, answers, strict=True):
        if not isinstance(answer, BaseException):
            told[name] = answer
        elif isinstance(answer, UnreachableError) or (isinstance(answer, ApiError) and answer.status >= 500):
            silent[name] = str(answer)
        elif not (isinstance(answer, ApiError) and answer.status == 404):
            raise answer
    return Gathered(told=told, silent=silent)


async def _ask(client: Client, pod: Key) -> tuple[Connected, ...]:
    status, body = await get_from_pod(client, pod, int(LISTEN.rpartition(":")[2]), PATH, within=10.0)
    if status != 200:
        raise UnreachableError(f"{pod} answers {status}")
    try:
        return msgspec.json.decode(body, type=tuple[Connected, ...])
    except msgspec.DecodeError as error:
        raise UnreachableError(f"{pod} does not tell of its proxies: {error}") from None


def render(found: Mapping[str, Iterable[Connected]]) -> Sheet:
    """Return all replicas' proxies in one table, those with something amiss first."""
    rows = sorted(
        ((proxy, controller) for controller, proxies in found.items() for proxy in proxies),
        key=lambda pair: (pair[0].is_synced, pair[0].gateway, pair[0].name, pair[1]),
    )
    return Sheet(
        columns=("NAME", "GATEWAY", *SERVICES, "CONTROLLER", "CONNECTED", "COMPLAINT"),
        rows=tuple(
            (
                proxy.name,
                proxy.gateway,
                *(_cell(proxy.services.get(service)) for service in SERVICES),
                controller,
                _age(proxy.seconds),
                next((share.nack for share in proxy.services.values() if share.nack), NOTHING),
            )
            for proxy, controller in rows
        ),
    )


def _cell(share: Share | None) -> str:
    if share is None or share.state == UNUSED:
        return NOTHING
    return f"{share.state} ({share.resources})"


def _age(seconds: float) -> str:
    """Return a time in one unit, as kubectl does."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
