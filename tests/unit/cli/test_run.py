"""`meshgw run`: flags become settings, and what cannot be mended here ends in one line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from meshgw.cli.main import main
from meshgw.config import RunSettings
from meshgw.standalone import application
from meshgw.standalone.envoy import EnvoyError
from meshgw.standalone.lock import InUseError


class Instance:
    """An instance that ends at once."""

    settings: list[RunSettings]
    error: Exception | None = None

    def __init__(self, settings: RunSettings, _board: object) -> None:
        self.settings.append(settings)

    async def run(self, _stop: asyncio.Event) -> None:
        if self.error is not None:
            raise ExceptionGroup("tasks", [self.error])


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Instance]:
    fake: type[Instance] = type("Fake", (Instance,), {"settings": []})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(application, "Application", fake)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", *arguments])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"paths": ("a",), "incremental": True, "metrics_port": 9970, "mesh": None, "detach": False}),
        (("-f", "b"), {"paths": ("a", "b")}),
        (("--full-rebuild", "--no-metrics", "--detach"), {"incremental": False, "metrics_port": None, "detach": True}),
        (("--port-offset", "10000", "--concurrency", "2"), {"port_offset": 10000, "concurrency": 2}),
    ],
)
def test_flags_become_settings(instance: type[Instance], arguments: tuple[str, ...], expected: dict[str, Any]) -> None:
    assert run("-f", "a", *arguments).exit_code == 0
    (settings,) = instance.settings
    assert {name: getattr(settings, name) for name in expected} == expected


def test_the_address_of_a_ca_means_a_mesh(instance: type[Instance]) -> None:
    run("-f", "a", "--mesh-ca", "localhost:15012", "--trust-domain", "prod.example")
    (settings,) = instance.settings
    assert settings.mesh is not None
    assert (settings.mesh.ca_address, settings.mesh.trust_domain) == ("localhost:15012", "prod.example")


@pytest.mark.parametrize("error", [EnvoyError("no Envoy for this platform"), InUseError("port 80 is in use")])
def test_what_cannot_be_mended_ends_in_one_line(instance: type[Instance], error: Exception) -> None:
    instance.error = error
    done = run("-f", "a")
    assert (done.exit_code, done.output) == (1, f"Error: {error}\n")


def test_files_are_required() -> None:
    done = run()
    assert done.exit_code == 2
    assert "Missing option '-f'" in done.output


def test_a_path_that_does_not_exist_is_a_usage_error(instance: type[Instance]) -> None:
    result = run("-f", "a", "-f", "nowhere")
    assert result.exit_code == 2
    assert "no such file or folder: nowhere" in result.output
    assert instance.settings == []


def test_flags_are_variables_too(instance: type[Instance]) -> None:
    environment = {"MESHGW_RUN_FILENAME": "a", "MESHGW_RUN_PORT_OFFSET": "5000"}
    assert CliRunner().invoke(main, ["run"], env=environment).exit_code == 0
    (settings,) = instance.settings
    assert (settings.paths, settings.port_offset) == (("a",), 5000)
