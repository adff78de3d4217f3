"""The sequence of checks, and the edit they make."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import yaml

from meshgw.demo import checks as module
from meshgw.demo.checks import CHECKS, Check, run_checks, with_weights
from meshgw.demo.mesh import Mesh
from meshgw.demo.plan import ROUTE_FILE, Plan, write_manifests
from meshgw.demo.verdict import Outcome

NO_MESH = cast("Mesh", None)


def test_the_edit_changes_both_weights_of_the_shipped_route(tmp_path: Path) -> None:
    write_manifests(Plan(), tmp_path)
    text = (tmp_path / ROUTE_FILE).read_text()
    before, after = yaml.safe_load(text), yaml.safe_load(with_weights(text, 0, 100))
    assert [backend["weight"] for backend in before["spec"]["rules"][1]["backendRefs"]] == [90, 10]
    assert [backend["weight"] for backend in after["spec"]["rules"][1]["backendRefs"]] == [0, 100]
    assert after["spec"]["rules"][0] == before["spec"]["rules"][0]


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "route.yaml"
    path.write_text("old")
    module._save(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_names_are_unique() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)


async def test_a_check_that_raises_fails_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fine(_mesh: Mesh) -> Outcome:
        return Outcome(name="other", expected="e", observed="o", passed=True)

    async def unreachable(_mesh: Mesh) -> Outcome:
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(module, "CHECKS", (Check("first", unreachable), Check("second", fine)))
    said: list[str] = []
    outcomes = [outcome async for outcome in run_checks(NO_MESH, said.append)]
    assert [(outcome.name, outcome.passed) for outcome in outcomes] == [("first", False), ("second", True)]
    assert outcomes[0].observed == "nobody there"
    assert said == ["checking: first", "checking: second"]
