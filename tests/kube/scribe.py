"""A replica that gives every HTTPRoute a status in its own name: `-m tests.kube.scribe KUBECONFIG NAMESPACE NAME`.

It writes while it holds the lease `scribes`, and says who it is in the message of its condition.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from meshgw.api.gateway import ParentReference
from meshgw.api.http import HTTPRoute
from meshgw.api.meta import ObjectRef
from meshgw.api.registry import REGISTRY, Kind
from meshgw.ir.status import Condition, ParentStatus, RouteStatus
from meshgw.kube.client import KubeSettings, connect
from meshgw.kube.lease import Elector
from meshgw.kube.reflector import Reflector
from meshgw.kube.seen import Seen
from meshgw.write.statuses import StatusWriter

DURATION = 3.0
CONTROLLER = "meshgw.dev/gateway-controller"


def said_by(name: str, generation: int) -> RouteStatus:
    condition = Condition(
        type="Accepted", status=True, reason="Accepted", message=f"by {name}", observed_generation=generation
    )
    parent = ParentReference(name="gw")
    return RouteStatus(parents=(ParentStatus(parent_ref=parent, controller_name=CONTROLLER, conditions=(condition,)),))


async def main(kubeconfig: str, namespace: str, name: str) -> None:
    leads, lost = asyncio.Event(), asyncio.Event()

    def change(is_leader: bool) -> None:  # noqa: FBT001 - as the elector calls it
        (leads if is_leader else lost).set()
        (lost if is_leader else leads).clear()

    async with connect(KubeSettings(kubeconfig=kubeconfig)) as client, asyncio.TaskGroup() as tasks:
        elector = Elector(client, namespace=namespace, name="scribes", identity=name, duration=DURATION, changed=change)
        writer = StatusWriter(client, registry=REGISTRY, controller=CONTROLLER, hold=elector.hold)

        def see(kind: Kind, seen: Sequence[Seen]) -> None:
            writer.observe(kind, seen)
            for each in seen:
                route = each.object
                status = said_by(name, route.metadata.generation) if isinstance(route, HTTPRoute) else None
                writer.desire({ObjectRef("HTTPRoute", *each.key): status})

        kind = REGISTRY.by_name("HTTPRoute")
        assert kind is not None
        reflector = Reflector(client, kind, see, namespace=namespace)
        tasks.create_task(reflector.run())
        await reflector.synced.wait()
        tasks.create_task(elector.run())
        while True:
            await leads.wait()
            writing = tasks.create_task(writer.run())
            await lost.wait()
            writing.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
