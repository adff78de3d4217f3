"""Logs: one event a line, on stderr, whatever the values hold."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from meshgw.observe.log import configure, get_logger


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_json_is_one_object_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure(form="json")
    get_logger("files").info("loaded", path='a\n{"event": "faked"}')
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    event = json.loads(line)
    assert out == ""
    assert (event["event"], event["part"], event["level"]) == ("loaded", "files", "info")
    assert event["path"] == 'a\n{"event": "faked"}'


def test_off_a_terminal_json_is_chosen_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    get_logger("xds").warning("refused")
    assert json.loads(capsys.readouterr().err)["event"] == "refused"


def test_people_get_lines_of_their_own_when_they_ask(capsys: pytest.CaptureFixture[str]) -> None:
    configure(form="console")
    get_logger("xds").info("pushed", size=3)
    line = capsys.readouterr().err
    assert "pushed" in line
    assert "size=3" in line
    assert not line.startswith("{")


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure(level="warning", form="json")
    get_logger("xds").info("quiet")
    get_logger("xds").error("loud")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "loud"
