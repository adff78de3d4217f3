"""`python -m tests.mesh KUBECONFIG NODE`: the node proxy of a node, run on it as root until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import msgspec
import structlog

from meshgw.kube.client import Client, KubeSettings, connect
from meshgw.kube.errors import ApiError, UnreachableError
from tests.mesh.agent import NAMESPACE, NodeProxy

_PAUSE = 0.5


async def run(kubeconfig: str, node: str) -> None:
    """Run it in the working directory, in a folder `mesh`."""
    folder = Path.cwd() / "mesh"
    folder.mkdir(exist_ok=True)
    (folder / "discovery.sock").unlink(missing_ok=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with connect(KubeSettings(kubeconfig=kubeconfig)) as client:
        address = await find_istiod(client)
        await NodeProxy(client, node=node, istiod=address, folder=folder).run(ended)


async def find_istiod(client: Client) -> str:
    """Return the address of istiod's Service, once there is one."""
    while True:
        try:
            path = f"/api/v1/namespaces/{NAMESPACE}/services/istiod"
            service = msgspec.json.decode(await client.request("GET", path))
        except (ApiError, UnreachableError):
            await asyncio.sleep(_PAUSE)
        else:
            return f"{service['spec']['clusterIP']}:15012"


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(run(*sys.argv[1:3]))
