"""What a real API server cannot be made to say; how reflectors follow a real one is in tests/kube."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from meshgw.api.core import ConfigMap
from meshgw.api.istio import AuthorizationPolicy
from meshgw.api.meta import Key
from meshgw.api.registry import REGISTRY, Kind
from meshgw.kube import reflector as module
from meshgw.kube.clock import SystemClock
from meshgw.kube.reading import WRONG_SHAPE, Reader
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
                found[each.key.name] = each.object.data["mesh"]
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


@pytest.mark.parametrize("garbage", [b"garbage\n", b'{"type":"ADDED","object":{\n', b"\xff\xfe\n", b"\n"])
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
    world.script.on("resourceVersion=10")
    world.script.on("resourceVersion=10")
    world.script.on("limit=1 ", {"metadata": {"resourceVersion": "10"}, "items": []})
    world.script.on("resourceVersion=10", event("ADDED", config_map("c", 12)), HANG)
    async with running(world):
        await world.has(a="5", b="7", c="12")
    assert world.clock.waits == [0.2, 0.4]
    assert world.reflector.lists == 1


async def test_server_that_comes_back_in_an_earlier_state_is_read_anew(world: World) -> None:
    """It takes a watch from a version that it has not reached, and is silent until it does."""
    _start(world, CUT)
    world.script.on("resourceVersion=10", CUT)
    world.script.on("limit=1 ", {"metadata": {"resourceVersion": "9"}, "items": []})
    world.script.on("sendInitialEvents", event("ADDED", config_map("a", 3)), bookmark(9, end=True), HANG)
    async with running(world):
        await world.has(a="3")
    assert world.watched() == ["list", "10", "list"]


async def test_earlier_state_behind_a_connection_that_broke_only_once_is_found_by_its_silence(world: World) -> None:
    _start(world, CUT)
    world.script.on("resourceVersion=10", HANG)
    world.script.on("limit=1 ", {"metadata": {"resourceVersion": "9"}, "items": []})
    world.script.on("sendInitialEvents", event("ADDED", config_map("a", 3)), bookmark(9, end=True), HANG)
    world.reflector._idle = 0.2
    async with running(world):
        await world.has(a="3")
    assert world.watched()[:3] == ["list", "10", "list"]


async def test_server_that_is_away_is_tried_again_every_few_seconds(world: World) -> None:
    _start(world, CUT)
    for _ in range(8):
        world.script.on("limit=1 ", CUT)
    world.script.on("resourceVersion=10", CUT)
    world.script.on("limit=1 ", {"metadata": {"resourceVersion": "10"}, "items": []})
    world.script.on("resourceVersion=10", event("ADDED", config_map("c", 12)), HANG)
    async with running(world):
        await world.has(a="5", b="7", c="12")
    assert max(world.clock.waits) == 5.0


async def test_wish_of_the_server_to_wait_is_met(world: World) -> None:
    world.script.on("sendInitialEvents", failure(429), status=429, header="Retry-After: 3\r\n")
    _start(world, HANG)
    async with running(world):
        await world.has(a="5", b="7")
    assert world.clock.waits == [3.0]


async def test_server_that_knows_no_streaming_lists_is_asked_for_pages(world: World) -> None:
    world.script.on("sendInitialEvents", failure(422, "Invalid"), status=422)
    world.script.on(
        "limit=50 ", {"metadata": {"resourceVersion": "9", "continue": "x/y="}, "items": [config_map("a", 5)]}
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
    world.script.on("limit=50", {"metadata": {"resourceVersion": "9"}, "items": None})
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


DEPTHS = [90, 100, 101, 500, *range(970, 980), 1200, 5000]
"""Of an object; a decoder gives up somewhere near a thousand, depending on the depth of the stack."""

POLICIES = {"resources": [{"name": "authorizationpolicies", "verbs": ["list", "watch"]}]}


def _policy(name: str, version: int, depth: int = 4) -> bytes:
    """An AuthorizationPolicy for a Gateway, of that many levels."""
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}
    head = json.dumps({"metadata": metadata, "spec": {"targetRefs": [target], "rules": [{}]}})
    inner = b'{"a":' * (depth - 3) + b"{}" + b"}" * (depth - 3)
    return head.encode().replace(b'"rules"', b'"selector":' + inner + b',"rules"') if depth > 4 else head.encode()


def _told(type_: str, document: bytes) -> bytes:
    return b'{"type":"' + type_.encode() + b'","object":' + document + b"}\n"


@pytest.fixture
async def policies(tmp_path: Path) -> AsyncIterator[World]:
    clock = Hasty()
    calls: list[list[Seen]] = []
    kind = REGISTRY.by_name("AuthorizationPolicy")
    assert kind is not None
    async with scripted(tmp_path) as (script, client):
        script.on("GET /apis/security.istio.io/v1 ", POLICIES)
        for _ in range(3):
            script.on("/customresourcedefinitions/", {"metadata": {}})
        reflector = Reflector(client, kind, lambda _, seen: calls.append(list(seen)), clock=clock)
        yield World(script, reflector, calls, clock)


def _judge(world: World, depth: int) -> None:
    """Check that all three were passed on, the middle one as what it is or as a policy that refuses."""
    seen = {each.key.name: each for call in world.calls for each in call}
    assert set(seen) == {"before", "deep", "after"}
    for name in ("before", "after"):
        assert seen[name].object is not None
        assert seen[name].problems == ()
    deep = seen["deep"]
    assert isinstance(deep.object, AuthorizationPolicy)
    assert deep.object.spec.target_refs[0].name == "gw"
    assert deep.observed is not None
    assert deep.observed.uid == "uid-deep"
    assert deep.problems[0].object.key == Key("ns", "deep")
    assert deep.problems[0].code == WRONG_SHAPE
    assert ("nested" in deep.problems[0].message) == (depth > 100)
    assert deep.object.unreadable
    assert world.reflector.synced.is_set()
    assert world.reflector.problem is None
    assert world.reflector.failure == ""


@pytest.mark.parametrize("depth", DEPTHS)
async def test_deep_object_in_a_streaming_list_costs_itself_alone(policies: World, depth: int) -> None:
    documents = (_policy("before", 1), _policy("deep", 2, depth), _policy("after", 3))
    lines = [_told("ADDED", document) for document in documents]
    policies.script.on("sendInitialEvents", *lines, bookmark(9, end=True), HANG)
    async with running(policies):
        await asyncio.wait_for(policies.reflector.synced.wait(), 5)
        _judge(policies, depth)
    assert policies.clock.waits == []


@pytest.mark.parametrize("depth", DEPTHS)
async def test_deep_object_in_a_list_costs_itself_alone(policies: World, depth: int) -> None:
    documents = (_policy("before", 1), _policy("deep", 2, depth), _policy("after", 3))
    policies.script.on("sendInitialEvents", failure(422, "Invalid"), status=422)
    body = b'{"metadata":{"resourceVersion":"9"},"items":[' + b",".join(documents) + b"]}"
    policies.script.on("limit=500", body)
    policies.script.on("resourceVersion=9", HANG)
    async with running(policies):
        await asyncio.wait_for(policies.reflector.synced.wait(), 5)
        _judge(policies, depth)


@pytest.mark.parametrize("depth", DEPTHS)
async def test_deep_object_in_a_watch_costs_itself_alone(policies: World, depth: int) -> None:
    lines = [_told("ADDED", _policy("deep", 12, depth)), _told("ADDED", _policy("after", 13))]
    first = _told("ADDED", _policy("before", 1))
    policies.script.on("sendInitialEvents", first, bookmark(9, end=True), *lines, HANG)
    async with running(policies):
        await eventually(lambda: sum(map(len, policies.calls)) == 3, what="three policies")
        _judge(policies, depth)
    assert policies.watched() == ["list"]


@pytest.mark.parametrize("depth", [101, 975, 5000])
async def test_policy_that_becomes_deep_stays_as_it_was_until_it_is_gone(policies: World, depth: int) -> None:
    lines = [_told("MODIFIED", _policy("a", 12, depth)), _told("DELETED", _policy("a", 13, depth))]
    policies.script.on("sendInitialEvents", _told("ADDED", _policy("a", 1)), bookmark(9, end=True), *lines, HANG)
    async with running(policies):
        await eventually(lambda: sum(map(len, policies.calls)) == 3, what="all three")
    first, deep, last = (each for call in policies.calls for each in call)
    assert first.problems == ()
    assert deep.object is None
    assert not deep.gone
    assert deep.problems[0].code == WRONG_SHAPE
    assert last.gone


async def test_object_without_a_name_costs_itself_alone_and_nothing_is_taken_as_gone(world: World) -> None:
    nameless = b'{"type":"ADDED","object":{"metadata":[]}}\n'
    _start(world, nameless, event("MODIFIED", config_map("a", 12)), event("ERROR", failure(410)), HANG)
    listed = (event("ADDED", config_map("b", 7)), nameless, event("ADDED", config_map("c", 20)))
    world.script.on("sendInitialEvents", *listed, bookmark(30, end=True), HANG)
    async with running(world):
        await world.has(a="12", b="7", c="20")
    assert world.reflector.lists == 2
    assert world.reflector.problem is not None
    assert world.reflector.problem.code == WRONG_SHAPE


async def test_list_in_which_all_have_names_tells_again_what_is_gone(world: World) -> None:
    nameless = b'{"type":"ADDED","object":7}\n'
    _start(world, nameless, event("ERROR", failure(410)), HANG)
    world.script.on("sendInitialEvents", event("ADDED", config_map("b", 7)), bookmark(40, end=True), HANG)
    async with running(world):
        await world.has(b="7")
    assert world.reflector.problem is None


async def test_error_while_reading_costs_the_object_alone(policies: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Reader._read

    def fail(self: Reader, outline: Any, *, has_good: bool) -> Seen:
        if outline.key.name == "deep":
            raise KeyError("a secret of the object")
        return read(self, outline, has_good=has_good)

    monkeypatch.setattr(Reader, "_read", fail)
    lines = [_told("ADDED", _policy(name, 1)) for name in ("before", "deep", "after")]
    policies.script.on("sendInitialEvents", *lines, bookmark(9, end=True), HANG)
    async with running(policies):
        await asyncio.wait_for(policies.reflector.synced.wait(), 5)
    seen = {each.key.name: each for call in policies.calls for each in call}
    assert [name for name, each in seen.items() if each.problems] == ["deep"]
    assert seen["deep"].problems[0].message == "could not be read (KeyError)"
    assert isinstance(seen["deep"].object, AuthorizationPolicy)
    assert seen["deep"].object.unknown_fields


async def test_sink_that_fails_for_one_object_gets_all_others(tmp_path: Path) -> None:
    kind = REGISTRY.by_name("ConfigMap")
    assert kind is not None
    taken: list[str] = []

    def sink(_: Kind, seen: Sequence[Seen]) -> None:
        for each in seen:
            if each.key.name == "bad":
                raise ValueError(each.key.name)
            taken.append(f"{each.key.name} {'gone' if each.gone else 'there'}")

    async with scripted(tmp_path) as (script, client):
        script.on("GET /api/v1 ", SERVED)
        listed = [event("ADDED", config_map(name, 5)) for name in ("a", "bad", "c")]
        later = [event("MODIFIED", config_map("bad", 12)), event("DELETED", config_map("c", 13))]
        script.on("sendInitialEvents", *listed, bookmark(10, end=True), *later, HANG)
        reflector = Reflector(client, kind, sink, namespace="ns")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(reflector.run())
            await eventually(lambda: "c gone" in taken, what="what comes later")
            assert not task.done()
            task.cancel()
    assert {"a there", "c there"} <= set(taken)
    assert reflector.faults == 2
    assert reflector.synced.is_set()


async def test_secrets_that_nobody_reads_are_not_asked_for(tmp_path: Path) -> None:
    kind = REGISTRY.by_name("Secret")
    assert kind is not None
    async with scripted(tmp_path) as (script, client):
        script.on("GET /api/v1 ", {"resources": [{"name": "secrets", "verbs": ["list", "watch"]}]})
        script.on("sendInitialEvents", failure(422, "Invalid"), status=422)
        script.on("limit=50 ", {"metadata": {"resourceVersion": "9"}, "items": []})
        reflector = Reflector(client, kind, lambda *_: None, field_selector="metadata.name=a")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(reflector.run())
            await eventually(lambda: any("resourceVersion=9" in line for line in script.requests), what="a watch")
            task.cancel()
    for line in script.requests[1:]:  # the first one asks what is served
        assert "metadata.name%3Da,type!%3Dhelm.sh/release.v1,type!%3Dkubernetes.io/service-account-token" in line
