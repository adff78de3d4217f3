"""`meshgw check` as a command; `tests/unit/cluster/test_checks.py` has what it finds out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result

from meshgw.cli.main import main
from tests.rig.forwarding import Node


def run(tmp_path: Path, *arguments: str) -> Result:
    """Run it against a server that has pods and a version, and nothing else."""

    async def beside() -> Result:
        async with Node().serve(tmp_path):
            command = ["check", "--kubeconfig", str(tmp_path / "kubeconfig"), *arguments]
            return await asyncio.to_thread(CliRunner().invoke, main, command)

    return asyncio.run(beside())


def test_each_check_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.exit_code == 1
    head, *rows = done.output.splitlines()
    assert head.split() == ["STATE", "CHECK", "FOUND", "REMEDY"]
    assert {row.split()[0] for row in rows} <= {"ok", "warn", "error"}
    assert rows[0].split()[:4] == ["ok", "api", "server", "Kubernetes"]


def test_programs_get_the_same(tmp_path: Path) -> None:
    rows = json.loads(run(tmp_path, "-o", "json", "--system-namespace", "here").output)
    assert all(set(row) <= {"name", "state", "message", "remedy"} for row in rows)
    (controller,) = (row for row in rows if row["name"] == "controller")
    assert (controller["state"], controller["message"]) == ("error", "no Deployment here/meshgw")


def test_a_clock_that_differs_is_an_error(tmp_path: Path) -> None:
    """The server's is of the year 2027."""
    (clock,) = (row for row in json.loads(run(tmp_path, "-o", "json").output) if row["name"] == "clock")
    assert (clock["state"], "NTP" in clock["remedy"]) == ("error", True)
