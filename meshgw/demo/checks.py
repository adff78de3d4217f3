"""The checks of the demo, in the order they are made and shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from meshgw.demo.client import Connection, Greeting, Load, Sample, greet
from meshgw.demo.mesh import Mesh
from meshgw.demo.plan import ROUTE_FILE, WAYPOINT, Client
from meshgw.demo.verdict import (
    LIVE_WITHIN,
    SPLIT_REQUESTS,
    Edit,
    Outcome,
    broken,
    judge_allowed,
    judge_bypass,
    judge_denied,
    judge_edits,
    judge_greeting,
    judge_header,
    judge_intruder,
    judge_rotation,
    judge_split,
)
from meshgw.names import HBONE_PORT

_HEADER_REQUESTS: Final = 20
_EDITS: Final = 5
_SETTLE: Final = 0.3
"""Seconds of load before and after what happens under it."""
_ROTATED_WITHIN: Final = 5.0


class Check(NamedTuple):
    """A check by name."""

    name: str
    run: Callable[[Mesh], Awaitable[Outcome]]


async def run_checks(mesh: Mesh, progress: Callable[[str], None]) -> AsyncIterator[Outcome]:
    """Make all checks; one that cannot be made is a failed one."""
    clock = asyncio.get_running_loop().time
    for check in CHECKS:
        progress(f"checking: {check.name}")
        began = clock()
        try:
            outcome = await check.run(mesh)
        except (OSError, ValueError) as error:
            outcome = broken(check.name, error)
        yield msgspec.structs.replace(outcome, name=check.name, seconds=round(clock() - began, 3))


async def _check_allowed(mesh: Mesh) -> Outcome:
    return judge_allowed(await _ask(mesh.plan.frontend))


async def _check_denied(mesh: Mesh) -> Outcome:
    before = mesh.reached("shop-v1", "shop-v2")
    sample = await _ask(mesh.plan.stranger)
    return judge_denied(sample, reached=mesh.reached("shop-v1", "shop-v2") - before)


async def _check_split(mesh: Mesh) -> Outcome:
    async with Connection("127.0.0.1", mesh.plan.frontend.port) as connection:
        return judge_split([await connection.get() for _ in range(SPLIT_REQUESTS)])


async def _check_header(mesh: Mesh) -> Outcome:
    async with Connection("127.0.0.1", mesh.plan.frontend.port) as connection:
        return judge_header([await connection.get({"x-version": "v2"}) for _ in range(_HEADER_REQUESTS)])


async def _check_greeting(mesh: Mesh) -> Outcome:
    return judge_greeting(await _greet(mesh), mesh.plan.spiffe(WAYPOINT.name))


async def _check_intruder(mesh: Mesh) -> Outcome:
    before = mesh.reached("ledger")
    sample = await _ask(mesh.plan.bookkeeper)
    return judge_intruder(sample, reached=mesh.reached("ledger") - before)


async def _check_bypass(mesh: Mesh) -> Outcome:
    before = mesh.reached("shop-v1", "shop-v2")
    sample = await _ask(mesh.plan.bypass)
    return judge_bypass(sample, reached=mesh.reached("shop-v1", "shop-v2") - before)


async def _check_edits(mesh: Mesh) -> Outcome:
    """Move all traffic to one version and back, again and again."""
    clock = asyncio.get_running_loop().time
    path = mesh.folder / ROUTE_FILE
    original = await asyncio.to_thread(path.read_text)
    edits = []
    try:
        async with Load(mesh.plan.frontend.port) as load:
            await asyncio.sleep(_SETTLE)
            for number in range(_EDITS):
                v1, v2 = (0, 100) if number % 2 == 0 else (100, 0)
                edits.append(Edit(clock(), "shop-v2" if v2 else "shop-v1"))
                await asyncio.to_thread(_save, path, with_weights(original, v1, v2))
                await asyncio.sleep(LIVE_WITHIN + _SETTLE)
    finally:
        await asyncio.to_thread(_save, path, original)
    return judge_edits(load.samples, edits)


async def _check_rotation(mesh: Mesh) -> Outcome:
    before = await _greet(mesh)
    async with Load(mesh.plan.frontend.port) as load:
        await asyncio.sleep(_SETTLE)
        mesh.renew_certificates()
        after = await _await_rotation(mesh, before)
        await asyncio.sleep(_SETTLE)
    return judge_rotation(load.samples, before, after)


async def _await_rotation(mesh: Mesh, before: Greeting) -> Greeting:
    """Return the waypoint's greeting once its certificate is another, or as it is when that takes too long."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _ROTATED_WITHIN
    while (after := await _greet(mesh)).serial == before.serial and clock() < deadline:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.02)
    return after


CHECKS: Final = (
    Check("allowed identity", _check_allowed),
    Check("denied identity", _check_denied),
    Check("no client certificate", _check_greeting),
    Check("wrong destination identity", _check_intruder),
    Check("around the waypoint", _check_bypass),
    Check("split 90/10", _check_split),
    Check("header x-version: v2", _check_header),
    Check("route edited under load", _check_edits),
    Check("certificates rotated under load", _check_rotation),
)
"""All checks, in order."""


def with_weights(route: str, v1: int, v2: int) -> str:
    """Return the manifest of the route with other weights."""
    return route.replace("weight: 90", f"weight: {v1}").replace("weight: 10\n", f"weight: {v2}\n")


def _save(path: Path, text: str) -> None:
    """Write a file as editors do: readers see all of it or none."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


async def _ask(client: Client) -> Sample:
    async with Connection("127.0.0.1", client.port) as connection:
        return await connection.get()


async def _greet(mesh: Mesh) -> Greeting:
    return await greet(mesh.plan.waypoint, HBONE_PORT)
