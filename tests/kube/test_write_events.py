"""Events at a real API server: accepted, counted, and shown with the object they are about."""

from __future__ import annotations

import asyncio
from typing import Any

from meshgw.api.meta import ObjectRef
from meshgw.api.registry import REGISTRY
from meshgw.kube.client import Client
from meshgw.write.events import EventWriter
from meshgw.write.queue import Pace
from tests.cluster.apiserver import ApiServer
from tests.kube.following import Author, running
from tests.rig.waiting import eventually


def writer(client: Client, **options: Any) -> EventWriter:
    return EventWriter(client, registry=REGISTRY, instance="meshgw-1", **options)


async def _events(apiserver: ApiServer, space: str, reason: str) -> list[dict[str, Any]]:
    found = await asyncio.to_thread(apiserver.get, "-n", space, "events.events.k8s.io")
    return [item for item in found["items"] if item["reason"] == reason]


async def test_what_happens_is_one_event_with_a_count(apiserver: ApiServer, client: Client, space: str) -> None:
    route = await Author(client, space).create("HTTPRoute", "cart", spec={})
    uid = route["metadata"]["uid"]
    telling = writer(client, pace=Pace(floor=0.5))
    about = ObjectRef("HTTPRoute", space, "cart")
    async with running(telling):
        for _ in range(7):
            telling.publish(about, "Refused", "Envoy says: no such cluster", uid=uid)

        async def is_counted() -> bool:
            counts = [event.get("series", {}).get("count") for event in await _events(apiserver, space, "Refused")]
            return counts == [7]

        await eventually(is_counted, within=10)
    described = await asyncio.to_thread(apiserver.kubectl, "-n", space, "describe", "httproute", "cart")
    assert "Envoy says: no such cluster" in described
    assert "x7" in described


async def test_events_at_the_limits_are_accepted(apiserver: ApiServer, client: Client, space: str) -> None:
    telling = writer(client)
    async with running(telling):
        telling.publish(ObjectRef("Gateway", space, "g" * 253), "R" * 300, "é" * 3000)
        telling.publish(ObjectRef("Deployment", space, "gw-meshgw"), "FailedCreate", "", warning=False)
        telling.publish(ObjectRef("GatewayClass", "", "meshgw"), f"Class{space}".replace("-", ""), "accepted")

        async def are_there() -> bool:
            found = [
                *await _events(apiserver, space, "R" * 128),
                *await _events(apiserver, space, "FailedCreate"),
                *await _events(apiserver, "default", f"Class{space}".replace("-", "")),
            ]
            return [(event["type"], event["regarding"]["kind"]) for event in found] == [
                ("Warning", "Gateway"),
                ("Normal", "Deployment"),
                ("Warning", "GatewayClass"),
            ]

        await eventually(are_there, within=10)


async def test_a_namespace_that_is_gone_is_no_trouble(client: Client) -> None:
    telling = writer(client)
    async with running(telling):
        telling.publish(ObjectRef("HTTPRoute", "gone", "cart"), "Refused", "no")
        await eventually(lambda: not telling._series, within=10)
        assert len(telling.queue) == 0
