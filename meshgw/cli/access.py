"""What verbs that talk to a cluster have in common: flags, and exit code 3 when it cannot be reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from meshgw.kube.client import Client

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

EXIT_UNREACHABLE = 3


def access_options(function: F) -> F:
    """Add `--kubeconfig` and `--context`."""
    for option in (
        click.option("--context", metavar="NAME", default="", help="Context of the kubeconfig (default: current)."),
        click.option("--kubeconfig", metavar="PATH", default="", help="Default: $KUBECONFIG, then ~/.kube/config."),
    ):
        function = option(function)
    return function


def cluster_options(function: F) -> F:
    """Add `--kubeconfig`, `--context` and `--system-namespace`."""
    option = click.option(
        "--system-namespace",
        metavar="NAME",
        default="meshgw-system",
        show_default=True,
        help="Where the controller is installed.",
    )
    return access_options(option(function))


def ask(kubeconfig: str, context: str, question: Callable[[Client], Awaitable[T]]) -> T:
    """Return the answer of a cluster; ends the program with one line and code 3 if it cannot be reached or refuses."""
    import asyncio  # noqa: PLC0415 - slow to import

    from meshgw.kube.client import AccessError, ApiError, KubeSettings, UnreachableError, connect  # noqa: PLC0415 - slow

    async def run() -> T:
        async with connect(KubeSettings(kubeconfig=kubeconfig, context=context)) as client:
            return await question(client)

    try:
        return asyncio.run(run())
    except (AccessError, ApiError, UnreachableError) as error:
        where = "; see --kubeconfig and --context" if isinstance(error, UnreachableError) else ""
        click.echo(f"error: {error}{where}", err=True)
        raise SystemExit(EXIT_UNREACHABLE) from None
