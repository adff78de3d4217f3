"""`meshgw proxy`: the proxies of a cluster, and what they run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from meshgw.cli.access import EXIT_UNREACHABLE, access_options, ask, cluster_options
from meshgw.cli.main import EXIT_FINDINGS
from meshgw.cli.output import output_option, write_json, write_table, write_yaml

if TYPE_CHECKING:
    from meshgw.diagnose.proxy_config import Sheet
    from meshgw.kube.client import Client

_LONGEST_CAUSE = 200
SECTIONS = ("listeners", "routes", "clusters", "endpoints", "secrets")


@click.group("proxy", help="The proxies of a cluster, and what they run.")
def command() -> None:
    """Gather the verbs about proxies."""


@command.command(
    "list",
    help="""List the connected proxies of all replicas.

    Exit code 1 when a proxy refused something, 3 when not all replicas could be asked.""",
)
@cluster_options
@output_option()
def list_(*, kubeconfig: str, context: str, system_namespace: str, output: str) -> None:
    """Print the proxies that the replicas see."""
    from meshgw.cluster.proxies import REFUSED, collect, render  # noqa: PLC0415 - slow to import

    found = ask(kubeconfig, context, lambda client: collect(client, system_namespace))
    if not found.told and not found.silent:
        click.echo(f"error: no controller runs in {system_namespace}; see --system-namespace", err=True)
        raise SystemExit(EXIT_UNREACHABLE)
    if found.told:
        _write(render(found.told), output, nothing="no proxies")
    for cause in found.silent.values():
        click.echo(f"error: {cause}", err=True)
    states = (share.state for proxies in found.told.values() for proxy in proxies for share in proxy.services.values())
    if REFUSED in states:
        raise SystemExit(EXIT_FINDINGS)
    if found.silent:
        raise SystemExit(EXIT_UNREACHABLE)


@command.command(
    "config", help="Show what a proxy's Envoy runs, and the object each row comes from. Keys are never shown."
)
@click.argument("pod")
@click.argument("section", type=click.Choice(SECTIONS))
@click.option("-n", "--namespace", metavar="NAME", default="default", show_default=True, help="Namespace of the pod.")
@access_options
@output_option()
def config(*, pod: str, section: str, namespace: str, kubeconfig: str, context: str, output: str) -> None:
    """Print one table of a proxy's configuration."""
    dump, gateway = ask(kubeconfig, context, lambda client: _read(client, namespace, pod))
    _write(_sheet(dump, section, gateway), output, nothing=f"no {section}")


async def _read(client: Client, namespace: str, pod: str) -> tuple[dict[str, Any], str]:
    """Return a pod's config dump and its Gateway; ends the program if there is no such pod, or it runs no Envoy."""
    import msgspec  # noqa: PLC0415 - only when asked for

    from meshgw.api.meta import Key  # noqa: PLC0415 - slow to import
    from meshgw.diagnose.proxy_config import gateway_of  # noqa: PLC0415 - slow to import
    from meshgw.kube.client import ApiError, UnreachableError  # noqa: PLC0415 - slow to import
    from meshgw.kube.forward import get_from_pod  # noqa: PLC0415 - slow to import
    from meshgw.names import ADMIN_PORT  # noqa: PLC0415 - only when asked for

    async def get(path: str) -> dict[str, Any]:
        status, body = await get_from_pod(client, Key(namespace, pod), ADMIN_PORT, path)
        if status != 200:
            raise UnreachableError(f"{path} is answered with {status}")
        return msgspec.json.decode(body, type=dict[str, Any])

    try:
        dump = await get("/config_dump?include_eds")
        return dump, gateway_of(dump, await get("/server_info"))
    except ApiError as refused:
        if refused.status != 404:
            raise
        problem = f"there is no pod {namespace}/{pod}; see -n, and `meshgw proxy list`"
    except (UnreachableError, msgspec.DecodeError) as error:
        cause = " ".join(str(error).split())[:_LONGEST_CAUSE]
        problem = f"{namespace}/{pod} gives no configuration: is it a running proxy of a Gateway? ({cause})"
    click.echo(f"error: {problem}", err=True)
    raise SystemExit(EXIT_UNREACHABLE)


def _sheet(dump: dict[str, Any], section: str, gateway: str) -> Sheet:
    from meshgw.diagnose import proxy_config  # noqa: PLC0415 - slow to import

    if section == "secrets":
        return proxy_config.list_secrets(dump, datetime.now(UTC), gateway)
    tables = {
        "listeners": proxy_config.list_listeners,
        "routes": proxy_config.list_routes,
        "clusters": proxy_config.list_clusters,
        "endpoints": proxy_config.list_endpoints,
    }
    return tables[section](dump, gateway)


def _write(sheet: Sheet, output: str, *, nothing: str) -> None:
    if output == "json":
        write_json(sheet.documents())
    elif output == "yaml":
        write_yaml(sheet.documents())
    elif sheet.rows:
        write_table(sheet.columns, sheet.rows)
    else:
        click.echo(nothing)
