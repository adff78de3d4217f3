"""The supervisor against a stand-in Envoy that fails in every way."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshgw.standalone import supervise
from meshgw.standalone.process import load_state, start_time
from meshgw.standalone.runtime import ProxyDirectory
from meshgw.standalone.supervise import EnvoyFailedError, Supervisor, SupervisorEvent, Timing
from tests.rig.waiting import eventually

QUICK = Timing(
    poll=0.01,
    answer_within=5.0,
    first_delay=0.05,
    longest_delay=0.2,
    healthy_after=60.0,
    drain_within=0.3,
    kill_after=2.0,
)


class Watched:
    """A supervisor with its events, awaitable."""

    def __init__(self, binary: Path, directory: ProxyDirectory, fake: dict[str, Any], **options: Any) -> None:
        self.events: list[SupervisorEvent] = []
        self._changed = asyncio.Event()
        options.setdefault("timing", QUICK)
        self.supervisor = Supervisor(
            name="default/web",
            binary=binary,
            bootstrap={"admin": {"address": {"pipe": {"path": str(directory.admin_socket)}}}, "fake": fake},
            directory=directory,
            on_event=self._note,
            **options,
        )

    def _note(self, event: SupervisorEvent) -> None:
        self.events.append(event)
        self._changed.set()

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    async def until(self, kind: str, count: int = 1) -> SupervisorEvent:
        async with asyncio.timeout(20):
            while self.kinds.count(kind) < count:
                self._changed.clear()
                await self._changed.wait()
        return [event for event in self.events if event.kind == kind][count - 1]


Watch = Callable[..., Watched]


@pytest.fixture
def watch(fake_envoy: Path, proxy: ProxyDirectory) -> Watch:
    """Make a supervisor of the stand-in: `fake` says how that behaves, `options` go to the supervisor."""

    def make(fake: dict[str, Any] | None = None, *, binary: Path = fake_envoy, **options: Any) -> Watched:
        return Watched(binary, proxy, fake or {}, **options)

    return make


@asynccontextmanager
async def running(watched: Watched) -> AsyncIterator[asyncio.Task[None]]:
    """Run the supervisor; leaving ends it as its controller's end would."""
    task = asyncio.get_running_loop().create_task(watched.supervisor.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_starts_becomes_live_and_stops(watch: Watch, proxy: ProxyDirectory) -> None:
    watched = watch(concurrency=1)
    async with running(watched) as task:
        async with asyncio.timeout(10):
            await watched.supervisor.wait_live()
        pid = watched.supervisor.pid
        assert watched.supervisor.live
        assert proxy.path.stat().st_mode & 0o777 == 0o700
        await watched.supervisor.stop()
        await task
    assert watched.kinds == ["started", "live", "stopped"]
    assert {event.pid for event in watched.events} == {pid}
    assert pid is not None
    assert start_time(pid) is None
    assert watched.supervisor.pid is None
    assert not watched.supervisor.live
    assert load_state(proxy.state) is None


async def test_a_crashed_envoy_comes_back(watch: Watch) -> None:
    watched = watch()
    async with running(watched):
        first = await watched.until("live")
        watched.supervisor._process.signal(signal.SIGKILL)  # type: ignore[union-attr]
        second = await watched.until("live", 2)
        assert first.pid != second.pid
        assert watched.kinds == ["started", "live", "died", "started", "live"]
        assert watched.events[2].text == "Envoy was killed, by somebody or for lack of memory"
        assert watched.supervisor.restarts == 1


async def test_the_delay_doubles_up_to_its_bound_with_jitter(watch: Watch) -> None:
    watched = watch({"exit": 0}, jitter=lambda: 1.0)
    async with running(watched):
        await watched.until("died", 4)
    delays = [event.delay for event in watched.events if event.kind == "died"]
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.2])
    low = watch({"exit": 0}, jitter=lambda: 0.0)
    async with running(low):
        assert (await low.until("died")).delay == pytest.approx(0.025)


async def test_a_long_life_resets_the_delay(watch: Watch) -> None:
    timing = msgspec.structs.replace(QUICK, healthy_after=0.0)
    watched = watch({"lives": 0.05}, jitter=lambda: 1.0, timing=timing)
    async with running(watched):
        await watched.until("died", 3)
    assert [event.delay for event in watched.events if event.kind == "died"] == pytest.approx([0.05] * 3)


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        (
            {"exit": 1, "log": ["[t][1][critical][main] [s:1] error `no such field: 'x'` initializing config 'c"]},
            "default/web: Envoy rejected its bootstrap: no such field: 'x'",
        ),
        (
            {"exit": 1, "log": ["[t][1][critical][main] [s:1] cannot bind '127.0.0.1:80': Address already in use"]},
            "127.0.0.1:80 is in use",
        ),
        ({"signal": int(signal.SIGILL)}, "this CPU lacks instructions"),
    ],
)
async def test_a_lasting_cause_ends_it_with_an_explanation(watch: Watch, fake: dict[str, Any], message: str) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(EnvoyFailedError, match=message) as caught:
            await watch(fake).supervisor.run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("detach", [False, True])
async def test_a_binary_that_cannot_run_is_explained(watch: Watch, tmp_path: Path, *, detach: bool) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    with pytest.raises(EnvoyFailedError, match=r"cannot run .*--envoy"):
        await watch(binary=text, detach=detach).supervisor.run()
    with pytest.raises(EnvoyFailedError, match=r"cannot run .*No such file"):
        await watch(binary=tmp_path / "none", detach=detach).supervisor.run()


async def test_an_envoy_that_never_answers_is_killed_and_started_again(watch: Watch) -> None:
    watched = watch({"silent": True}, timing=msgspec.structs.replace(QUICK, answer_within=0.3))
    async with running(watched):
        await watched.until("started", 2)
        assert not watched.supervisor.live
    assert watched.kinds[:3] == ["started", "died", "started"]


async def test_an_envoy_without_configuration_is_not_live_and_not_killed_for_it(watch: Watch) -> None:
    first = watch({"state": "INITIALIZING"}, detach=True)
    async with running(first):
        pid = (await first.until("started")).pid
        await eventually(first.supervisor.admin.state, what="the admin interface answers", within=20)
        assert not first.supervisor.live
    patience = msgspec.structs.replace(QUICK, answer_within=0.0)
    second = watch({"state": "INITIALIZING"}, detach=True, timing=patience)
    async with running(second):
        await second.until("adopted")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await second.supervisor.wait_live()
        assert second.supervisor.pid == pid
        assert second.kinds == ["adopted"]
        await second.supervisor.stop()


async def posts(proxy: ProxyDirectory) -> list[str]:
    return [line for line in proxy.log.read_text().splitlines() if line.startswith("POST")]


async def test_stopping_drains_until_connections_are_gone(watch: Watch, proxy: ProxyDirectory) -> None:
    timing = msgspec.structs.replace(QUICK, drain_within=30.0)
    watched = watch({"connections": 2, "until_drain": True}, timing=timing)
    async with running(watched), asyncio.timeout(10):
        await watched.supervisor.wait_live()
        await watched.supervisor.stop()
    assert await posts(proxy) == ["POST /drain_listeners?graceful", "POST /drain_listeners"]
    assert watched.kinds[-1] == "stopped"


async def test_connections_that_stay_hold_up_a_stop_only_so_long(watch: Watch) -> None:
    watched = watch({"connections": 2})
    async with running(watched), asyncio.timeout(10):
        await watched.supervisor.wait_live()
        await watched.supervisor.stop()
    assert watched.kinds[-1] == "stopped"


async def test_an_envoy_deaf_to_sigterm_is_killed(watch: Watch) -> None:
    watched = watch({"deaf": True}, timing=msgspec.structs.replace(QUICK, kill_after=0.2))
    async with running(watched), asyncio.timeout(10):
        pid = (await watched.until("live")).pid
        await watched.supervisor.stop()
    assert start_time(pid) is None


async def test_stopping_during_a_back_off_does_not_wait_for_it(watch: Watch) -> None:
    timing = msgspec.structs.replace(QUICK, first_delay=60.0, longest_delay=60.0)
    watched = watch({"exit": 0}, timing=timing)
    async with running(watched) as task, asyncio.timeout(10):
        await watched.until("died")
        await watched.supervisor.stop()
        await task
    assert (watched.kinds.count("died"), watched.kinds[-1]) == (1, "died"), "nothing was started again"


async def test_a_stop_before_the_start_starts_nothing(watch: Watch) -> None:
    watched = watch()
    await watched.supervisor.stop()
    await watched.supervisor.run()
    assert watched.events == []


async def test_cancelling_ends_an_attached_envoy(watch: Watch, proxy: ProxyDirectory) -> None:
    watched = watch()
    async with running(watched):
        pid = (await watched.until("live")).pid
    assert start_time(pid) is None
    assert not proxy.state.exists()


async def test_a_detached_envoy_is_left_serving_and_taken_over(watch: Watch) -> None:
    first = watch(detach=True)
    async with running(first):
        pid = (await first.until("live")).pid
    assert first.kinds == ["started", "live", "left"]
    assert start_time(pid) is not None
    second = watch(detach=True)
    async with running(second), asyncio.timeout(10):
        assert (await second.until("live")).pid == pid
        assert second.kinds == ["adopted", "live"]
        await second.supervisor.stop()
    assert start_time(pid) is None


async def test_an_adopted_envoy_that_dies_is_replaced(watch: Watch) -> None:
    first = watch(detach=True)
    async with running(first):
        await first.until("live")
    second = watch(detach=True)
    async with running(second):
        await second.until("live")
        second.supervisor._process.signal(signal.SIGKILL)  # type: ignore[union-attr]
        await second.until("live", 2)
        assert second.kinds == ["adopted", "live", "died", "started", "live"]
        await second.supervisor.stop()


@pytest.mark.parametrize("options", [{"detach": True, "concurrency": 2}, {"detach": False}])
async def test_an_envoy_left_with_other_settings_is_replaced(watch: Watch, options: dict[str, Any]) -> None:
    first = watch(detach=True)
    async with running(first):
        pid = (await first.until("live")).pid
    second = watch(**options)
    async with running(second), asyncio.timeout(10):
        assert (await second.until("live")).pid != pid
        assert start_time(pid) is None
        assert second.kinds == ["started", "live"]
        await second.supervisor.stop()


async def test_the_leftover_of_a_gateway_that_is_gone_is_ended(watch: Watch, proxy: ProxyDirectory) -> None:
    first = watch(detach=True)
    async with running(first):
        pid = (await first.until("live")).pid
    assert await watch().supervisor.end_leftover()
    assert start_time(pid) is None
    assert not await watch().supervisor.end_leftover()
    proxy.state.write_text("garbage")
    assert not await watch().supervisor.end_leftover()
    assert not proxy.state.exists()


async def test_the_arguments_switch_hot_restart_off(watch: Watch, proxy: ProxyDirectory, tmp_path: Path) -> None:
    binary = tmp_path / "spy"
    binary.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    binary.chmod(0o755)
    watched = watch(binary=binary, concurrency=3, log_level="debug")
    async with running(watched):
        await watched.until("died")
    arguments = (tmp_path / "arguments").read_text()
    assert "--disable-hot-restart" in arguments
    assert "--concurrency 3" in arguments
    assert "--log-level debug" in arguments
    assert json.loads(proxy.bootstrap.read_bytes())["admin"]


def test_a_log_grown_too_large_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    assert supervise._trim_log(log) == 0
    log.write_text("x" * 100)
    assert supervise._trim_log(log) == 100
    monkeypatch.setattr(supervise, "_LARGEST_LOG", 99)
    assert supervise._trim_log(log) == 0
    assert log.stat().st_size == 0
