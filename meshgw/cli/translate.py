"""`meshgw translate`."""

from __future__ import annotations

from typing import Any

import click

from meshgw.cli.output import files_option, output_option, write_json, write_yaml

TARGETS = ("ir", "xds", "status", "findings", "envoy", "proxies")


@click.command("translate", help="Print what YAML becomes, without serving it. Private keys are never shown in xds.")
@files_option
@click.option(
    "--to",
    "target",
    type=click.Choice(TARGETS),
    required=True,
    help="envoy: one static bootstrap a Gateway; proxies: the Kubernetes objects that run them.",
)
@click.option("--gateway", metavar="NAMESPACE/NAME", help="Only this Gateway (xds, envoy, proxies).")
@click.option("--mesh", is_flag=True, help="As in a mesh: waypoints are served.")
@output_option("yaml", "json")
def command(filename: tuple[str, ...], target: str, gateway: str | None, output: str, *, mesh: bool) -> None:
    """Translate files and print one form of the result."""
    document = _translate(filename, target, gateway, mesh=mesh)
    (write_json if output == "json" else write_yaml)(document)


def _translate(filename: tuple[str, ...], target: str, gateway: str | None, *, mesh: bool) -> Any:
    from meshgw.api.meta import Key  # noqa: PLC0415 - slow to import
    from meshgw.diagnose import render  # noqa: PLC0415 - slow to import
    from meshgw.emit.dump import render_resources  # noqa: PLC0415 - slow to import
    from meshgw.emit.static import emit_static  # noqa: PLC0415 - slow to import
    from meshgw.standalone.offline import evaluate  # noqa: PLC0415 - slow to import

    found = evaluate(filename, mesh=mesh, deploys=target == "proxies")
    if target == "ir":
        return render.render_resolved(found.graph)
    if target == "status":
        return render.render_statuses(found.graph)
    if target == "findings":
        return render.render_findings(found.graph, found.problems)
    only = Key(*gateway.split("/", 1)) if gateway and "/" in gateway else None
    if gateway and (only is None or only not in found.gateways):
        known = ", ".join(str(key) for key in found.gateways) or "none"
        raise click.UsageError(f"no accepted Gateway {gateway}; there are: {known}")
    chosen = (only,) if only else found.gateways
    if target == "xds":
        documents = render_resources(found.graph)
        return {str(key): documents[str(key)] for key in chosen if str(key) in documents}
    if target == "proxies":
        return render.render_proxies(found.graph, chosen)
    static = {str(key): emit_static(found.resources(key)) for key in chosen}
    return next(iter(static.values())) if len(static) == 1 else static
