"""The example folders are right, and the ambient one is what the demo runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from meshgw.diagnose.render import render_findings
from meshgw.emit.dump import dump
from meshgw.standalone.offline import evaluate
from tests.rig.readme import walk

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "manifests" / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())


def test_there_are_examples() -> None:
    assert {folder.name for folder in FOLDERS} >= {"ambient", "ingress", "walk"}


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


def test_the_walk_of_the_readme_uses_files_that_are_there() -> None:
    commands = walk()
    named = {word for command in commands for word in command.split() if word.startswith("manifests/")}
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert {path.name for path in (EXAMPLES / "walk").glob("*.yaml")} <= {Path(path).name for path in named}


def test_the_walk_shows_an_allowed_and_a_denied_request() -> None:
    outcomes = {line.partition("# ")[2] for line in walk() if " exec " in line}
    assert outcomes == {"StatusCode=200", "StatusCode=403"}


def test_the_policy_of_the_walk_decides_by_identity_and_method() -> None:
    """At the waypoint, once the Service has the label that the walk gives it."""
    text = (EXAMPLES / "walk" / "shop.yaml").read_text()
    (service,) = (document for document in text.split("---\n") if "kind: Service\n" in document)
    labelled = service.replace("  name: shop\n", "  name: shop\n  labels: {istio.io/use-waypoint: waypoint}\n", 1)
    with tempfile.TemporaryDirectory() as folder:
        for path in (EXAMPLES / "walk").glob("*.yaml"):
            shown = path.read_text().replace(
                service, labelled.replace("spec:\n", "spec:\n  clusterIP: 10.96.0.10\n", 1)
            )
            (Path(folder) / path.name).write_text(shown)
        found = evaluate([folder], mesh=True)
    warned = {row["code"] for row in render_findings(found.graph, found.problems) if row["level"] != "info"}
    assert warned == {"MG2005"}  # without a cluster nobody makes endpoints
    (gateway,) = found.gateways
    configs = "".join(str(dump(resource)) for resource in found.resources(gateway))
    assert "spiffe://cluster.local/ns/shop/sa/frontend" in configs
    assert "service/shop/shop/80" in configs


def test_the_ambient_example_is_what_the_demo_runs() -> None:
    shipped = ROOT / "meshgw" / "demo" / "manifests"
    assert _texts(EXAMPLES / "ambient") == _texts(shipped)


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.yaml")}
