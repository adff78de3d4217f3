"""What Istio's own configuration says of its mesh: the trust domain and its former names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import yaml

from meshgw import names
from meshgw.api.core import ConfigMap
from meshgw.api.registry import Kind
from meshgw.identity.spiffe import SpiffeError, check_trust_domain
from meshgw.ir.finding import Finding
from meshgw.kube.client import Client
from meshgw.kube.reflector import Reflector
from meshgw.kube.seen import Seen
from meshgw.observe.log import get_logger

MESH_KEY: Final = "mesh"

_log = get_logger("mesh")


class MeshConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The part of Istio's MeshConfig that is read."""

    trust_domain: str = names.DEFAULT_TRUST_DOMAIN
    trust_domain_aliases: tuple[str, ...] = ()


def mesh_config_name(revision: str) -> str:
    """Return the name of the ConfigMap that configures the mesh of a revision."""
    return f"istio-{revision}" if revision and revision != "default" else "istio"


def read_mesh_config(row: ConfigMap | None) -> MeshConfig:
    """Return the configuration in Istio's ConfigMap; Istio's defaults where it says nothing, or nothing readable."""
    if row is None or not (text := row.data.get(MESH_KEY, "")):
        return MeshConfig()
    try:
        found = msgspec.convert(yaml.safe_load(text) or {}, MeshConfig)
        for trust_domain in (found.trust_domain, *found.trust_domain_aliases):
            check_trust_domain(trust_domain)
    except (yaml.YAMLError, msgspec.ValidationError, SpiffeError, RecursionError) as error:
        _log.warning(
            "Istio's mesh configuration cannot be read", config_map=str(row.key), error=str(error).split("\n")[0]
        )
        return MeshConfig()
    return found


class MeshConfigWatch:
    """Keeps up with Istio's ConfigMap; `on_change` gets what it says. `known` is set once it was read, or cannot be."""

    def __init__(
        self, client: Client, kind: Kind, *, namespace: str, revision: str, on_change: Callable[[MeshConfig], None]
    ) -> None:
        self.known = asyncio.Event()
        self._on_change = on_change
        self._reflector = Reflector(
            client,
            kind,
            self._see,
            namespace=namespace,
            field_selector=f"metadata.name={mesh_config_name(revision)}",
            report=self._report,
        )

    async def run(self) -> None:
        """Keep up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reflector.run(), name="mesh configuration")
            await self._reflector.synced.wait()
            self.known.set()

    def _see(self, _kind: Kind, seen: Sequence[Seen]) -> None:
        for one in seen:
            self._on_change(read_mesh_config(one.object if isinstance(one.object, ConfigMap) else None))

    def _report(self, _kind: Kind, _namespace: str, problem: Finding | None) -> None:
        if problem is not None:
            _log.warning("Istio's mesh configuration may not be read: its defaults are used", cause=problem.message)
            self.known.set()
