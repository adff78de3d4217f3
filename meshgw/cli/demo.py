"""`meshgw demo`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshgw.cli.main import EXIT_FINDINGS
from meshgw.cli.output import level_option, output_option, write_json, write_table

if TYPE_CHECKING:
    from meshgw.demo.mesh import Mesh
    from meshgw.demo.verdict import Outcome
    from meshgw.standalone.envoy import EnvoyBinary

_INTERRUPTED = 130
_COLUMNS = ("RESULT", "CHECK", "EXPECTED", "OBSERVED", "SECONDS")


@click.command("demo", help="Run an ambient mesh on this machine and check what happens in it. Exit code 1 on failure.")
@output_option("table", "json")
@click.option("--keep", is_flag=True, help="Stay up afterwards, to try things out, until Ctrl-C.")
@click.option("--envoy", type=click.Path(path_type=Path), help="Envoy to run (default: $PATH, then a managed copy).")
@level_option("error")
def command(*, output: str, keep: bool, envoy: Path | None, log_level: str) -> None:
    """Print what happened to each request."""
    from meshgw.demo.nodes import DemoError  # noqa: PLC0415 - slow to import
    from meshgw.observe.log import configure  # noqa: PLC0415 - slow to import
    from meshgw.standalone.envoy import EnvoyError, find_envoy  # noqa: PLC0415 - slow to import
    from meshgw.standalone.lock import InUseError  # noqa: PLC0415 - slow to import

    configure(level=log_level)
    outcomes: Sequence[Outcome] = ()
    try:
        # Before the loop has the signals: a download ends with the process.
        outcomes = asyncio.run(_demo(find_envoy(envoy), output, keep=keep))
    except* (DemoError, EnvoyError, InUseError) as errors:
        raise click.ClickException(_first(errors)) from None
    except* (asyncio.CancelledError, KeyboardInterrupt):
        raise SystemExit(_INTERRUPTED) from None
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    if failed:
        _say(f"failed: {', '.join(failed)}")
        raise SystemExit(EXIT_FINDINGS)


async def _demo(envoy: EnvoyBinary, output: str, *, keep: bool) -> Sequence[Outcome]:
    from meshgw.demo.checks import run_checks  # noqa: PLC0415 - slow to import
    from meshgw.demo.mesh import ambient_mesh  # noqa: PLC0415 - slow to import

    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - this is a task
    _on_signals(task.cancel)
    _say(f"Envoy {envoy.version} ({envoy.path})")
    async with ambient_mesh(envoy, _say) as mesh:
        outcomes = [outcome async for outcome in run_checks(mesh, _say)]
        _report(outcomes, output)
        if keep:
            stop = asyncio.Event()
            _on_signals(stop.set)
            _invite(mesh)
            await stop.wait()
    return outcomes


def _report(outcomes: Sequence[Outcome], output: str) -> None:
    import msgspec  # noqa: PLC0415 - slow to import

    if output == "json":
        checks = msgspec.to_builtins(outcomes)
        write_json({"passed": all(outcome.passed for outcome in outcomes), "checks": checks})
        return
    write_table(_COLUMNS, map(_row, outcomes))


def _row(outcome: Outcome) -> tuple[str, ...]:
    result = "ok" if outcome.passed else "FAILED"
    return (result, outcome.name, outcome.expected, outcome.observed, f"{outcome.seconds:.2f}")


def _invite(mesh: Mesh) -> None:
    """Say what there is to try."""
    plan = mesh.plan
    _say(
        f"""
The mesh stays up until Ctrl-C. Try:
  curl -i {plan.frontend.url}                     # as frontend, through the waypoint
  curl -i -H 'x-version: v2' {plan.frontend.url}  # the new version
  curl -i {plan.stranger.url}                     # as stranger: 403
Edit the manifests in {mesh.folder}; what you save holds at once."""
    )


def _on_signals(callback: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, callback)


def _first(error: BaseException) -> str:
    """Return the message of the first error inside of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


def _say(text: str) -> None:
    """Tell about progress, away from the output."""
    click.echo(text, err=True)
