"""One static configuration per Gateway, which Envoy runs as it is: everything that xDS would deliver, written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from meshgw.emit.dump import reveal
from meshgw.emit.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTE_CONFIGURATION, SECRET, Resource
from meshgw.emit.tables import RESOURCES
from meshgw.engine import View
from meshgw.names import REGEX_PROGRAM_SIZE

Document = dict[str, Any]

_INTERNAL_LISTENERS: Final = {
    "name": "envoy.bootstrap.internal_listener",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
    },
}
_RUNTIME: Final = {
    "name": "meshgw",
    "static_layer": {
        "re2.max_program_size.error_level": REGEX_PROGRAM_SIZE,
        "re2.max_program_size.warn_level": REGEX_PROGRAM_SIZE,
    },
}


def emit_static(resources: Iterable[Resource], *, node: str = "meshgw") -> Document:
    """Return the bootstrap document for the resources of one Gateway. It holds the Gateway's private keys.

    A listener or cluster whose secrets do not exist yet is left out: over xDS it would wait for them, in a file
    it would keep Envoy from starting.
    """
    found: dict[str, dict[str, Document]] = {}
    for resource in sorted(resources, key=lambda item: (item.type_url, item.name)):
        found.setdefault(resource.type_url, {})[resource.name] = reveal(resource)
    secrets, routes, endpoints = (found.get(kind, {}) for kind in (SECRET, ROUTE_CONFIGURATION, ENDPOINTS))
    listeners = [
        _inline_routes(document, routes)
        for document in found.get(LISTENER, {}).values()
        if _complete(document, secrets)
    ]
    clusters = [
        _inline_endpoints(document, endpoints)
        for document in found.get(CLUSTER, {}).values()
        if _complete(document, secrets)
    ]
    static = {
        "listeners": [_without_sds(document) for document in listeners],
        "clusters": [_without_sds(document) for document in clusters],
        "secrets": list(secrets.values()),
    }
    return {
        "node": {"id": node, "cluster": node},
        "static_resources": {name: items for name, items in static.items() if items},
        "bootstrap_extensions": [_INTERNAL_LISTENERS],
        "layered_runtime": {"layers": [_RUNTIME]},
    }


def render_static(view: View) -> dict[str, Document]:
    """Return the bootstrap document of every Gateway that has resources, by namespace/name."""
    gateways: dict[str, list[Resource]] = {}
    for key, resource in view.all(RESOURCES):
        gateways.setdefault(str(key.gateway), []).append(resource)
    return {name: emit_static(resources, node=name) for name, resources in gateways.items()}


def _complete(document: Document, secrets: Mapping[str, Document]) -> bool:
    return all(node["name"] in secrets for node in _nodes(document) if "sds_config" in node)


def _inline_routes(document: Document, routes: Mapping[str, Document]) -> Document:
    for node in _nodes(document):
        if "rds" in node:
            name = node.pop("rds")["route_config_name"]
            node["route_config"] = routes.get(name, {"name": name})
    return document


def _inline_endpoints(document: Document, endpoints: Mapping[str, Document]) -> Document:
    if document.get("type") == "EDS":
        name = document["name"]
        del document["eds_cluster_config"]
        document["type"] = "STATIC"
        document["load_assignment"] = endpoints.get(name, {"cluster_name": name})
    return document


def _without_sds(document: Document) -> Document:
    """A secret without a source is one of the document's own."""
    for node in _nodes(document):
        node.pop("sds_config", None)
    return document


def _nodes(value: Any) -> Iterator[Document]:
    """Yield every object of a document, outer ones first."""
    if isinstance(value, dict):
        yield value
        for item in list(value.values()):
            yield from _nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _nodes(item)
