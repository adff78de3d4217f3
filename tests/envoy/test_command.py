"""`meshgw run` as a process: signals, crashes, and what it says when it cannot start."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import pytest

from tests.envoy.application import Command, alive, command, placed
from tests.envoy.gateway import gateway, listener, route, service, to
from tests.rig.addresses import free_port
from tests.rig.backends import Backends
from tests.rig.clients import request
from tests.rig.envoy import run_static
from tests.rig.load import Load
from tests.rig.waiting import eventually


async def start(run: Command) -> int:
    """Start it and return its Envoy's process id once it serves."""
    await run.start()
    await run.serving()
    (pid,) = run.envoys()
    return pid


async def test_sigterm_lets_requests_finish_and_leaves_nothing(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    async with command(loopback, placed(loopback), service("a", pod.address), route([to("a")])) as run:
        pid = await start(run)
        async with Load(run.target(), "/?delay=1", clients=1, limit=1) as load:
            await pod.wait_hits(1, lambda hit: "delay" in hit.path)
            assert await run.end(signal.SIGTERM) == 0
        assert load.report.failed == 0, load.report.samples
        assert not alive(pid)
        assert not run.envoys()


async def test_sigint_ends_it_too(loopback: str) -> None:
    async with command(loopback, placed(loopback)) as run:
        await run.start()
        await run.live()
        (pid,) = run.envoys()
        assert await run.end(signal.SIGINT) == 0
        assert not alive(pid)


async def test_an_envoy_does_not_outlive_a_killed_controller(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    async with command(loopback, placed(loopback), service("a", pod.address), route([to("a")])) as run:
        pid = await start(run)
        await run.end(signal.SIGKILL)
        await eventually(lambda: not alive(pid))


async def test_a_killed_controller_returns_to_detached_envoys_and_no_request_fails(
    loopback: str, backends: Backends
) -> None:
    pods = {name: await backends.echo(name) for name in "ab"}
    rest = [placed(loopback), *(service(name, pod.address) for name, pod in pods.items())]
    async with command(loopback, *rest, route([to("a")]), options=("--detach",)) as run:
        pid = await start(run)
        async with Load(run.target(), clients=2) as load, Load(run.target(), clients=1, reuse=False) as fresh:
            await load.at_least(50)
            await run.end(signal.SIGKILL)
            await load.at_least(100)
            run.write("main", *rest, route([to("b")]))
            await run.start()
            await pods["b"].wait_hits(20, within=40)
            await load.at_least(50)
        assert (load.report.failed, fresh.report.failed) == (0, 0), load.report.samples + fresh.report.samples
        assert run.envoys() == [pid]


async def test_a_detached_envoy_serves_on_after_sigterm(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    main = [placed(loopback), service("a", pod.address), route([to("a")])]
    async with command(loopback, *main, options=("--detach",)) as run:
        pid = await start(run)
        assert await run.end(signal.SIGTERM) == 0
        assert run.envoys() == [pid]
        await run.serving(within=1)
        run.options = ()
        await run.start()
        await eventually(lambda: not alive(pid), what="an attached run replaces the Envoy", within=10)
        await run.serving()
        assert await run.end(signal.SIGTERM) == 0
        assert not run.envoys()


async def test_a_translated_gateway_is_run_by_envoy_as_it_is(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    port = free_port()
    objects = [gateway(listener(port=port)), service("a", pod.address), route([to("a")])]
    async with command(loopback, *objects) as run:
        arguments = ("-m", "meshgw", "translate", "-f", str(run.path), "--to", "envoy", "-o", "json")
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        output, _errors = await process.communicate()
        assert process.returncode == 0
        async with run_static(json.loads(output)):
            assert (await request(("127.0.0.1", port), host="site.test")).pod == "a"


async def test_a_second_instance_of_the_same_files_is_refused(loopback: str) -> None:
    async with command(loopback, placed(loopback)) as run:
        await run.start()
        await run.live()
        assert run.process is not None
        second = Command(run.path, run.runtime, loopback)
        await second.start()
        assert await second.ended() == 1
        assert f"another meshgw (pid {run.process.pid}) runs in {run.runtime}; stop it" in second.errors
        assert "Traceback" not in second.errors
        assert await run.end() == 0


async def test_a_second_instance_on_the_same_address_is_refused(loopback: str) -> None:
    async with command(loopback, placed(loopback)) as run, command(loopback, placed(loopback, name="other")) as second:
        await run.start()
        await run.live()
        await second.start()
        assert await second.ended() == 1
        assert f"{loopback}:10080" in second.errors
        assert "Traceback" not in second.errors
        assert await run.end() == 0


async def test_a_port_in_use_is_told_in_one_line(loopback: str) -> None:
    squatter = await asyncio.start_server(lambda _reader, writer: writer.close(), loopback, 10_080)
    async with squatter, command(loopback, placed(loopback)) as run:
        await run.start()
        assert await run.ended() == 1
        last = run.errors.strip().splitlines()[-1]
        assert last.startswith(f"Error: {loopback}:10080/tcp is in use; stop what listens there")


@pytest.mark.parametrize("envoy", ["/nonexistent/envoy", "/bin/true"])
async def test_an_envoy_that_is_none_is_told_in_one_line(loopback: str, envoy: str) -> None:
    async with command(loopback, placed(loopback), options=("--envoy", envoy)) as run:
        await run.start()
        assert await run.ended() == 1
        assert f"Error: --envoy {envoy}" in run.errors.strip().splitlines()[-1]
