"""What Istio's own configuration says of its mesh: the trust domain and its former names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import yaml

from meshgw import names
from meshgw.api.core import ConfigMap
from meshgw.api.meta import Key, ObjectRef
from meshgw.api.registry import Kind
from meshgw.api.scalars import printable
from meshgw.cluster.configmap import ConfigMapWatch, Told
from meshgw.files.document import DocumentError, parse_yaml
from meshgw.identity.spiffe import SpiffeError, check_trust_domain
from meshgw.ir.finding import Finding
from meshgw.kube.client import Client
from meshgw.kube.seen import Seen
from meshgw.observe.log import get_logger

MESH_KEY: Final = "mesh"
NOT_READABLE: Final = "MG5007"

_LONGEST: Final = 300
"""Characters of what is said of a configuration, for it may be quoted."""

_log = get_logger("mesh")


class MeshConfigError(Exception):
    """A configuration that cannot be read; the message says why."""


class MeshConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The part of Istio's MeshConfig that is read."""

    trust_domain: str = names.DEFAULT_TRUST_DOMAIN
    trust_domain_aliases: tuple[str, ...] = ()


_NAMES: Final = {
    field.encode_name: frozenset({field.name, field.encode_name}) for field in msgspec.structs.fields(MeshConfig)
}
"""The spellings of each field: JSON of protocol buffers may have either."""


def mesh_config_name(revision: str) -> str:
    """Return the name of the ConfigMap that configures the mesh of a revision."""
    return f"istio-{revision}" if revision and revision != "default" else "istio"


def read_mesh_config(row: ConfigMap) -> MeshConfig | None:
    """Return the configuration in Istio's ConfigMap, None if there is none in it; raises `MeshConfigError`."""
    try:
        document = parse_yaml(row.data.get(MESH_KEY, ""))
        if document is None:
            return None
        found = msgspec.convert(_pick(document), MeshConfig)
        for trust_domain in (found.trust_domain, *found.trust_domain_aliases):
            check_trust_domain(trust_domain)
    except DocumentError as error:
        raise MeshConfigError(f"line {error.line + 1} of `{MESH_KEY}`: {error.message}") from None
    except (msgspec.ValidationError, SpiffeError) as error:
        raise MeshConfigError(str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MeshConfigError(f"`{MESH_KEY}` is not readable as YAML ({type(error).__name__})") from None
    return found


def _pick(document: Any) -> Mapping[str, Any]:
    """Return the fields that are read, under one name each; null is as good as absent."""
    if not isinstance(document, dict):
        raise MeshConfigError(f"`{MESH_KEY}` is no mapping")
    found: dict[str, Any] = {}
    for name, spellings in _NAMES.items():
        values = [document[each] for each in sorted(spellings & document.keys())]
        if len(values) > 1:
            raise MeshConfigError(f"`{name}` is there in two spellings")
        if values and values[0] is not None:
            found[name] = values[0]
    return found


class MeshConfigWatch:
    """Keeps up with Istio's ConfigMap; `on_change` gets what it says, `tell` what is wrong with it.

    What was read stays in force when it cannot be read any more, or is gone: with former names forgotten, policies that
    deny by them would let through. `known` is set once it was read, or is known to be absent, or forbidden to us: then
    nobody has said anything but Istio's defaults. One that is there and cannot be read is not known.
    """

    def __init__(
        self,
        client: Client,
        kind: Kind,
        *,
        namespace: str,
        revision: str,
        on_change: Callable[[MeshConfig], None],
        tell: Told,
    ) -> None:
        self.known = asyncio.Event()
        self._config: MeshConfig | None = None
        self._problem: Finding | None = None
        self._refusal: Finding | None = None
        self._on_change = on_change
        self._tell = tell
        self._watch = ConfigMapWatch(
            client, kind, Key(namespace, mesh_config_name(revision)), see=self._see, refused=self._refuse
        )

    @property
    def key(self) -> Key:
        """The name of the ConfigMap."""
        return self._watch.key

    async def run(self) -> None:
        """Keep up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(), name="mesh configuration")
            await self._watch.synced.wait()
            self._note()

    def _see(self, seen: Seen) -> None:
        row = seen.object if isinstance(seen.object, ConfigMap) else None
        if seen.problems or (row is None and not seen.gone):  # also if it was too long to be kept
            self._complain("; ".join(each.message for each in seen.problems))
            return
        try:
            found = read_mesh_config(row) if row is not None else None
        except MeshConfigError as error:
            self._complain(str(error))
            return
        if found is None and self._config is not None:
            self._complain("the ConfigMap is gone" if row is None else f"there is no `{MESH_KEY}` in it")
            return
        self._problem = None
        if found is not None and found != self._config:
            self._config = found
            self._on_change(found)
        self._note()

    def _refuse(self, problem: Finding | None) -> None:
        self._refusal = problem
        self._note()

    def _complain(self, message: str) -> None:
        kept = "nothing is served before it is" if not self.known.is_set() else "what was known of it stays in force"
        short = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
        text = printable(f"Istio's mesh configuration cannot be read: {short}; {kept}")
        self._problem = Finding(code=NOT_READABLE, object=ObjectRef("ConfigMap", *self.key), message=text)
        _log.warning("Istio's mesh configuration cannot be read", config_map=str(self.key), cause=text)
        self._note()

    def _note(self) -> None:
        """Tell what is wrong now, and whether it is known."""
        self._tell([each for each in (self._problem, self._refusal) if each is not None])
        if self._problem is not None:
            return
        if self._watch.synced.is_set() or self._watch.forbidden or self._config is not None:
            if self._watch.forbidden and not self.known.is_set():
                _log.warning("Istio's mesh configuration may not be read: its defaults are used")
            self.known.set()
