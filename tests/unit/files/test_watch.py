from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from meshgw.files.scan import Change, Scan, scan
from meshgw.files.watch import watch

DEADLINE = 10


async def changes(path: Path, *, since: Scan | None = None) -> AsyncGenerator[Change, None]:
    async for found in watch([path], since=since, interval=0.001):
        yield found


def settle(path: Path, age: int) -> None:
    os.utime(path, (age, age))


async def test_the_first_look_comes_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    watched = changes(tmp_path)
    first = await asyncio.wait_for(anext(watched), DEADLINE)
    assert first.files == {str(tmp_path / "a.yaml")}
    await watched.aclose()


async def test_a_change_since_a_scan_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a")
    settle(path, 1)
    since = scan([str(tmp_path)])
    path.write_text("bb")
    settle(path, 2)
    watched = changes(tmp_path, since=since)
    found = await asyncio.wait_for(anext(watched), DEADLINE)
    assert found.now.files[str(path)].size == 2
    assert found.before is since
    assert found.files == {str(path)}
    await watched.aclose()


async def test_nothing_is_reported_until_something_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a")
    settle(path, 1)
    watched = changes(tmp_path, since=scan([str(tmp_path)]))
    waiting = asyncio.ensure_future(anext(watched))  # ends below
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    path.unlink()
    found = await asyncio.wait_for(waiting, DEADLINE)
    assert found.now.files == {}
    assert found.files == {str(path)}
    await watched.aclose()


async def test_a_young_file_is_reported_again_so_that_no_change_is_missed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    watched = changes(tmp_path)
    first = await asyncio.wait_for(anext(watched), DEADLINE)
    second = await asyncio.wait_for(anext(watched), DEADLINE)
    assert first.now.unsettled
    assert second.before is first.now
    assert not second.files
    await watched.aclose()
