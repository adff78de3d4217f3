"""`meshgw completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion", help="Print the completion script of a shell: eval it from the shell's start-up file.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a completion script."""
    from meshgw.cli.main import main  # noqa: PLC0415 - main imports this module by name

    completion = get_completion_class(shell)
    if completion is None:  # pragma: no cover - the choice above holds only shells that click knows
        raise click.ClickException(f"no completion for {shell}")
    click.echo(completion(main, {}, "meshgw", "_MESHGW_COMPLETE").source())
