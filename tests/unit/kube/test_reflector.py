"""What a real API server cannot be made to say; how reflectors follow a real one is in tests/kube."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshgw.api.core import ConfigMap
from meshgw.api.registry import REGISTRY
from meshgw.kube import reflector as module
from meshgw.kube.clock import SystemClock
from meshgw.kube.reflector import Reflector
from meshgw.kube.seen import Seen
from tests.rig.waiting import eventually
from tests.unit.kube.scripted import CUT, HANG, Script, bookmark, config_map, event, failure, scripted

SERVED = {"resources": [{"name": "configmaps", "verbs": ["create", "list", "watch"]}]}


class Hasty(SystemClock):
    """Waits a hundredth, and notes what it was asked for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(seconds / 100)

    def chance(self) -> float:
        return 0.0


class World:
    def __init__(self, script: Script, reflector: Reflector, calls: list[list[Seen]], clock: Hasty) -> None:
        self.script = script
        self.reflector = reflector
        self.calls = calls
        self.clock = clock

    def values(self) -> dict[str, str]:
        """What is in force, by name."""
        found: dict[str, str] = {}
        for each in (each for call in self.calls for each in call):
            if each.gone:
                found.pop(each.key.name, None)
            elif isinstance(each.object, ConfigMap):
                found[each.key.name] = each.object.data["value"]
        return found

    async def has(self, **values: str) -> None:
        await eventually(lambda: self.values() == values, what=str(self.values()))

    def watched(self) -> list[str]:
        """From which versions was watched, `list` for a streaming list."""
        asked = [line for line in self.script.requests if "watch=true" in line]
        return [
            "list" if "sendInitialEvents" in line else line.partition("resourceVersion=")[2].partition("&")[0]
            for line in asked
        ]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = Hasty()
    calls: list[list[Seen]] = []
    kind = REGISTRY.by_name("ConfigMap")
    assert kind is not None
    async with scripted(tmp_path) as (script, client):
        for _ in range(3):
            script.on("GET /api/v1 ", SERVED)
        reflector = Reflector(client, kind, lambda _, seen: calls.append(list(seen)), namespace="ns", clock=clock)
        yield World(script, reflector, calls, clock)


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(world.reflector.run())
        yield
        task.cancel()


def _start(world: World, *rest: Any) -> None:
    """A list with `a` at 5 and `b` at 7, and what follows."""
    first, second = event("ADDED", config_map("a", 5)), event("ADDED", config_map("b", 7))
    world.script.on("sendInitialEvents", first, second, bookmark(10, end=True), *rest)


async def test_repeated_and_reordered_events_are_harmless(world: World) -> None:
    new = event("MODIFIED", config_map("a", 12))
    old = event("MODIFIED", config_map("a", 11))
    gone = event("DELETED", config_map("b", 13))
    late = event("MODIFIED", config_map("b", 9, value="late"))
    other = event("DELETED", config_map("a", 6, uid="former"))
    _start(world, new, old, new, gone, late, gone, other, event("ADDED", config_map("last", 20)), HANG)
    async with running(world):
        await world.has(a="12", last="20")
    passed = [(each.key.name, each.gone) for call in world.calls[1:] for each in call]
    assert passed == [("a", False), ("b", True), ("last", False)]


@pytest.mark.parametrize("garbage", [b"garbage\n", b'{"type":"ADDED","object":7}\n', b"\xff\xfe\n", b"\n"])
async def test_garbage_is_a_broken_wire(world: World, garbage: bytes) -> None:
    _start(world, event("MODIFIED", config_map("a", 12)), garbage, HANG)
    world.script.on("resourceVersion=", event("MODIFIED", config_map("a", 13)), HANG)
    async with running(world):
        await world.has(a="13", b="7")
    assert world.watched()[0] == "list"
    assert world.watched()[1] in {"10", "12"}
    assert world.reflector.lists == 1
    assert len(world.clock.waits) == 1


async def test_line_that_is_cut_comes_again(world: World) -> None:
    _start(world, b'{"type": "ADDED", "object": {"metadata": {"na', CUT)
    world.script.on("resourceVersion=10", event("ADDED", config_map("c", 12)), HANG)
    async with running(world):
        await world.has(a="5", b="7", c="12")
    assert world.reflector.lists == 1


async def test_list_that_breaks_off_passes_nothing_on(world: World) -> None:
    world.script.on("sendInitialEvents", event("ADDED", config_map("a", 5)), CUT)
    world.script.on("sendInitialEvents", event("ADDED", config_map("a", 5)))
    _start(world, HANG)
    async with running(world):
        await world.has(a="5", b="7")
    assert [len(call) for call in world.calls] == [2]


async def test_too_old_version_leads_to_the_difference(world: World) -> None:
    _start(world, event("ERROR", failure(410, "Expired", "too old resource version")), HANG)
    unchanged, new = event("ADDED", config_map("b", 7)), event("ADDED", config_map("c", 21))
    world.script.on("sendInitialEvents", unchanged, new, bookmark(30, end=True), HANG)
    async with running(world):
        await world.has(b="7", c="21")
    assert sorted((each.key.name, each.gone) for each in world.calls[1]) == [("a", True), ("c", False)]


async def test_list_is_right_even_where_versions_go_back(world: World) -> None:
    """As after etcd was restored from a backup."""
    _start(world, event("ERROR", failure(410)), HANG)
    world.script.on("sendInitialEvents", event("ADDED", config_map("a", 3)), bookmark(4, end=True), HANG)
    async with running(world):
        await world.has(a="3")


async def test_refused_watch_backs_off_more_and_more_and_starts_anew(world: World) -> None:
    _start(world)
    for _ in range(9):
        world.script.on("resourceVersion=", failure(500), status=500)
    world.script.on("resourceVersion=", bookmark(40), CUT)
    world.script.on("resourceVersion=40", event("ADDED", config_map("c", 41)), HANG)
    async with running(world):
        await world.has(a="5", b="7", c="41")
    assert world.clock.waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 0.2]
    assert world.reflector.lists == 1


async def test_watch_that_ends_at_once_backs_off(world: World) -> None:
    _start(world)
    world.script.on("resourceVersion=")
    world.script.on("resourceVersion=")
    world.script.on("resourceVersion=", event("ADDED", config_map("c", 12)), HANG)
    async with running(world):
        await world.has(a="5", b="7", c="12")
    assert world.clock.waits == [0.2, 0.4]


async def test_wish_of_the_server_to_wait_is_met(world: World) -> None:
    world.script.on("sendInitialEvents", failure(429), status=429, header="Retry-After: 3\r\n")
    _start(world, HANG)
    async with running(world):
        await world.has(a="5", b="7")
    assert world.clock.waits == [3.0]


async def test_server_that_knows_no_streaming_lists_is_asked_for_pages(world: World) -> None:
    world.script.on("sendInitialEvents", failure(422, "Invalid"), status=422)
    world.script.on(
        "limit=500 ", {"metadata": {"resourceVersion": "9", "continue": "x/y="}, "items": [config_map("a", 5)]}
    )
    world.script.on("continue=x/y%3D", {"metadata": {"resourceVersion": "9"}, "items": [config_map("b", 7)]})
    world.script.on("resourceVersion=9", HANG)
    async with running(world):
        await world.has(a="5", b="7")
        await eventually(lambda: world.watched() == ["list", "9"])
    assert [len(call) for call in world.calls] == [2]
    assert world.clock.waits == [0.0]


async def test_server_that_never_ends_a_streaming_list_is_asked_for_pages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LISTING", 0.2)
    world.script.on("sendInitialEvents", event("ADDED", config_map("a", 5)), HANG)
    world.script.on("limit=500", {"metadata": {"resourceVersion": "9"}, "items": None})
    async with running(world):
        await asyncio.wait_for(world.reflector.synced.wait(), 5)
    assert world.calls == []


async def test_object_of_the_wrong_shape_leaves_the_good_one_in_force(world: World) -> None:
    broken = {**config_map("a", 12), "data": 7}
    reborn = {**config_map("b", 14, uid="other"), "data": 7}
    _start(
        world, event("MODIFIED", broken), event("ADDED", reborn), event("MODIFIED", config_map("b", 15, uid="other"))
    )
    async with running(world):
        await world.has(a="5", b="15")
    first, second = world.calls[1][0], (world.calls[1] + world.calls[2] if world.calls[2:] else world.calls[1])[1]
    assert first.object is None
    assert not first.gone
    assert first.problems[0].field == "data"
    # What was good of `b` was of another object, which is gone.
    assert second.gone
    assert second.problems


async def test_bookmarks_move_the_position(world: World) -> None:
    _start(world, bookmark(50))
    world.script.on("resourceVersion=50", HANG)
    async with running(world):
        await eventually(lambda: world.watched() == ["list", "50"])
