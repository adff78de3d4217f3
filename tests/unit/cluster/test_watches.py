"""Reflectors run for what is wanted, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshgw.api.meta import ObjectRef
from meshgw.cluster.scope import SECRET, Watch
from meshgw.cluster.watches import Report, Watches
from meshgw.ir.finding import Finding
from tests.unit.cluster.world import kind

PODS = Watch(kind("Pod"), "shop")
SECRETS = Watch(kind("Secret"), "shop")
OTHERS = Watch(kind("Secret"), "other")
FORBIDDEN = Finding(code="MG9108", object=ObjectRef("Secret", "shop", ""), message="may not list")


class Reflector:
    """A reflector of nothing."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.synced = asyncio.Event()
        self.running = self.dropped = False

    async def run(self) -> None:
        self.running = True
        try:
            await asyncio.Event().wait()
        finally:
            self.running = False

    def drop(self) -> None:
        self.dropped = True


class World:
    """Watches, and the reflectors they have made."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks = tasks
        self.made: dict[Watch, Reflector] = {}
        self.watches = Watches(tasks, self._make)

    def _make(self, watch: Watch, report: Report) -> Reflector:
        self.made[watch] = Reflector(report)
        return self.made[watch]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        made = World(tasks)
        yield made
        made.watches.stop()


async def test_watches_follow_what_is_wanted_each_group_of_them_apart(world: World) -> None:
    assert world.watches.want({PODS, SECRETS}) == {PODS, SECRETS}
    await asyncio.sleep(0)
    pods, secrets = world.made[PODS], world.made[SECRETS]
    assert world.watches.want({OTHERS}, among=lambda watch: watch.kind.name == SECRET) == {OTHERS}
    await asyncio.sleep(0)
    assert (pods.running, secrets.running, world.made[OTHERS].running) == (True, False, True)
    assert (pods.dropped, secrets.dropped) == (False, True)


async def test_a_wait_ends_when_all_have_seen_all_or_are_no_longer_wanted(world: World) -> None:
    world.watches.want({PODS, SECRETS})
    waiting = world.tasks.create_task(world.watches.wait_synced({PODS, SECRETS}))
    assert world.watches.waiting() == ["pods in shop", "secrets in shop"]
    world.made[PODS].synced.set()
    await asyncio.sleep(0)
    assert not waiting.done()
    assert world.watches.waiting() == ["secrets in shop"]
    assert world.watches.waiting({PODS}) == []
    world.watches.want({PODS})
    await waiting


async def test_what_may_not_be_read_is_told_and_waited_for_only_where_it_must_be(world: World) -> None:
    world.watches.want({PODS, SECRETS})
    world.made[PODS].synced.set()
    strict = world.tasks.create_task(world.watches.wait_synced({PODS, SECRETS}))
    lenient = world.tasks.create_task(world.watches.wait_synced({PODS, SECRETS}, or_refused=True))
    await asyncio.sleep(0)
    world.made[SECRETS].report(SECRETS.kind, SECRETS.namespace, FORBIDDEN)
    await lenient
    assert not strict.done()
    assert world.watches.problems() == [FORBIDDEN]
    world.made[SECRETS].report(SECRETS.kind, SECRETS.namespace, None)
    assert world.watches.problems() == []
    world.made[SECRETS].synced.set()
    await strict
