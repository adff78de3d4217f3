"""`meshgw controller`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

import click

from meshgw.cli.output import log_options

_MANY = "May be given several times, or with commas."


def _split(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


@click.command(
    "controller",
    help="Serve the Gateways of a Kubernetes cluster: deploy their proxies and configure them.",
    epilog="Every flag is a variable, too: MESHGW_CONTROLLER_XDS_LISTEN is --xds-listen.",
)
@click.option("--kubeconfig", default="", help="File or files (default: the pod's account, else $KUBECONFIG).")
@click.option("--context", default="", help="Context of the kubeconfig (default: its current one).")
@click.option("--namespaces", multiple=True, callback=_split, help=f"Serve these only. {_MANY}")
@click.option("--namespace-selector", default="", metavar="LABELS", help="Serve namespaces with these labels only.")
@click.option(
    "--controller-name", default="meshgw.dev/gateway-controller", show_default=True, help="Of GatewayClasses."
)
@click.option(
    "--home",
    default=lambda: os.environ.get("POD_NAMESPACE", ""),
    help="Its own namespace (default: the pod's, else meshgw-system).",
)
@click.option(
    "--xds-listen", default="0.0.0.0:18000", show_default=True, metavar="HOST:PORT", help="Serve proxies here."
)
@click.option("--xds-address", default="", metavar="HOST:PORT", help="What proxies dial (default: the Service meshgw).")
@click.option("--xds-secret", default="", help="Secret with the xDS certificate (default: a CA of its own).")
@click.option("--proxy-image", default="", help="Envoy's image, best with a digest.")
@click.option(
    "--gateway-parameters",
    type=click.Choice(["any", "safe", "none"]),
    default="any",
    show_default=True,
    help="What Gateways may say by parameters of their own; those of classes may say everything.",
)
@click.option("--mesh/--no-mesh", default=True, show_default=True, help="Whether there is an Istio.")
@click.option("--istiod-address", default="", metavar="HOST:PORT", help="Its CA (default: by revision and namespace).")
@click.option("--revision", default="", help="Istio's revision.")
@click.option("--root-namespace", default="istio-system", show_default=True, help="Istio's namespace.")
@click.option("--cluster-id", default="Kubernetes", show_default=True, help="What istiod calls this cluster.")
@click.option("--network", default="", help="What Istio calls the network of the pods (default: Istio's choice).")
@click.option(
    "--ip-families",
    type=click.Choice(["auto", "ipv4", "dual"]),
    default="auto",
    show_default=True,
    help="Of pods: `dual` also where they have IPv6 only; `auto` goes by the controller's own addresses.",
)
@click.option("--trust-domain", default="", help="Of the mesh (default: what Istio's configuration says).")
@click.option("--trust-domain-alias", multiple=True, callback=_split, help=f"A former trust domain. {_MANY}")
@click.option("--cluster-domain", default="cluster.local", show_default=True, help="DNS suffix of Services.")
@click.option("--lease-name", default="meshgw", show_default=True, help="Lease of the replica that writes.")
@click.option("--no-leader-election", is_flag=True, help="Always write: for one replica only.")
@click.option(
    "--metrics-listen", default="0.0.0.0:9090", show_default=True, metavar="HOST:PORT", help="For Prometheus."
)
@click.option(
    "--health-listen", default="0.0.0.0:8081", show_default=True, metavar="HOST:PORT", help="For the kubelet."
)
@click.option(
    "--proxies-listen",
    default="127.0.0.1:8082",
    show_default=True,
    metavar="HOST:PORT",
    help="For `meshgw proxy list`, by port forwarding.",
)
@click.option(
    "--shutdown-delay",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Seconds to serve on after SIGTERM.",
)
@click.option("--full-rebuild", is_flag=True, help="Recompute everything at each change (slow; for incidents).")
@log_options
def command(*, log_level: str, log_format: str, **options: Any) -> None:
    """Serve until SIGINT or SIGTERM."""
    from meshgw.observe.log import configure  # noqa: PLC0415 - slow to import

    if options["namespaces"] and options["namespace_selector"]:
        raise click.UsageError("--namespaces and --namespace-selector exclude each other")
    for flag in ("xds_listen", "metrics_listen", "health_listen", "proxies_listen", "xds_address"):
        _check_address(flag, options[flag])
    configure(level=log_level, form=log_format)
    # Read when gRPC is imported: else it writes a line for each connection whose handshake fails.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    _serve(options)


def _check_address(flag: str, text: str) -> None:
    host, _, port = text.rpartition(":")
    if text and not (host and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise click.UsageError(f"--{flag.replace('_', '-')}: {text!r} is not host:port")


def _serve(options: dict[str, Any]) -> None:
    from meshgw.cluster.application import Application  # noqa: PLC0415 - slow to import
    from meshgw.cluster.scope import Scope, parse_selector  # noqa: PLC0415 - slow to import
    from meshgw.kube.client import AccessError, KubeSettings, connect  # noqa: PLC0415 - slow to import

    settings = _settings(options)
    try:
        selector = parse_selector(settings.namespace_selector) if settings.namespace_selector else None
    except ValueError as error:
        raise click.UsageError(f"--namespace-selector: {error}") from None
    scope = Scope(namespaces=settings.namespaces, selector=selector)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with connect(KubeSettings(kubeconfig=settings.kubeconfig, context=settings.context)) as client:
            await Application(settings, scope, client).run(stop)

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main())
    except* AccessError as errors:
        raise click.ClickException(f"{_first(errors)}; see --kubeconfig and --context") from None
    except* (OSError, ValueError) as errors:
        raise click.ClickException(str(_first(errors))) from None


def _first(error: BaseException) -> BaseException:
    """Return the first error in a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _everywhere(listen: str, *, dual_stack: bool) -> str:
    """Return an address to listen on; all of IPv4 become all of both families where pods have both."""
    host, _, port = listen.rpartition(":")
    return f"[::]:{port}" if dual_stack and host == "0.0.0.0" else listen  # noqa: S104 - what it is called


def _settings(options: dict[str, Any]) -> Any:
    from meshgw.cluster.families import has_ipv6  # noqa: PLC0415 - slow to import
    from meshgw.config import ClusterSettings, IstioSettings  # noqa: PLC0415 - slow to import

    istio = IstioSettings(
        istiod=options["istiod_address"],
        revision=options["revision"],
        root_namespace=options["root_namespace"],
        cluster_id=options["cluster_id"],
        network=options["network"],
        trust_domain=options["trust_domain"],
        trust_domain_aliases=options["trust_domain_alias"],
    )
    families = options["ip_families"]
    dual_stack = has_ipv6() if families == "auto" else families == "dual"
    defaults = ClusterSettings()
    return ClusterSettings(
        kubeconfig=options["kubeconfig"],
        context=options["context"],
        namespaces=options["namespaces"],
        namespace_selector=options["namespace_selector"],
        controller_name=options["controller_name"],
        home=options["home"] or defaults.home,
        instance=os.environ.get("POD_NAME", "") or os.uname().nodename,
        cluster_domain=options["cluster_domain"],
        istio=istio if options["mesh"] else None,
        proxy_image=options["proxy_image"] or defaults.proxy_image,
        own_parameters=options["gateway_parameters"],
        dual_stack=dual_stack,
        xds_listen=_everywhere(options["xds_listen"], dual_stack=dual_stack),
        xds_address=options["xds_address"],
        xds_secret=options["xds_secret"],
        health_listen=_everywhere(options["health_listen"], dual_stack=dual_stack),
        metrics_listen=_everywhere(options["metrics_listen"], dual_stack=dual_stack),
        proxies_listen=options["proxies_listen"],
        leader_election=not options["no_leader_election"],
        lease_name=options["lease_name"],
        shutdown_delay=options["shutdown_delay"],
        incremental=not options["full_rebuild"],
    )
