"""`meshgw analyze`."""

from __future__ import annotations

import click

from meshgw.cli.main import EXIT_FINDINGS
from meshgw.cli.output import files_option, output_option, write_json, write_table, write_yaml


@click.command("analyze", help="Report what is wrong with YAML. Exit code 1 when there is a finding at level error.")
@files_option
@output_option()
@click.option("--mesh", is_flag=True, help="As in a mesh: waypoints are served.")
def command(filename: tuple[str, ...], output: str, *, mesh: bool) -> None:
    """Print the findings of files."""
    from meshgw.diagnose.render import render_findings  # noqa: PLC0415 - slow to import
    from meshgw.standalone.offline import evaluate  # noqa: PLC0415 - slow to import

    found = evaluate(filename, mesh=mesh)
    findings = render_findings(found.graph, found.problems)
    if output == "json":
        write_json(findings)
    elif output == "yaml":
        write_yaml(findings)
    elif findings:
        rows = ((f["code"], f["level"], f["object"], f"{f.get('field', '')} {f['message']}".strip()) for f in findings)
        write_table(("CODE", "LEVEL", "OBJECT", "MESSAGE"), rows)
        click.echo("\nmeshgw help CODE explains a code.")
    else:
        click.echo("no findings")
    if any(finding["level"] == "error" for finding in findings):
        raise SystemExit(EXIT_FINDINGS)
