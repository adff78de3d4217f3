"""A process that campaigns for a lease and writes as often as it may.

`python -m tests.kube.candidate KUBECONFIG NAMESPACE ID`; every write adds a key to a ConfigMap.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import msgspec

from meshgw.kube.client import MERGE_PATCH, KubeSettings, connect
from meshgw.kube.errors import ApiError
from meshgw.kube.lease import Elector, NotLeaderError

DURATION = 5.0


async def main(kubeconfig: str, namespace: str, identity: str) -> None:
    async with connect(KubeSettings(kubeconfig=kubeconfig)) as client, asyncio.TaskGroup() as group:
        elector = Elector(client, namespace=namespace, name="writer", identity=identity, duration=DURATION)
        group.create_task(elector.run())
        number = 0
        while True:
            await asyncio.sleep(0.02)
            number += 1
            with contextlib.suppress(NotLeaderError, ApiError, ConnectionError):
                async with elector.hold():
                    path = f"/api/v1/namespaces/{namespace}/configmaps/log"
                    log = msgspec.json.decode(await client.request("GET", path))
                    document = {
                        "metadata": {"resourceVersion": log["metadata"]["resourceVersion"]},
                        "data": {f"{identity}-{number:05}": "written"},
                    }
                    body = msgspec.json.encode(document)
                    await client.request("PATCH", path, body=body, content_type=MERGE_PATCH)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
