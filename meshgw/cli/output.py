"""Printing: tables for people, JSON and YAML for programs. Never any colour off a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_ENDLESS = 1 << 20
"""Columns; what does not fit is cut."""
FORMATS = ("table", "json", "yaml")


def output_option(*formats: str, default: str | None = None) -> Callable[[F], F]:
    """Return the `-o` option over the given formats."""
    chosen = formats or FORMATS
    return click.option(
        "-o",
        "--output",
        type=click.Choice(chosen),
        default=default or chosen[0],
        show_default=True,
        help="Output form.",
    )


def level_option(default: str) -> Callable[[F], F]:
    """Return the `--log-level` option."""
    levels = click.Choice(("debug", "info", "warning", "error"))
    return click.option("--log-level", type=levels, default=default, show_default=True, help="What is logged.")


def log_options(function: F) -> F:
    """Add `--log-level` and `--log-format`."""
    form = click.option(
        "--log-format",
        type=click.Choice(("auto", "console", "json")),
        default="auto",
        show_default=True,
        help="How it is logged; `auto` is console on a terminal, else JSON.",
    )
    return level_option("info")(form(function))


def files_option(function: F) -> F:
    """Add the repeatable `-f` option: folder, file or `-` for standard input."""
    option: Callable[[F], F] = click.option(
        "-f",
        "--filename",
        "filename",
        multiple=True,
        required=True,
        metavar="DIR|FILE|-",
        help="YAML to read; may be given several times.",
    )
    return option(function)


def write_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def write_yaml(value: Any) -> None:
    """Print one YAML document."""
    click.echo(dump_yaml(value), nl=False)


def dump_yaml(value: Any) -> str:
    """Return block-style YAML in the order of the given mappings."""
    import yaml  # noqa: PLC0415 - only when asked for

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; on a terminal long cells wrap, elsewhere lines stay whole."""
    from rich.console import Console  # noqa: PLC0415 - only when asked for
    from rich.table import Table  # noqa: PLC0415 - only when asked for

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not sys.stdout.isatty())
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False)
    if not sys.stdout.isatty():
        console = Console(highlight=False, markup=False, emoji=False, width=_ENDLESS, no_color=True)
    console.print(table)
