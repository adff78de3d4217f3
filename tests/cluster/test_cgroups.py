"""Cgroups of clusters: by the kernel of this machine where it has the version, by what a machine says of its mounts."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import cgroups

HYBRID = """\
25 20 0:22 / /sys rw - sysfs sysfs rw
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = """\
25 20 0:22 / /sys rw - sysfs sysfs rw
30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""
NAME = "cluster"


@pytest.mark.parametrize(
    ("mounts", "first", "second"),
    [(HYBRID, ["cpu", "memory"], ["unified"]), (UNIFIED, [], [""])],
    ids=["hybrid", "unified"],
)
def test_hierarchies_are_told_by_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mounts: str, first: list[str], second: list[str]
) -> None:
    (tmp_path / "mountinfo").write_text(mounts)
    monkeypatch.setattr(cgroups, "_MOUNTS", tmp_path / "mountinfo")
    root = Path("/sys/fs/cgroup")
    assert cgroups.hierarchies() == [root / name for name in first]
    assert cgroups.hierarchies(version=2) == [root / name for name in second]


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cgroup of version 2 that stands for the root of a machine that has no other, as in a container."""
    if os.geteuid() != 0:
        pytest.skip("cgroups are made by root")
    roots = cgroups.hierarchies(version=2)
    offered = (roots[0] / "cgroup.controllers").read_text().split() if roots else []
    if not offered:
        pytest.skip("no controller of this machine is in a hierarchy of version 2")
    control = roots[0] / "cgroup.subtree_control"
    lent = next((name for name in offered if name in control.read_text().split()), "")
    if not lent:
        control.write_text(f"+{offered[0]}")
    folder = roots[0] / f"meshgw-test-{os.getpid()}"
    folder.mkdir()
    monkeypatch.setattr(cgroups, "_UNIFIED", folder)
    monkeypatch.setattr(cgroups, "hierarchies", lambda version=1: [])
    try:
        yield folder
    finally:
        for base, _, _ in os.walk(folder, topdown=False):
            Path(base).rmdir()
        if not lent:
            with contextlib.suppress(OSError):  # somebody else has come to use it
                control.write_text(f"-{offered[0]}")


def pids(folder: Path) -> set[str]:
    return set((folder / "cgroup.procs").read_text().split())


def controllers(folder: Path) -> set[str]:
    return set((folder / "cgroup.controllers").read_text().split())


def test_a_cluster_gets_all_controllers_though_processes_are_in_the_root(box: Path) -> None:
    """The kernel lets no cgroup with processes pass on controllers: they go to a leaf, and live on."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            (box / "cgroup.procs").write_text(str(process.pid))
            cgroups.create(NAME)
            assert controllers(box / NAME) == controllers(box) != set()
            assert pids(box) == set()
            assert pids(box / "init") == {str(process.pid)}
            cgroups.create("another")
            (box / NAME / "pod").mkdir()
            assert cgroups.remove(NAME) == cgroups.remove("another") == []
            assert not (box / NAME).exists()
            assert process.poll() is None
        finally:
            process.kill()


def test_a_machine_with_both_versions_is_left_without_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """runc makes cgroups in the second version too, which kubelet knows nothing of."""
    places = {version: tmp_path / f"v{version}" for version in (1, 2)}
    monkeypatch.setattr(cgroups, "hierarchies", lambda version=1: [places[version]])
    for place in places.values():
        (place / NAME / "kubepods").mkdir(parents=True)
    assert cgroups.remove(NAME) == []
    assert [list(place.iterdir()) for place in places.values()] == [[], []]


def test_what_still_runs_keeps_its_cgroup_and_is_named(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_LIMIT", 0.2)
    cgroups.create(NAME)
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            (box / NAME / "cgroup.procs").write_text(str(process.pid))
            assert cgroups.remove(NAME) == [box / NAME]
        finally:
            process.kill()
    assert cgroups.remove(NAME) == []
