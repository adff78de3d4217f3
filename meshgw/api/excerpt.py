"""What is kept of ConfigMaps and Secrets: a cluster is full of them, and next to nothing in them is ever read."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from meshgw.api.core import ConfigMap, Secret
from meshgw.api.meta import Resource

MAX_VALUE: Final = 256 * 1024
"""Bytes or characters of the longest value that is kept; a bundle of all public roots is shorter."""

KEYS: Final[Mapping[type[Resource], frozenset[str]]] = {
    ConfigMap: frozenset({"ca.crt", "mesh", "root-cert.pem"}),
    Secret: frozenset({"ca.crt", "tls.crt", "tls.key"}),
}
"""The keys of their data that somebody reads, by struct."""


def excerpt(resource: Resource) -> tuple[Resource, tuple[str, ...]]:
    """Return what is read of an object, and the paths of the values that would be if they were not too long.

    Annotations go too, for the one that `kubectl apply` leaves repeats all data.
    """
    keys = KEYS.get(type(resource))
    if keys is None:
        return resource, ()
    metadata = replace(resource.metadata, annotations={})
    if isinstance(resource, Secret):
        data, long = _kept(resource.data, keys, "data")
        return replace(resource, metadata=metadata, data=data), long
    if not isinstance(resource, ConfigMap):
        return resource, ()
    text, long = _kept(resource.data, keys, "data")
    binary, more = _kept(resource.binary_data, keys, "binaryData")
    return replace(resource, metadata=metadata, data=text, binary_data=binary), long + more


def _kept(data: Mapping[str, Any], keys: frozenset[str], path: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the values that are kept, and the paths of those that are too long."""
    read = {key: data[key] for key in sorted(keys & data.keys())}
    kept = {key: value for key, value in read.items() if len(value) <= MAX_VALUE}
    return kept, tuple(f"{path}[{key}]" for key in read if key not in kept)
