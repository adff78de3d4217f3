"""`meshgw run`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import click

from meshgw.cli.output import files_option, log_options, output_option


@click.command("run", help="Serve gateways from YAML: one local Envoy per Gateway, reloaded when a file changes.")
@files_option
@output_option("table", "json")
@click.option("--envoy", type=click.Path(path_type=Path), help="Envoy to run (default: $PATH, then a managed copy).")
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Private directory for sockets, logs and state.")
@click.option("--port-offset", type=click.IntRange(0, 60000), help="Added to ports below 1024 (default: by privilege).")
@click.option("--concurrency", type=click.IntRange(1), help="Worker threads of each Envoy (default: one per core).")
@click.option("--detach", is_flag=True, help="Leave Envoys serving at the end; the next run adopts them.")
@click.option("--mesh", is_flag=True, help="Take part in a mesh, with certificates of the embedded CA or of --mesh-ca.")
@click.option("--mesh-ca", metavar="HOST:PORT", default="", help="An istiod to obtain certificates from.")
@click.option("--mesh-ca-roots", type=click.Path(path_type=Path), help="PEM file that verifies that istiod.")
@click.option("--mesh-token", type=click.Path(path_type=Path), help="File with a token of audience istio-ca.")
@click.option("--trust-domain", default="cluster.local", show_default=True, help="Trust domain of the mesh.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=9970, show_default=True, help="On loopback.")
@click.option("--no-metrics", is_flag=True, help="Serve no metrics.")
@click.option("--full-rebuild", is_flag=True, help="Recompute everything at each change (slow; for incidents).")
@log_options
def command(
    *,
    filename: tuple[str, ...],
    output: str,
    envoy: Path | None,
    runtime_dir: Path | None,
    port_offset: int | None,
    concurrency: int | None,
    detach: bool,
    mesh: bool,
    mesh_ca: str,
    mesh_ca_roots: Path | None,
    mesh_token: Path | None,
    trust_domain: str,
    metrics_port: int,
    no_metrics: bool,
    full_rebuild: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Serve until SIGINT or SIGTERM."""
    from meshgw.config import MeshSettings, RunSettings  # noqa: PLC0415 - slow to import
    from meshgw.observe.log import configure  # noqa: PLC0415 - slow to import

    missing = [path for path in filename if path != "-" and not Path(path).exists()]
    if missing:
        raise click.UsageError(f"no such file or folder: {', '.join(missing)}")
    configure(level=log_level, form=log_format)
    mesh_settings = None
    if mesh or mesh_ca:
        mesh_settings = MeshSettings(
            trust_domain=trust_domain, ca_address=mesh_ca, ca_roots=mesh_ca_roots, token=mesh_token
        )
    settings = RunSettings(
        paths=filename,
        envoy=envoy,
        runtime_dir=runtime_dir,
        port_offset=port_offset,
        concurrency=concurrency,
        detach=detach,
        mesh=mesh_settings,
        metrics_port=None if no_metrics else metrics_port,
        incremental=not full_rebuild,
    )
    _serve(settings, output)


def _serve(settings: object, output: str) -> None:
    from meshgw.config import RunSettings  # noqa: PLC0415 - slow to import
    from meshgw.standalone.application import Application  # noqa: PLC0415 - slow to import
    from meshgw.standalone.board import JsonBoard, TableBoard  # noqa: PLC0415 - slow to import
    from meshgw.standalone.envoy import EnvoyError  # noqa: PLC0415 - slow to import
    from meshgw.standalone.lock import InUseError  # noqa: PLC0415 - slow to import
    from meshgw.standalone.mesh import MeshSettingsError  # noqa: PLC0415 - slow to import

    assert isinstance(settings, RunSettings)  # noqa: S101 - narrows the type that the lazy import hides

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await Application(settings, JsonBoard() if output == "json" else TableBoard()).run(stop)

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main())
    except* (EnvoyError, InUseError, MeshSettingsError) as errors:
        raise click.ClickException(str(errors.exceptions[0])) from None
