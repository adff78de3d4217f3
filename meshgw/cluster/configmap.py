"""One ConfigMap, followed by its name: in a namespace that need not be served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from meshgw.api.meta import Key
from meshgw.api.registry import Kind
from meshgw.ir.finding import Finding
from meshgw.kube.client import Client
from meshgw.kube.reflector import Reflector
from meshgw.kube.seen import Seen

FORBIDDEN: Final = 403

Told = Callable[[Sequence[Finding]], None]
"""Takes all that is wrong with something now."""


class ConfigMapWatch:
    """Keeps up with one ConfigMap: `see` gets it as it changes, `refused` what keeps it from being read, or None."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        key: Key,
        *,
        see: Callable[[Seen], None],
        refused: Callable[[Finding | None], None],
    ) -> None:
        self.key = key
        self._see = see
        self._refused = refused
        self._reflector = Reflector(
            client,
            kind,
            self._take,
            namespace=key.namespace,
            field_selector=f"metadata.name={key.name}",
            report=self._report,
        )

    @property
    def synced(self) -> asyncio.Event:
        """Set once the ConfigMap was seen, or is known to be absent."""
        return self._reflector.synced

    @property
    def forbidden(self) -> bool:
        """Whether the API server has answered that nobody like us may read it; not that it does not know us."""
        return self._reflector.refusal == FORBIDDEN

    async def run(self) -> None:
        """Keep up until cancelled."""
        await self._reflector.run()

    def _take(self, _kind: Kind, seen: Sequence[Seen]) -> None:
        for one in seen:
            self._see(one)

    def _report(self, _kind: Kind, _namespace: str, problem: Finding | None) -> None:
        self._refused(problem)
