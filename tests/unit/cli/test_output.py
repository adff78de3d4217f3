"""Printing: stable YAML, JSON and tables without colour off a terminal."""

from __future__ import annotations

import json

import pytest
import yaml

from meshgw.cli.output import dump_yaml, write_json, write_table, write_yaml

DOCUMENT = {"b": 1, "a": ["é", "on", {"line": "x" * 200}], "text": "two\nlines"}


def test_yaml_keeps_the_order_and_comes_back_as_it_was() -> None:
    text = dump_yaml(DOCUMENT)
    assert list(yaml.safe_load(text).items()) == list(DOCUMENT.items())
    assert "é" in text


def test_one_document_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    write_json(DOCUMENT)
    assert json.loads(capsys.readouterr().out) == DOCUMENT
    write_yaml(DOCUMENT)
    assert yaml.safe_load(capsys.readouterr().out) == DOCUMENT


def test_a_table_off_a_terminal_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(("NAME", "TEXT", "LAST"), [("[red]a[/]", "x" * 5000, "z"), ("b", "y", "z")])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "TEXT", "LAST"]
    assert first.split() == ["[red]a[/]", "x" * 5000, "z"]
    assert second.split() == ["b", "y", "z"]
    assert header.index("TEXT") == first.index("x") == second.index("y")
