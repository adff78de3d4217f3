"""Reloads: what is edited is committed at once, what is gone a moment later."""

from __future__ import annotations

import asyncio
from pathlib import Path

from meshgw.control import Batch
from meshgw.observe.metrics import Metrics
from meshgw.resolve import tables as t
from meshgw.standalone.reload import Reloads
from tests.rig.waiting import eventually

NAMESPACES = "\n---\n".join(
    f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}" for name in ("first", "second")
)


class Committed:
    """Takes batches, and tells which namespaces they make."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def __call__(self, batch: Batch) -> None:
        self.batches.append(batch)

    def namespaces(self) -> set[str]:
        found: dict[str, bool] = {}
        for batch in self.batches:
            found |= {key.name: row is not None for key, row in batch.get(t.NAMESPACES, {}).items()}
        return {name for name, there in found.items() if there}


async def test_objects_must_stay_gone_for_a_moment_to_be_removed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(NAMESPACES)
    committed = Committed()
    reloads = Reloads([str(tmp_path)], committed, Metrics())
    reloads.start()
    assert committed.namespaces() == {"first", "second"}
    file.write_text("")
    reloads.reload()
    assert committed.namespaces() == {"first", "second"}
    file.write_text(NAMESPACES.replace("second", "third"))
    await eventually(lambda: committed.namespaces() == {"first", "third"})


async def test_a_stopped_one_removes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(NAMESPACES)
    committed = Committed()
    reloads = Reloads([str(tmp_path)], committed, Metrics())
    reloads.start()
    file.write_text("")
    reloads.reload()
    reloads.stop()
    await asyncio.sleep(0.15)  # longer than a removal waits
    assert committed.namespaces() == {"first", "second"}


async def test_what_breaks_is_committed_although_no_object_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(NAMESPACES)
    committed = Committed()
    reloads = Reloads([str(tmp_path)], committed, Metrics())
    reloads.start()
    file.write_text("kind: [")
    reloads.reload()
    assert committed.batches[-1] == {}
    assert [problem.code for problem in reloads.facts.problems] == ["MG9101"]
    assert committed.namespaces() == {"first", "second"}
