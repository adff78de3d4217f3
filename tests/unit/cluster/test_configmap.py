"""One ConfigMap is followed, and what the API server says instead of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from meshgw.api.meta import Key
from meshgw.cluster.configmap import ConfigMapWatch
from meshgw.ir.finding import Finding
from meshgw.kube.seen import Seen
from tests.rig.waiting import eventually
from tests.unit.cluster.world import kind
from tests.unit.kube.scripted import HANG, bookmark, config_map, event, failure, scripted

SERVED = {"resources": [{"name": "configmaps", "verbs": ["create", "list", "watch"]}]}


async def test_refusals_end_when_it_can_be_read(tmp_path: Path) -> None:
    seen: list[Seen] = []
    refused: list[tuple[bool, bool]] = []
    async with scripted(tmp_path) as (script, client), asyncio.timeout(20), asyncio.TaskGroup() as tasks:

        def refuse(problem: Finding | None) -> None:
            refused.append((problem is not None, watch.forbidden))

        watch = ConfigMapWatch(client, kind("ConfigMap"), Key("ns", "one"), see=seen.append, refused=refuse)
        script.on("GET /api/v1 ", SERVED)
        for status, reason in ((401, "Unauthorized"), (403, "Forbidden")):
            script.on("sendInitialEvents", failure(status, reason, reason), status=status)
        script.on("sendInitialEvents", event("ADDED", config_map("one", 5)), bookmark(6, end=True), HANG)
        running = tasks.create_task(watch.run())
        await eventually(lambda: len(refused) == 3)
        await watch.synced.wait()
        running.cancel()
    assert [each.key for each in seen] == [Key("ns", "one")]
    assert refused == [(True, False), (True, True), (False, False)]
    assert all("fieldSelector=metadata.name%3Done" in line for line in script.requests if "watch=true" in line)
