"""What is shown, and when."""

from __future__ import annotations

import asyncio

from meshgw.control import Control
from meshgw.ir.gateway import Settings
from meshgw.observe.metrics import Metrics
from meshgw.standalone.addresses import LoopbackPlacing
from meshgw.standalone.board import Picture
from meshgw.standalone.facts import read_text
from meshgw.standalone.picture import Drawing, paint_picture

GATEWAYS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  gatewayClassName: meshgw
  listeners: [{name: http, port: 80, protocol: HTTP}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: odd, namespace: default, labels: {meshgw.dev/role: unheard-of}}
spec:
  gatewayClassName: meshgw
  listeners: [{name: http, port: 80, protocol: HTTP}]
"""


class Board:
    """Counts what it is shown."""

    def __init__(self) -> None:
        self.shown: list[Picture] = []
        self.drawn = asyncio.Event()

    def show(self, picture: Picture) -> None:
        self.shown.append(picture)
        self.drawn.set()

    def close(self) -> None:
        self.shown.clear()


def test_every_gateway_is_a_line_with_its_ports_and_the_worst_reason() -> None:
    control = Control(
        settings=Settings(), placing=LoopbackPlacing(10_000), publish=lambda _key, _rows: None, metrics=Metrics()
    )
    control.commit(read_text(GATEWAYS)[0])
    findings = control.findings()
    picture = paint_picture(control, findings, {("default", "gw"): "live"})
    served, refused = picture.gateways
    assert (served.ports, served.proxy, served.address) == (("10053/udp", "10080"), "live", "127.0.0.1")
    assert (served.programmed, served.reason) == (True, "")
    assert (refused.role, refused.proxy, refused.programmed) == ("unknown", "-", False)
    assert refused.reason.startswith("Invalid: ")
    assert [found["code"] for found in picture.findings] == [finding.code for finding in findings]


async def test_changes_in_quick_succession_are_drawn_as_one() -> None:
    board = Board()
    drawing = Drawing(board, Picture)
    for _ in range(3):
        drawing.schedule()
    await board.drawn.wait()
    assert board.shown == [Picture()]
    board.drawn.clear()
    drawing.schedule()
    await board.drawn.wait()
    assert len(board.shown) == 2


def test_without_a_loop_nothing_is_drawn() -> None:
    board = Board()
    Drawing(board, Picture).schedule()
    assert board.shown == []
