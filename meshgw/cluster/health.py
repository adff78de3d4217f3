"""What the kubelet and Prometheus ask: `/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from meshgw.observe.metrics import Metrics

if TYPE_CHECKING:
    from aiohttp import web

Missing = Callable[[], Sequence[str]]
"""Returns what keeps this replica from being ready, nothing when it is."""


@contextlib.asynccontextmanager
async def serve_health(listen: str, missing: Missing) -> AsyncIterator[int]:
    """Serve `/healthz` and `/readyz` at `host:port` until the block ends; gives the port. Raises OSError.

    Whoever answers is alive: a blocked event loop does not.
    """
    from aiohttp import web  # noqa: PLC0415 - slow to import

    async def ready(_request: web.Request) -> web.Response:
        found = missing()
        return web.Response(status=503 if found else 200, text="".join(f"{line}\n" for line in found or ("ok",)))

    async def alive(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async with _serve(listen, {"/healthz": alive, "/readyz": ready}) as port:
        yield port


@contextlib.asynccontextmanager
async def serve_metrics(listen: str, metrics: Metrics) -> AsyncIterator[int]:
    """Serve `/metrics` at `host:port` until the block ends; gives the port. Raises OSError."""
    from aiohttp import web  # noqa: PLC0415 - slow to import

    async def scrape(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async with _serve(listen, {"/metrics": scrape}) as port:
        yield port


@contextlib.asynccontextmanager
async def _serve(
    listen: str, handlers: dict[str, Callable[[web.Request], Awaitable[web.Response]]]
) -> AsyncIterator[int]:
    from aiohttp import web  # noqa: PLC0415 - slow to import

    host, _, port = listen.rpartition(":")
    app = web.Application()
    app.add_routes([web.get(path, handler) for path, handler in handlers.items()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        address = host.strip("[]")
        site = web.TCPSite(runner, None if address in {"", "::"} else address, int(port))  # None: both families
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
