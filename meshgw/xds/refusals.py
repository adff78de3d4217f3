"""What connected proxies refuse, as findings: made when one says NACK, taken back when it accepts or is gone."""

from __future__ import annotations

from typing import NamedTuple

from meshgw.api.meta import Key, ObjectRef
from meshgw.emit.resource import SHORT_NAMES
from meshgw.ir.finding import Finding
from meshgw.ir.keys import ResourceKey
from meshgw.observe.log import get_logger
from meshgw.xds.proxy import ProxyState

_log = get_logger("xds")
_NAMED = 3
"""Refused resources in one message; Envoy's text has the rest."""


class Refusal(NamedTuple):
    """What a proxy refuses: a finding, and the resources that it is about."""

    finding: Finding
    resources: tuple[ResourceKey, ...]


class Refusals:
    """The refusals in force, of all proxies of an instance."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], Finding] = {}

    def note(self, state: ProxyState) -> tuple[Refusal, ...]:
        """Take note of a proxy's state; returns the refusals that are new."""
        gateway = Key(*state.group.split("/", 1))
        new = []
        for type_url, kind in SHORT_NAMES.items():
            of_type = state.types.get(type_url)
            before = self._found.pop((state.proxy, kind), None)
            if of_type is None or not of_type.nack or not state.connected:
                continue
            message = f"{kind} {', '.join(of_type.refused[:_NAMED])}: {of_type.nack}"
            finding = Finding(code="MG6001", object=ObjectRef("Gateway", *gateway), message=message)
            self._found[state.proxy, kind] = finding
            if finding != before:
                resources = tuple(ResourceKey(gateway, type_url, name) for name in of_type.refused)
                new.append(Refusal(finding, resources))
                _log.error("envoy refused configuration", gateway=str(gateway), type=kind, text=of_type.nack)
        return tuple(new)

    def findings(self) -> list[Finding]:
        """Return the refusals in force, equal ones of a Gateway's proxies once."""
        return list(dict.fromkeys(self._found.values()))
