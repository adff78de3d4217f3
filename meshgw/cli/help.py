"""`meshgw help`."""

from __future__ import annotations

import click

from meshgw.cli.output import output_option, write_json, write_table, write_yaml


@click.command("help", help="Explain a finding code (meshgw help MG1001), list all codes, or show a command's help.")
@click.argument("topic", required=False)
@output_option()
@click.pass_context
def command(ctx: click.Context, topic: str | None, output: str) -> None:
    """Explain a code or a command."""
    from meshgw.cli.main import VERBS, main  # noqa: PLC0415 - main imports this module by name
    from meshgw.ir.codes import CODES  # noqa: PLC0415 - slow to import

    if topic is None:
        rows = [(code.code, code.level.value, code.title) for code in CODES.values()]
        if output == "table":
            click.echo(main.get_help(click.Context(main, info_name="meshgw")))
            click.echo("\nFinding codes (meshgw help CODE):")
            write_table(("CODE", "LEVEL", "TITLE"), rows)
            return
        documents = [{"code": code, "level": level, "title": title} for code, level, title in rows]
        (write_json if output == "json" else write_yaml)(documents)
        return
    if topic in VERBS:
        verb = main.get_command(ctx, topic)
        if verb is not None:
            click.echo(verb.get_help(click.Context(verb, info_name=f"meshgw {topic}")))
        return
    found = CODES.get(topic.upper())
    if found is None:
        raise click.UsageError(f"{topic} is neither a finding code nor a command; 'meshgw help' lists both")
    document = {
        "code": found.code,
        "level": found.level.value,
        "title": found.title,
        "cause": found.cause,
        "remedy": found.remedy,
    }
    if output == "json":
        write_json(document)
    elif output == "yaml":
        write_yaml(document)
    else:
        click.echo(f"{found.code} ({found.level}): {found.title}\n\nCause:  {found.cause}\nRemedy: {found.remedy}")
