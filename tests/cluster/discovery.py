"""What istiod tells node proxies: its workload discovery (WDS), asked as a proxy of some ServiceAccount would."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec

from tests.cluster.istiod import Istiod
from tests.mesh.discovery import follow
from tests.mesh.workload import Service, Workload, read


class Told(msgspec.Struct, frozen=True):
    """One Service or workload; `waypoint` is `<namespace>/<hostname>:<port>` or `<ip>:<port>`, "" for none."""

    name: str
    namespace: str
    waypoint: str = ""
    hbone: bool = False


async def ask_workloads(
    istiod: Istiod, namespace: str, account: str, *, within: float = 30.0
) -> dict[tuple[str, str], Told]:
    """Return what istiod tells of all Services (`("service", name)`) and pods (`("workload", name)`) of a namespace.

    The first answer only: what changes later is not waited for.
    """
    token = istiod.cluster.token(namespace, account, audience="istio-ca")
    stream = follow(istiod.address, roots=istiod.roots(), token=token, namespace=namespace, account=account)
    async with asyncio.timeout(within), aclosing(stream) as answers:
        answer = await anext(answers)
    told = map(_told, (read(resource.resource.value) for resource in answer.resources))
    return {key: row for key, row in told if row.namespace == namespace}


def _told(row: Service | Workload) -> tuple[tuple[str, str], Told]:
    kind = "service" if isinstance(row, Service) else "workload"
    waypoint = "" if row.waypoint is None else str(row.waypoint)
    hbone = isinstance(row, Workload) and row.hbone
    return (kind, row.name), Told(name=row.name, namespace=row.namespace, waypoint=waypoint, hbone=hbone)
