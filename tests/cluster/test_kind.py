from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import docker, kind, kind_config, node_image, runtime
from tests.cluster.cluster import Cluster
from tests.cluster.keeper import Plot
from tests.cluster.kind import KindCluster
from tests.cluster.namespaces import ROOT
from tests.cluster.programs import PROGRAMS
from tests.cluster.remains import left_of
from tests.rig.waiting import eventually

PLOT = Plot(7)


def test_machine_that_cannot_run_kind_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in (kind.why_not() or "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    assert (kind.why_not() or "").endswith("apt-get install mmdebstrap iptables")
    assert "docker.io" in (kind.why_not() or "")


@pytest.mark.parametrize("shape", kind_config.shapes())
def test_every_shape_has_addresses_of_the_plot(shape: str, tmp_path: Path) -> None:
    document = kind_config.read_shape(shape)
    made = kind_config.configure(document, PLOT, folder=tmp_path, cgroup_v1=False)
    assert made["name"] == PLOT.name
    assert made["networking"]["podSubnet"].split(",")[0] == PLOT.pods
    assert made["networking"]["serviceSubnet"].split(",")[0] == PLOT.services
    assert made["networking"]["podSubnet"].count(",") == kind_config.is_dual(document)
    assert made["nodes"] == document["nodes"]
    assert [yaml.safe_load(patch)["kind"] for patch in made["kubeadmConfigPatches"]] == ["KubeProxyConfiguration"]


def test_nodes_of_our_image_share_the_addresses_of_pods(tmp_path: Path) -> None:
    document = kind_config.read_shape("ha")
    made = kind_config.configure(document, PLOT, image="node:1", folder=tmp_path, cgroup_v1=True)
    nodes = kind_config.list_nodes(document, PLOT)
    assert [node.name for node in nodes] == [
        f"{PLOT.name}-{rest}" for rest in ("control-plane", "control-plane2", "control-plane3", "worker", "worker2")
    ]
    shares = [json.loads(Path(row["extraMounts"][0]["hostPath"]).read_text()) for row in made["nodes"]]
    ranges = [share["plugins"][0]["ipam"]["ranges"] for share in shares]
    assert ranges == [[[{"subnet": f"10.199.{number}.0/24"}]] for number in range(5)]
    assert [node.pods for node in nodes] == [(f"10.199.{number}.0/24",) for number in range(5)]
    assert {row["image"] for row in made["nodes"]} == {"node:1"}
    assert made["networking"]["disableDefaultCNI"] is True
    kinds = [yaml.safe_load(patch)["kind"] for patch in made["kubeadmConfigPatches"]]
    assert kinds == ["KubeProxyConfiguration", "KubeletConfiguration", "ClusterConfiguration"]


def test_container_asks_for_no_more_than_the_machine_has(tmp_path: Path) -> None:
    process: dict[str, Any] = {
        "capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"], "effective": ["CAP_SYS_RESOURCE"]},
        "oomScoreAdj": -999,
    }
    limited = {"capabilities": {"bounding": ["CAP_CHOWN"], "effective": []}, "oomScoreAdj": 0}
    (tmp_path / "config.json").write_text(json.dumps({"process": process, "root": {}}))
    runtime.limit_files(["--root", "/r", "create", "--bundle", str(tmp_path), "name"])
    assert json.loads((tmp_path / "config.json").read_text()) == {"process": limited, "root": {}}
    (tmp_path / "process.json").write_text(json.dumps(process))
    runtime.limit_files(["exec", "--process", str(tmp_path / "process.json"), "name"])
    assert json.loads((tmp_path / "process.json").read_text()) == limited


def test_what_comes_afterwards_comes_with_the_end_of_who_waits(tmp_path: Path) -> None:
    marks = [str(tmp_path / name) for name in ("first", "last")]
    commands = json.dumps([["touch", marks[0]], ["false"], ["touch", marks[1]]])
    script = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-m', 'tests.cluster.afterwards', {commands!r}], stdin=subprocess.PIPE)\n"
        "print('waiting', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"waiting\n"
        assert not Path(marks[0]).exists()
        run.kill()
        assert run.stderr is not None
        assert b"false" in run.stderr.read()  # ends with the one that waited
    assert [Path(mark).exists() for mark in marks] == [True, True]


def test_name_of_the_node_image_says_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = node_image.name()
    assert before == node_image.name()
    program = PROGRAMS["node"]
    monkeypatch.setitem(PROGRAMS, "node", program._replace(ldflags="-X a.b=c"))
    assert node_image.name() != before


@pytest.mark.smoke
def test_nodes_are_those_of_the_shape(cluster: Cluster, request: pytest.FixtureRequest) -> None:
    if not isinstance(cluster, KindCluster):
        pytest.skip("only a cluster of kind has a shape")
    shape = kind_config.read_shape(request.config.option.kind_config)
    found = cluster.get("nodes")["items"]
    roles = ["node-role.kubernetes.io/control-plane" in row["metadata"]["labels"] for row in found]
    assert sorted(roles) == sorted(row["role"] == "control-plane" for row in shape["nodes"])
    assert {row["metadata"]["name"] for row in found} == {node.name for node in cluster.nodes}
    for described, row in zip(cluster.nodes, shape["nodes"], strict=True):
        (node,) = (row for row in found if row["metadata"]["name"] == described.name)
        assert row.get("labels", {}).items() <= node["metadata"]["labels"].items()


_RUN = """
import time
from tests.cluster.docker import run_private_docker
with run_private_docker() as daemon:
    print(daemon.plot.number, daemon.folder, daemon.environ["DOCKER_HOST"], flush=True)
    time.sleep(600)
"""


@pytest.mark.cluster
async def test_nothing_is_left_of_a_private_daemon_when_the_tests_crash() -> None:
    if cause := docker.why_not():
        pytest.skip(cause)
    run = await asyncio.create_subprocess_exec(sys.executable, "-c", _RUN, stdout=subprocess.PIPE, cwd=ROOT)
    assert run.stdout is not None
    try:
        async with asyncio.timeout(60):
            number, folder, host = (await run.stdout.readline()).decode().split()
        plot = Plot(int(number))
        ask = ["docker", "network", "inspect", docker.NETWORK]
        environ = {**os.environ, "DOCKER_HOST": host}
        said = await asyncio.to_thread(subprocess.run, ask, env=environ, capture_output=True, check=True)
        assert plot.machines in said.stdout.decode()
        assert len(await asyncio.to_thread(left_of, plot, Path(folder))) > 3, "the folder, an interface, processes"
    finally:
        run.kill()
        await run.wait()
    await eventually(lambda: not left_of(plot, Path(folder)), what="nothing is left", within=20)
