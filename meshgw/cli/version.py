"""`meshgw version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from meshgw import __version__
from meshgw.cli.output import output_option, write_json, write_table, write_yaml

_DRIVEN = ("grpcio", "protobuf", "xds-protos", "msgspec")


@click.command("version", help="Print the versions of meshgw and of what it drives.")
@output_option()
def command(output: str) -> None:
    """Print versions."""
    from meshgw.standalone.wheels import ENVOY_VERSION  # noqa: PLC0415 - slow to import

    rows = {"meshgw": __version__, "envoy (managed)": ENVOY_VERSION, "gateway-api": "v1.6.1"}
    rows["python"] = platform.python_version()
    for package in _DRIVEN:
        try:
            rows[package] = version(package)
        except PackageNotFoundError:  # pragma: no cover - a broken installation
            rows[package] = "not installed"
    if output == "json":
        write_json(rows)
    elif output == "yaml":
        write_yaml(rows)
    else:
        write_table(("COMPONENT", "VERSION"), rows.items())
