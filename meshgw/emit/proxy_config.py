"""The ConfigMap of a Gateway's proxies: their bootstrap, and the files that it names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from meshgw import names
from meshgw.emit.bootstrap import Bootstrap, build_bootstrap
from meshgw.emit.proxy_listeners import ANY_IPV4, StatusListeners
from meshgw.emit.proxy_xds import ROOTS_FILE, XdsCredentials, secret_files
from meshgw.ir.gateway import Settings
from meshgw.ir.proxy import ProxyPlan

CONFIG_FOLDER: Final = "/etc/meshgw"
TOKEN_FOLDER: Final = "/var/run/secrets/meshgw"  # noqa: S105 - a path
BOOTSTRAP_FILE: Final = "envoy.json"
DRAIN_SECONDS: Final = 20
"""How long a proxy that is told to end serves on: longer than it takes the whole cluster to hear of that."""


def drain_seconds(plan: ProxyPlan) -> int:
    """Return how long the proxies of a Gateway drain."""
    envoy = plan.parameters.envoy
    return DRAIN_SECONDS if envoy is None or envoy.drain_seconds is None else envoy.drain_seconds


def drain_path(plan: ProxyPlan) -> str:
    """Return the path of the hook that ends a proxy: unknown to those who cannot read the Gateway."""
    return f"/drain/{plan.uid or plan.name}"


def build_config_map(plan: ProxyPlan, settings: Settings) -> dict[str, Any]:
    """Return the ConfigMap without its metadata."""
    host = settings.xds_address.rpartition(":")[0].strip("[]")
    credentials = XdsCredentials(server_name=host, folder=CONFIG_FOLDER, token_folder=TOKEN_FOLDER)
    bootstrap = build_bootstrap(_bootstrap(plan, settings, credentials))
    return {
        "data": {
            BOOTSTRAP_FILE: json.dumps(bootstrap, indent=1),
            ROOTS_FILE: settings.xds_roots,
            **secret_files(credentials),
        }
    }


def digest_of(config_map: Mapping[str, Any]) -> str:
    """Return a digest of what proxies read once, so that a change of it replaces them; roots are not among that."""
    data = {name: text for name, text in config_map.get("data", {}).items() if name != ROOTS_FILE}
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=8).hexdigest()


def _bootstrap(plan: ProxyPlan, settings: Settings, credentials: XdsCredentials) -> Bootstrap:
    envoy = plan.parameters.envoy
    service = plan.parameters.service
    both = settings.dual_stack or (service is not None and "IPv6" in (service.ip_families or ()))
    options: dict[str, Any] = {}
    if envoy is not None and envoy.max_connections is not None:
        options["max_connections"] = envoy.max_connections
    return Bootstrap(
        xds=settings.xds_address,
        admin=f"127.0.0.1:{names.ADMIN_PORT}",
        credentials=credentials,
        status=StatusListeners(
            bind="::" if both else ANY_IPV4, drain_path=drain_path(plan), drain_seconds=drain_seconds(plan)
        ),
        all_stats=bool(envoy is not None and envoy.all_stats),
        **options,
    )
