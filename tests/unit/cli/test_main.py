"""The entry point: it knows every verb and loads none of them before it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from meshgw.cli.main import VERBS, main

HEAVY = {"asyncio", "cryptography", "envoy", "google.protobuf", "grpc", "msgspec", "re2", "rich", "structlog", "yaml"}


def loaded_by(*arguments: str) -> set[str]:
    """Return the modules that a run of the command has loaded at its end."""
    program = (
        "import sys, runpy, contextlib\n"
        f"sys.argv = ['meshgw', *{arguments!r}]\n"
        "with contextlib.suppress(SystemExit): runpy.run_module('meshgw', run_name='__main__')\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(done.stderr.split())


def test_help_loads_nothing_but_click() -> None:
    loaded = loaded_by("--help")
    assert "click" in loaded
    assert {name for name in loaded if name in HEAVY or (name.startswith("meshgw.") and "cli" not in name)} == set()


def test_a_verb_loads_what_it_needs_only_when_it_runs() -> None:
    assert loaded_by("translate", "--help") & HEAVY == set()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_module_and_help(verb: str) -> None:
    command = importlib.import_module(f"meshgw.cli.{verb}").command
    assert isinstance(command, click.Command)
    done = CliRunner().invoke(main, [verb, "--help"])
    assert (done.exit_code, done.output.startswith("Usage: ")) == (0, True)


def test_help_lists_the_verbs_in_their_order() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    places = [output.index(f"\n  {verb} ") for verb in VERBS]
    assert places == sorted(places)


def test_an_unknown_verb_is_a_usage_error() -> None:
    done = CliRunner().invoke(main, ["rum"])
    assert done.exit_code == 2
    assert "No such command 'rum'" in done.output


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _commands(inner, f"{path} {name}")


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_says_what_it_is(verb: str) -> None:
    command = main.get_command(click.Context(main), verb)
    assert command is not None
    for path, found in _commands(command, verb):
        flags = [flag for flag in found.params if isinstance(flag, click.Option)]
        assert [f"{path} {flag.opts[0]}" for flag in flags if not flag.help] == []
