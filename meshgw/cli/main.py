"""Entry point: a group whose verbs are imported on demand, so that `--help` costs nothing but click."""

from __future__ import annotations

import importlib

import click

VERBS = {
    "run": "Serve gateways from a folder of YAML with local Envoys.",
    "controller": "Serve the Gateways of a Kubernetes cluster.",
    "demo": "Show an ambient mesh on this machine: waypoint, identities, traffic.",
    "translate": "Print what YAML becomes: resolved values, xDS, statuses, or a static Envoy.",
    "check": "Check an installation in a cluster, with remedies.",
    "proxy": "The proxies of a cluster, and what they run.",
    "analyze": "Report what is wrong with YAML, with codes and remedies.",
    "help": "Explain a finding code (meshgw help MG1001) or a command.",
    "version": "Print the versions of meshgw and of what it drives.",
    "completion": "Print the shell completion script.",
}
"""Verb to one-line help; the command is `command` in `meshgw.cli.<verb>`."""

EXIT_FINDINGS = 1


class Verbs(click.Group):
    """A group that imports `meshgw.cli.<verb>` when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the documentation."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the verb's command, or None for an unknown verb."""
        del ctx
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"meshgw.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs from the table, without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"auto_envvar_prefix": "MESHGW", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="meshgw", message="%(version)s")
def main() -> None:
    """Ingress, egress and waypoint gateways beside an Istio mesh, on stock Envoy."""
