"""What a standalone instance shows of itself."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from meshgw.standalone.board import COLUMNS, GatewayLine, JsonBoard, Picture, TableBoard, render

LINE = GatewayLine(
    namespace="default",
    name="[red]gw[/]",
    role="ingress",
    address="127.0.0.1",
    ports=("80", "443"),
    programmed=True,
    routes=2,
    proxy="live",
)
FINDING = {"code": "MG2001", "level": "error", "object": "HTTPRoute default/a", "field": "spec", "message": "absent"}
PICTURE = Picture(gateways=(LINE,), findings=(FINDING,), more=3)


def drawn(picture: Picture) -> str:
    console = Console(width=200, no_color=True, markup=False)
    with console.capture() as capture:
        console.print(render(picture))
    return capture.get()


def test_a_gateway_is_a_line_and_findings_stand_below() -> None:
    header, line, _blank, _titles, finding, more = (text.rstrip() for text in drawn(PICTURE).splitlines())
    assert header.split() == list(COLUMNS)
    assert line.split() == ["default", "[red]gw[/]", "ingress", "127.0.0.1", "80,443", "True", "2", "live"]
    assert finding.split() == ["MG2001", "error", "HTTPRoute", "default/a", "spec", "absent"]
    assert more == "and 3 more: meshgw analyze"


def test_without_findings_there_is_only_the_table() -> None:
    assert len(drawn(Picture(gateways=(LINE,))).splitlines()) == 2


def test_json_is_a_line_for_each_new_picture(capsys: pytest.CaptureFixture[str]) -> None:
    board = JsonBoard()
    for picture in (PICTURE, PICTURE, Picture()):
        board.show(picture)
    board.close()
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["gateways"][0]["name"] == "[red]gw[/]"
    assert first["more"] == 3
    assert second == {"gateways": [], "findings": [], "more": 0}


def test_off_a_terminal_a_table_is_printed_for_each_new_picture(capsys: pytest.CaptureFixture[str]) -> None:
    board = TableBoard()
    for picture in (PICTURE, PICTURE, Picture(gateways=(LINE,))):
        board.show(picture)
    board.close()
    out = capsys.readouterr().out
    assert out.count("NAMESPACE") == 2
    assert "\x1b" not in out
