"""`meshgw version`: what is installed."""

from __future__ import annotations

import json

import yaml
from click.testing import CliRunner

from meshgw import __version__
from meshgw.cli.main import main
from meshgw.standalone.wheels import ENVOY_VERSION


def test_every_form_names_meshgw_and_its_envoy() -> None:
    found = {form: CliRunner().invoke(main, ["version", "-o", form]).output for form in ("table", "json", "yaml")}
    assert json.loads(found["json"]) == yaml.safe_load(found["yaml"])
    rows = json.loads(found["json"])
    assert (rows["meshgw"], rows["envoy (managed)"]) == (__version__, ENVOY_VERSION)
    assert all(value in found["table"] for value in rows.values())


def test_the_flag_prints_the_version_alone() -> None:
    done = CliRunner().invoke(main, ["--version"])
    assert done.output.strip()
    assert len(done.output.split()) == 1
