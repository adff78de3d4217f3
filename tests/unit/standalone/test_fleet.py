"""The proxies of one instance: which run, which are left serving, which are ended."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshgw.api.meta import Key
from meshgw.standalone.fleet import Fleet, ProxyOptions, end_strangers
from meshgw.standalone.process import load_state, start_time
from meshgw.standalone.runtime import RuntimeDirectory
from meshgw.standalone.supervise import EnvoyFailedError, SupervisorEvent, Timing

A, B = Key("default", "a"), Key("default", "b")
TIMING = Timing(drain_within=0.2, kill_after=2.0, first_delay=0.01)


@pytest.fixture
def runtime() -> Iterator[RuntimeDirectory]:
    with tempfile.TemporaryDirectory(prefix="meshgw-unit-") as scratch:
        yield RuntimeDirectory(Path(scratch))


class Watched:
    """A fleet whose changes can be awaited."""

    def __init__(self, tasks: asyncio.TaskGroup, runtime: RuntimeDirectory, options: ProxyOptions) -> None:
        self.fleet = Fleet(tasks, runtime, options, on_change=self._note)
        self._moved = asyncio.Event()

    async def until_live(self, *keys: Key) -> None:
        async with asyncio.timeout(10):
            while not all(self.fleet.is_live(key) for key in keys):
                self._moved.clear()
                await self._moved.wait()

    async def until_state(self, key: Key, state: str) -> None:
        async with asyncio.timeout(10):
            while self.fleet.states.get(key) != state:
                self._moved.clear()
                await self._moved.wait()

    def _note(self, _key: Key, _event: SupervisorEvent | EnvoyFailedError) -> None:
        self._moved.set()


def pid_of(watched: Watched, key: Key) -> int:
    pid = watched.fleet.pid(key)
    assert pid is not None
    return pid


async def test_proxies_come_and_go_with_their_gateways(fake_envoy: Path, runtime: RuntimeDirectory) -> None:
    options = ProxyOptions(binary=fake_envoy, timing=TIMING)
    async with asyncio.TaskGroup() as tasks:
        watched = Watched(tasks, runtime, options)
        watched.fleet.want({A, B})
        await watched.until_live(A, B)
        first, second = pid_of(watched, A), pid_of(watched, B)
        watched.fleet.want({B})
        assert set(watched.fleet.states) == {B}
        await watched.fleet.stop()
    assert start_time(first) is None
    assert start_time(second) is None


async def test_a_gateway_that_returns_waits_for_its_earlier_proxy(fake_envoy: Path, runtime: RuntimeDirectory) -> None:
    """They share a directory: the one that leaves must not take away the state of the one that comes."""
    options = ProxyOptions(binary=fake_envoy, timing=TIMING)
    async with asyncio.TaskGroup() as tasks:
        watched = Watched(tasks, runtime, options)
        watched.fleet.want({A})
        await watched.until_live(A)
        before = pid_of(watched, A)
        for wanted in (set(), {A}, set(), {A}):
            watched.fleet.want(wanted)
        await watched.until_live(A)
        assert start_time(before) is None
        state = load_state(runtime.proxy(*A).state)
        assert state is not None
        assert state.pid == pid_of(watched, A) != before
        assert watched.fleet.states == {A: "live"}
        await watched.fleet.stop()


async def test_a_fleet_that_stops_starts_nothing(fake_envoy: Path, runtime: RuntimeDirectory) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        watched = Watched(tasks, runtime, ProxyOptions(binary=fake_envoy, timing=TIMING))
        watched.fleet.want({A})
        await watched.until_live(A)
        stopping = tasks.create_task(watched.fleet.stop())
        await asyncio.sleep(0)
        watched.fleet.want({A, B})  # a file changed meanwhile
        await stopping
    assert watched.fleet.pid(A) is None
    assert watched.fleet.pid(B) is None


async def test_a_detached_fleet_ends_with_its_proxies_serving(fake_envoy: Path, runtime: RuntimeDirectory) -> None:
    options = ProxyOptions(binary=fake_envoy, timing=TIMING, detach=True)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        watched = Watched(tasks, runtime, options)
        watched.fleet.want({A})
        await watched.until_live(A)
        pid = pid_of(watched, A)
        await watched.fleet.stop()
    assert start_time(pid) is not None
    await end_strangers(runtime, set(), options)
    assert start_time(pid) is None


async def test_strangers_are_ended_and_own_proxies_left_alone(fake_envoy: Path, runtime: RuntimeDirectory) -> None:
    options = ProxyOptions(binary=fake_envoy, timing=TIMING, detach=True)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        watched = Watched(tasks, runtime, options)
        watched.fleet.want({A, B})
        await watched.until_live(A, B)
        kept, stranger = pid_of(watched, A), pid_of(watched, B)
        await watched.fleet.stop()
    await end_strangers(runtime, {A}, options)
    assert start_time(stranger) is None
    assert start_time(kept) is not None
    assert load_state(runtime.proxy(*B).state) is None
    await end_strangers(runtime, set(), options)
    assert start_time(kept) is None


async def test_a_proxy_that_cannot_run_is_an_error_of_its_gateway(tmp_path: Path, runtime: RuntimeDirectory) -> None:
    options = ProxyOptions(binary=tmp_path / "nothing", timing=TIMING)
    async with asyncio.TaskGroup() as tasks:
        watched = Watched(tasks, runtime, options)
        watched.fleet.want({A})
        await watched.until_state(A, "failed")
        assert "cannot run" in watched.fleet.errors[A]
        watched.fleet.want(set())
        assert watched.fleet.errors == {}
        await watched.fleet.stop()
