"""What a standalone instance shows of itself, and when: changes in quick succession are drawn as one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from meshgw.api.meta import Key, ObjectRef
from meshgw.control import Control
from meshgw.diagnose.render import render_finding
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Gateway
from meshgw.ir.status import GatewayStatus
from meshgw.resolve import tables as t
from meshgw.standalone.board import SHOWN, Board, GatewayLine, Picture

_REDRAW = 0.05
"""Seconds in which changes of the table are drawn as one."""
_REDRAW_REST = 20
"""Times what the last drawing took: at least so long the loop is free for changes before the next one."""


class Drawing:
    """Shows what `paint` returns on a board, some time after each call of `schedule`."""

    def __init__(self, board: Board, paint: Callable[[], Picture]) -> None:
        self._board, self._paint = board, paint
        self._timer: asyncio.TimerHandle | None = None
        self._took = 0.0

    def schedule(self) -> None:
        """Draw soon."""
        with contextlib.suppress(RuntimeError):  # no loop yet: the first draw follows the start
            if self._timer is None:
                wait = max(_REDRAW, _REDRAW_REST * self._took)
                self._timer = asyncio.get_running_loop().call_later(wait, self._draw)

    def close(self) -> None:
        """Leave the terminal in order."""
        self._board.close()

    def _draw(self) -> None:
        self._timer = None
        began = time.perf_counter()
        self._board.show(self._paint())
        self._took = time.perf_counter() - began


def paint_picture(control: Control, findings: Sequence[Finding], proxies: Mapping[Key, str]) -> Picture:
    """Return what there is to see; `proxies` are the states of the Gateways' proxies."""
    rows: Iterable[tuple[Key, Gateway]] = sorted(control.graph.rows(t.OUR_GATEWAYS).items())
    lines = tuple(_line(control, key, row, proxies.get(key, "-")) for key, row in rows)
    shown = tuple(render_finding(finding) for finding in findings[:SHOWN])
    return Picture(gateways=lines, findings=shown, more=len(findings) - len(shown))


def _line(control: Control, key: Key, row: Gateway, proxy: str) -> GatewayLine:
    status = control.graph.get(t.STATUSES, ObjectRef("Gateway", *key))
    binding = control.binding(key)
    conditions = status.conditions if isinstance(status, GatewayStatus) else ()
    programmed = next((c for c in conditions if c.type == "Programmed"), None)
    accepted = next((c for c in conditions if c.type == "Accepted"), None)
    bad = next((c for c in (accepted, programmed) if c is not None and not c.status), None)
    counts = (
        control.graph.get(t.ATTACHED_COUNTS, listener) or 0
        for listener, _row in control.graph.by(t.LISTENERS, "gateway", key)
    )
    ports = sorted(control.endpoints(row), key=lambda endpoint: (endpoint[1], endpoint[0]))
    return GatewayLine(
        namespace=key.namespace,
        name=key.name,
        role=row.role.value if row.role else "unknown",
        address=",".join(binding.addresses),
        ports=tuple(str(binding.port(port)) + ("/udp" if kind == "udp" else "") for kind, port in ports),
        programmed=bool(programmed and programmed.status),
        routes=sum(counts),
        proxy=proxy,
        reason=f"{bad.reason}: {bad.message}" if bad else "",
    )
