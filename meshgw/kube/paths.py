"""Paths of the Kubernetes API."""

from __future__ import annotations

from urllib.parse import quote

from meshgw.api.meta import Key
from meshgw.api.registry import Kind

CRD_API: str = "apiextensions.k8s.io/v1"
LEASE_API: str = "coordination.k8s.io/v1"


def resource_path(api_version: str, plural: str, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Return the path of a collection, an object or a subresource; `api_version` as in documents (`v1`, `apps/v1`)."""
    parts = ["apis" if "/" in api_version else "api", *api_version.split("/")]
    if namespace:
        parts += ["namespaces", namespace]
    parts.append(plural)
    if name:
        parts.append(name)
    if subresource:
        if not name:
            raise ValueError("a subresource is one of an object")
        parts.append(subresource)
    if not {".", ".."}.isdisjoint(parts):
        raise ValueError("a path leads nowhere but to its object")
    return "/" + "/".join(quote(part, safe="") for part in parts)


def path_of(
    kind: Kind, key: Key | None = None, *, namespace: str = "", subresource: str = "", version: str = ""
) -> str:
    """Return the path of one object, or without a key of the collection (of one namespace, or of all).

    `version` is the served one, without group; the kind's preferred one by default.
    """
    api_version = f"{kind.group}/{version}".lstrip("/") if version else kind.api_version
    if key is not None:
        namespace = key.namespace
        if kind.namespaced and not namespace:
            raise ValueError(f"a {kind} has a namespace")
    return resource_path(
        api_version,
        kind.plural,
        namespace=namespace if kind.namespaced else "",
        name=key.name if key is not None else "",
        subresource=subresource,
    )


def crd_name(kind: Kind) -> str:
    """Return the name of the CustomResourceDefinition that would define the kind."""
    return f"{kind.plural}.{kind.group}"
