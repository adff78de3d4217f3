"""The generated manifests are those that are committed, and the hand-written ones agree with the code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshgw import __version__
from meshgw.install.__main__ import main
from meshgw.install.generate import CHARTS, chart_readme, dump, generate, list_values
from meshgw.install.rules import HOME, NAME
from meshgw.pipeline import list_kinds

MANIFESTS = Path(__file__).parents[3] / "manifests"


def _sources() -> dict[str, str]:
    paths = (path for path in MANIFESTS.rglob("*") if path.is_file())
    return {str(path.relative_to(MANIFESTS)): path.read_text() for path in paths}


def _load(path: str) -> Any:
    return yaml.safe_load((MANIFESTS / path).read_text())


def test_what_is_committed_is_what_is_generated() -> None:
    sources = _sources()
    stale = [path for path, text in generate(list_kinds().kinds, sources).items() if sources.get(path) != text]
    assert stale == [], "make manifests"


def test_make_manifests_writes_what_differs_and_drops_what_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, folder)
    (folder / "base" / "rbac.yaml").unlink()
    (folder / "crds").mkdir(exist_ok=True)
    (folder / "crds" / "new.yaml").write_text("kind: CustomResourceDefinition\n")
    (folder / "charts/meshgw-crds/files").mkdir(exist_ok=True)
    (folder / "charts/meshgw-crds/files/old.yaml").write_text("kind: CustomResourceDefinition\n")
    main(folder)
    assert "base/rbac.yaml" in capsys.readouterr().out
    assert (folder / "base/rbac.yaml").read_text() == (MANIFESTS / "base/rbac.yaml").read_text()
    assert (folder / "charts/meshgw-crds/files/new.yaml").exists()
    assert not (folder / "charts/meshgw-crds/files/old.yaml").exists()
    assert "new.yaml" in yaml.safe_load((folder / "crds/kustomization.yaml").read_text())["resources"]
    main(folder)
    assert capsys.readouterr().out == ""


def test_versions_are_those_of_the_package() -> None:
    for chart in CHARTS:
        document = _load(f"charts/{chart}/Chart.yaml")
        assert (document["version"], document["appVersion"]) == (__version__, __version__)
    (container,) = _load("base/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{_load('charts/meshgw/values.yaml')['image']['repository']}:{__version__}"


def test_the_deployment_meets_the_restricted_pod_security_standard() -> None:
    pod = _load("base/deployment.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert _load("base/namespace.yaml")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_names_are_those_of_the_rules() -> None:
    account = _load("base/account.yaml")["metadata"]
    assert (account["namespace"], account["name"]) == (HOME, NAME)
    assert _load("base/deployment.yaml")["spec"]["template"]["spec"]["serviceAccountName"] == NAME


def test_every_value_is_documented_and_every_documented_value_has_a_schema() -> None:
    text = (MANIFESTS / "charts/meshgw/values.yaml").read_text()
    documented = {key for key, _default, _meaning in list_values(text)}
    values, schema = yaml.safe_load(text), json.loads((MANIFESTS / "charts/meshgw/values.schema.json").read_text())
    assert _undocumented(values, documented) == []
    assert [key for key in sorted(documented) if not _in_schema(schema, key.split("."))] == []


def _undocumented(values: dict[str, Any], documented: set[str], prefix: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in documented:
            continue
        found += _undocumented(value, documented, f"{key}.") if isinstance(value, dict) and value else [key]
    return found


def _in_schema(schema: dict[str, Any], keys: list[str]) -> bool:
    for key in keys:
        if key not in schema.get("properties", {}):
            return False
        schema = schema["properties"][key]
    return True


def test_values_are_listed_with_defaults_and_comments() -> None:
    text = "# Not about a key.\n\n# One\n# or two.\na: 1\nb:\n  # A | B.\n  c: [x]\n  d: 2\n"
    assert list_values(text) == [("a", "1", "One or two."), ("b.c", '["x"]', "A \\| B.")]


def test_a_chart_without_values_has_no_table() -> None:
    text = chart_readme({"name": "n", "version": "1", "description": "What it is."}, "")
    assert "What it is." in text
    assert "|" not in text


def test_documents_are_a_stream() -> None:
    assert list(yaml.safe_load_all(dump({"a": 1}, {"b": 2}))) == [{"a": 1}, {"b": 2}]
