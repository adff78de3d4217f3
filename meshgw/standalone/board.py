"""The table a standalone instance shows of itself: one line per Gateway, then what is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

SHOWN = 50
"""Findings in one picture: nobody reads more at a time, and drawing thousands would hold up everything else."""

COLUMNS = ("NAMESPACE", "NAME", "ROLE", "ADDRESS", "PORTS", "PROGRAMMED", "ROUTES", "PROXY", "REASON")


class GatewayLine(msgspec.Struct, frozen=True, kw_only=True):
    """One Gateway as the table shows it."""

    namespace: str
    name: str
    role: str
    address: str
    ports: tuple[str, ...]
    programmed: bool
    routes: int
    proxy: str
    reason: str = ""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All that is shown at one time; `findings` are rendered ones, the first of them, and there are so many `more`."""

    gateways: tuple[GatewayLine, ...] = ()
    findings: tuple[dict[str, str], ...] = ()
    more: int = 0


class Board(Protocol):
    """Shows pictures; showing the same one twice shows nothing."""

    def show(self, picture: Picture) -> None:
        """Show a picture."""

    def close(self) -> None:
        """Leave the terminal in order."""


class JsonBoard:
    """One JSON line for each new picture."""

    def __init__(self) -> None:
        self._last: Picture | None = None

    def show(self, picture: Picture) -> None:
        """Print the picture if it is new."""
        if picture != self._last:
            self._last = picture
            print(json.dumps(msgspec.to_builtins(picture)), flush=True)  # noqa: T201 - this is the output

    def close(self) -> None:
        """Nothing to do."""


class TableBoard:
    """A table that is redrawn in place on a terminal, and printed anew for each new picture elsewhere."""

    def __init__(self) -> None:
        self._last: Picture | None = None
        self._tty = sys.stdout.isatty()
        self._console = Console(highlight=False, markup=False, emoji=False, width=None if self._tty else 200)
        self._live = Live(console=self._console, auto_refresh=False, transient=False) if self._tty else None
        if self._live is not None:
            self._live.start()

    def show(self, picture: Picture) -> None:
        """Draw the picture if it is new."""
        if picture == self._last:
            return
        self._last = picture
        if self._live is not None:
            self._live.update(render(picture), refresh=True)
        else:
            self._console.print(render(picture))
            sys.stdout.flush()

    def close(self) -> None:
        """End the live display."""
        if self._live is not None:
            self._live.stop()


def render(picture: Picture) -> RenderableType:
    """Return the table and, below it, the findings."""
    table = _table(COLUMNS, (_cells(line) for line in picture.gateways))
    if not picture.findings:
        return table
    rows = (
        (found["code"], found["level"], found["object"], f"{found.get('field', '')} {found['message']}".strip())
        for found in picture.findings
    )
    parts: list[RenderableType] = [table, "", _table(("CODE", "LEVEL", "OBJECT", "MESSAGE"), rows)]
    if picture.more:
        parts.append(f"and {picture.more} more: meshgw analyze")
    return Group(*parts)


def _cells(line: GatewayLine) -> tuple[str, ...]:
    return (
        line.namespace,
        line.name,
        line.role,
        line.address,
        ",".join(line.ports),
        str(line.programmed),
        str(line.routes),
        line.proxy,
        line.reason,
    )


def _table(columns: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
