"""`meshgw check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from meshgw.cli.access import ask, cluster_options
from meshgw.cli.main import EXIT_FINDINGS
from meshgw.cli.output import output_option, write_json, write_table, write_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshgw.cluster.checks import Check


@click.command(
    "check", help="Check an installation. Exit code 1 when something is wrong, 3 when the cluster cannot be reached."
)
@click.option("--namespaces", metavar="A,B", default="", help="Namespaces that are served (default: all).")
@click.option("--cluster-wide-secrets", is_flag=True, help="The controller is to read Secrets of every namespace.")
@click.option("--mesh/--no-mesh", default=True, show_default=True, help="Whether there is to be an Istio.")
@click.option("--istio-namespace", metavar="NAME", default="istio-system", show_default=True, help="Where istiod is.")
@click.option("--revision", metavar="NAME", default="", help="Istio's revision.")
@cluster_options
@output_option()
def command(
    *,
    namespaces: str,
    cluster_wide_secrets: bool,
    mesh: bool,
    istio_namespace: str,
    revision: str,
    kubeconfig: str,
    context: str,
    system_namespace: str,
    output: str,
) -> None:
    """Print the checks of a cluster."""
    from meshgw.cluster.checks import Question, State, run_checks  # noqa: PLC0415 - slow to import
    from meshgw.install.rules import Scope  # noqa: PLC0415 - slow to import

    scope = Scope(
        namespaces=tuple(name.strip() for name in namespaces.split(",") if name.strip()),
        cluster_wide_secrets=cluster_wide_secrets,
        home=system_namespace,
        mesh=istio_namespace,
    )
    question = Question(scope=scope, mesh=mesh, revision=revision)
    checks = ask(kubeconfig, context, lambda client: run_checks(client, question))
    _write(checks, output)
    if any(check.state is State.ERROR for check in checks):
        raise SystemExit(EXIT_FINDINGS)


def _write(checks: Sequence[Check], output: str) -> None:
    import msgspec  # noqa: PLC0415 - only when asked for

    if output == "table":
        rows = ((check.state.value, check.name, check.message, check.remedy) for check in checks)
        write_table(("STATE", "CHECK", "FOUND", "REMEDY"), rows)
    else:
        (write_json if output == "json" else write_yaml)(msgspec.to_builtins(checks))
