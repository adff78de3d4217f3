"""`meshgw help`: codes and commands explained."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from meshgw.cli.main import VERBS, main
from meshgw.ir.codes import CODES


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["help", *arguments])
    assert done.exit_code == 0
    return done.output


def test_a_code_is_explained_in_any_case() -> None:
    text = shown("mg1001")
    assert text.startswith("MG1001 (error): No matching parent")
    assert CODES["MG1001"].remedy in text


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_programs_get_a_code_or_all_of_them(form: str, read: object) -> None:
    assert callable(read)
    assert read(shown("MG1001", "-o", form))["cause"] == CODES["MG1001"].cause
    assert [row["code"] for row in read(shown("-o", form))] == list(CODES)


def test_without_a_topic_everything_is_listed() -> None:
    text = shown()
    assert all(name in text for name in (*VERBS, *CODES))


def test_a_command_shows_its_own_help() -> None:
    assert shown("translate") == CliRunner().invoke(main, ["translate", "--help"]).output.replace("main", "meshgw")


def test_what_is_neither_is_a_usage_error() -> None:
    done = CliRunner().invoke(main, ["help", "MG0000"])
    assert done.exit_code == 2
    assert "neither a finding code nor a command" in done.output
