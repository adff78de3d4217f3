"""The example folders are right, and the ambient one is what the demo runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgw.diagnose.render import render_findings
from meshgw.standalone.offline import evaluate

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "manifests" / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())


def test_there_are_examples() -> None:
    assert {folder.name for folder in FOLDERS} >= {"ambient", "ingress"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_has_no_errors_and_a_gateway_with_resources(folder: Path) -> None:
    found = evaluate([str(folder)], mesh=True)
    errors = [row for row in render_findings(found.graph, found.problems) if row["level"] == "error"]
    assert errors == []
    assert found.gateways
    for gateway in found.gateways:
        assert found.resources(gateway)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_explains_each_of_its_files(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    files = [path.name for path in folder.glob("*.yaml")]
    assert files
    assert [name for name in files if f"`{name}`" not in readme] == []


def test_the_ambient_example_is_what_the_demo_runs() -> None:
    shipped = ROOT / "meshgw" / "demo" / "manifests"
    assert _texts(EXAMPLES / "ambient") == _texts(shipped)


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.yaml")}
