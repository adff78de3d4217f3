"""Strategic merge patches of Kubernetes objects: overlays of what a Gateway's objects would be without them.

As in ``kubectl patch``: mappings merge, a null removes a field, lists are replaced unless Kubernetes knows them by a
key of their items. ``$patch: delete`` and ``$patch: replace`` remove or replace a mapping, or an item of such a list.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from meshgw.names import LABEL_GATEWAY_NAME, LABEL_INSTANCE, LABEL_ISTIO_MANAGED

Violation = tuple[str, str]

_POD: Final = {
    "containers": "name",
    "containers.env": "name",
    "containers.ports": "containerPort",
    "containers.volumeDevices": "devicePath",
    "containers.volumeMounts": "mountPath",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "initContainers.env": "name",
    "initContainers.ports": "containerPort",
    "initContainers.volumeDevices": "devicePath",
    "initContainers.volumeMounts": "mountPath",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumes": "name",
}
_WORKLOAD: Final = {f"spec.template.spec.{path}": key for path, key in _POD.items()}
MERGE_KEYS: Final[Mapping[str, Mapping[str, str]]] = {
    "ConfigMap": {},
    "DaemonSet": _WORKLOAD,
    "Deployment": _WORKLOAD,
    "HorizontalPodAutoscaler": {},
    "PodDisruptionBudget": {},
    "Service": {"spec.ports": "port"},
    "ServiceAccount": {"imagePullSecrets": "name", "secrets": "name"},
}
"""By kind: the lists that merge, and by which field of their items."""

_PATCH: Final = "$patch"
_DELETE: Final = "delete"
_REPLACE: Final = "replace"
_IDENTITY: Final = ("apiVersion", "kind", "status")
_METADATA: Final = ("name", "namespace", "uid", "ownerReferences", "finalizers", "generateName")
_LABELS: Final = (LABEL_GATEWAY_NAME, LABEL_INSTANCE, LABEL_ISTIO_MANAGED)
_WORKLOADS: Final = frozenset({"DaemonSet", "Deployment"})
REMOVABLE: Final = frozenset({"PodDisruptionBudget"})
"""Kinds that an overlay may leave out altogether."""


def check_overlay(kind: str, patch: Mapping[str, Any]) -> Iterator[Violation]:
    """What is wrong with an overlay, whatever it is laid over: a malformed patch, or one that makes another object."""
    yield from _check(patch, "", MERGE_KEYS[kind])
    if patch.get(_PATCH) == _DELETE and kind not in REMOVABLE:
        yield _PATCH, f"the {kind} cannot be left out"
    elif patch.get(_PATCH) == _REPLACE:
        yield _PATCH, f"the {kind} cannot be replaced as a whole"
    for path in _fixed(kind):
        if _names(patch, path):
            yield ".".join(path), "cannot be changed"


def _fixed(kind: str) -> Iterator[tuple[str, ...]]:
    """Paths that say which object it is, whose it is, as whom it runs and what it selects."""
    yield from ((name,) for name in _IDENTITY)
    yield from (("metadata", name) for name in _METADATA)
    yield from (("metadata", "labels", name) for name in _LABELS)
    yield "spec", "selector"
    if kind in _WORKLOADS:
        yield from (("spec", "template", "metadata", "labels", name) for name in _LABELS)
        yield from (("spec", "template", "spec", name) for name in ("serviceAccountName", "serviceAccount"))
    if kind == "HorizontalPodAutoscaler":
        yield "spec", "scaleTargetRef"


def _names(patch: Any, path: Sequence[str]) -> bool:
    """Whether a patch says anything of a path, by removing or replacing what holds it too."""
    for name in path[:-1]:
        if name not in patch:
            return False
        patch = patch[name]
        if not isinstance(patch, Mapping) or _PATCH in patch:
            return True
    return path[-1] in patch


def _check(value: Any, path: str, merged: Mapping[str, str], *, keyless: str = "") -> Iterator[Violation]:
    if path in merged and not keyless:
        if value is None:
            return
        if not isinstance(value, list | tuple):
            yield path, "must be a list"
            return
        for index, item in enumerate(value):
            yield from _check_item(item, f"{path}[{index}]", merged[path], path, merged)
    elif isinstance(value, Mapping):
        yield from _check_directives(value, path)
        for name, item in value.items():
            if not name.startswith("$"):
                yield from _check(item, f"{keyless or path}.{name}".lstrip("."), merged)


def _check_item(item: Any, where: str, key: str, path: str, merged: Mapping[str, str]) -> Iterator[Violation]:
    if not isinstance(item, Mapping):
        yield where, "must be an object"
    elif item.get(_PATCH) == _REPLACE and len(item) == 1:
        return  # says that the other items are the whole list
    elif key not in item:
        yield where, f"must have {key}, by which this list is merged"
    else:
        yield from _check(item, where, merged, keyless=path)


def _check_directives(value: Mapping[str, Any], path: str) -> Iterator[Violation]:
    for name in value:
        if name == _PATCH:
            if value[name] not in {_DELETE, _REPLACE, "merge"}:
                yield f"{path}.{name}".lstrip("."), "must be delete, replace or merge"
        elif name.startswith("$"):
            yield f"{path}.{name}".lstrip("."), "is not supported: only $patch is"


def lay_over(kind: str, document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any] | None:
    """The object with an overlay that was checked, None if it leaves the object out."""
    if patch.get(_PATCH) == _DELETE:
        return None
    return _merge(document, patch, "", MERGE_KEYS[kind])


def _merge(base: Mapping[str, Any], patch: Mapping[str, Any], path: str, merged: Mapping[str, str]) -> dict[str, Any]:
    result = {} if patch.get(_PATCH) == _REPLACE else dict(base)
    for name, value in patch.items():
        if name == _PATCH:
            continue
        where = f"{path}.{name}".lstrip(".")
        if value is None or (isinstance(value, Mapping) and value.get(_PATCH) == _DELETE):
            result.pop(name, None)
        elif isinstance(value, Mapping):
            below = result.get(name)
            result[name] = _merge(below if isinstance(below, Mapping) else {}, value, where, merged)
        elif where in merged:
            below = result.get(name)
            result[name] = _merge_list(below if isinstance(below, list | tuple) else (), value, where, merged)
        else:
            result[name] = value
    return result


def _merge_list(base: Sequence[Any], patch: Sequence[Any], path: str, merged: Mapping[str, str]) -> list[Any]:
    key = merged[path]
    items = [item for item in patch if item.keys() != {_PATCH}]
    result = [] if len(items) < len(patch) else list(base)
    for item in items:
        found = [index for index, other in enumerate(result) if _same(item, other, key)]
        if item.get(_PATCH) == _DELETE:
            result = [other for other in result if not _same(item, other, key)]
        elif found:
            result[found[0]] = _merge(result[found[0]], item, path, merged)
        else:
            result.append(_merge({}, item, path, merged))
    return result


def _same(item: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    """Whether an item is about another: by its key, and for ports by the protocol if it says one."""
    return all(other.get(name) == item[name] for name in (key, "protocol") if name in item)
