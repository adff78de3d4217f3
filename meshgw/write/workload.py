"""The Kubernetes objects of a Gateway's proxies as they are found: whose they are, and what they say."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Raw

from meshgw.api.gateway import GATEWAY_GROUP
from meshgw.api.meta import ApiStruct, Key, ObjectRef, OwnedMeta, OwnerReference, Resource
from meshgw.api.registry import Kind
from meshgw.names import LABEL_MANAGED_BY

MANAGER: Final = "meshgw"
SELECTOR: Final = f"{LABEL_MANAGED_BY}={MANAGER}"
"""What the objects' watches select by label."""
ANNOTATION_CONTROLLER: Final = "meshgw.dev/controller"
"""The name of the controller that applied an object last: there may be several installations in a cluster."""
ANNOTATION_INSTALLATION: Final = "meshgw.dev/installation"
"""The namespace in which that controller is installed."""
ANNOTATION_APPLIED: Final = "meshgw.dev/applied"
"""A digest of what was applied last."""

_ABSENT: Final = Raw(b"")
_COUNTED: Final = ("deployment.kubernetes.io/", "deprecated.daemonset.")
"""Annotations in which controllers of Kubernetes count."""


class OwnedObject(Resource, frozen=True, kw_only=True):
    """Any object of a proxy: what identifies it is typed, the rest is as the API server wrote it."""

    metadata: OwnedMeta
    spec: Raw = _ABSENT
    data: Raw = _ABSENT
    binary_data: Raw = _ABSENT
    immutable: Raw = _ABSENT
    automount_service_account_token: Raw = _ABSENT
    image_pull_secrets: Raw = _ABSENT
    status: Raw = _ABSENT


def _kind(name: str, group: str, version: str, plural: str) -> Kind:
    verbs = ("get", "list", "watch", "create", "patch", "delete")
    return Kind(
        name=name, group=group, versions=(version,), plural=plural, struct=OwnedObject, verbs=verbs, partial=True
    )


PROXY_KINDS: Final = (
    _kind("ConfigMap", "", "v1", "configmaps"),
    _kind("DaemonSet", "apps", "v1", "daemonsets"),
    _kind("Deployment", "apps", "v1", "deployments"),
    _kind("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers"),
    _kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"),
    _kind("Service", "", "v1", "services"),
    _kind("ServiceAccount", "", "v1", "serviceaccounts"),
)
"""The kinds of objects that proxies are made of, watched by `SELECTOR`, with the verbs that their writer needs."""


class Problem(msgspec.Struct, frozen=True, order=True):
    """Why an object of a Gateway's proxies is not as it should be; `reason` is one word, as conditions have it."""

    gateway: Key
    object: ObjectRef
    reason: str
    message: str


class Found(msgspec.Struct, frozen=True):
    """An object as it was last seen. Equal digests mean that nobody changed what it should be, whatever its status."""

    uid: str
    resource_version: str
    digest: bytes
    managed: bool
    controller: str
    installation: str
    owners: tuple[OwnerReference, ...]
    deleting: bool
    replaceable: bool

    def belongs_to(self, gateway: Key, uid: str) -> bool:
        """Whether it is that Gateway's, or of an earlier one of the same name: so it is ours to apply."""
        names = {owner.name for owner in self.owners if _is_gateway(owner)}
        return any(owner.uid == uid for owner in self.owners if uid) or (self.managed and gateway.name in names)

    def is_of(self, uid: str) -> bool:
        """Whether it was made for the Gateway of that uid, and stays."""
        return self.managed and not self.deleting and bool(uid) and any(owner.uid == uid for owner in self.owners)

    def is_only_of(self, uid: str) -> bool:
        """Whether it was made for the Gateway of that uid and for nobody else: so it is ours to delete."""
        return self.managed and bool(uid) and [owner.uid for owner in self.owners] == [uid]

    def gateway_in(self, namespace: str) -> Key:
        """Return the Gateway that it was made for, which has no name if there is none."""
        return Key(namespace, next((owner.name for owner in self.owners if _is_gateway(owner)), ""))


def _is_gateway(owner: OwnerReference) -> bool:
    return owner.kind == "Gateway" and owner.api_version.partition("/")[0] == GATEWAY_GROUP


def find(kind: str, found: OwnedObject, *, uid: str, resource_version: str) -> Found:
    """Return what the writer remembers of an object."""
    metadata = found.metadata
    return Found(
        uid=uid,
        resource_version=resource_version,
        digest=_digest(found),
        managed=metadata.labels.get(LABEL_MANAGED_BY) == MANAGER,
        controller=metadata.annotations.get(ANNOTATION_CONTROLLER, ""),
        installation=metadata.annotations.get(ANNOTATION_INSTALLATION, ""),
        owners=metadata.owner_references,
        deleting=metadata.deletion_timestamp is not None,
        replaceable=_is_replaceable(kind, found),
    )


def fingerprint(body: bytes) -> str:
    """Return a digest of what is applied."""
    return blake2b(body, digest_size=8).hexdigest()


def is_in_force(found: OwnedObject, body: bytes) -> bool:
    """Whether to apply `body` would change nothing: it was applied last, and nobody changed what it says.

    False also for what the API server writes in another way, such as quantities: applying that once more is harmless.
    """
    metadata = found.metadata
    if metadata.annotations.get(ANNOTATION_APPLIED) != fingerprint(body):
        return False
    wanted: dict[str, Any] = msgspec.json.decode(body)
    of_metadata = wanted.pop("metadata")
    labels, annotations = of_metadata.get("labels", {}), of_metadata.get("annotations", {})
    owners = msgspec.convert(of_metadata.get("ownerReferences", []), tuple[OwnerReference, ...])
    there = {name: msgspec.json.decode(raw) for name, raw in _contents(found) if raw}
    return (
        labels.items() <= metadata.labels.items()
        and annotations.items() <= metadata.annotations.items()
        and owners == metadata.owner_references
        and all(_holds(there.get(name), part) for name, part in wanted.items() if name not in {"apiVersion", "kind"})
    )


def _holds(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; others may have added fields, but no items of lists."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_holds(found.get(name), part) for name, part in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(found, list) and len(found) == len(wanted)
        return same and all(map(_holds, found, wanted))
    return bool(found == wanted)


def _contents(found: OwnedObject) -> list[tuple[str, bytes]]:
    """Return the fields of an object that are applied, by their names in JSON."""
    return [
        ("spec", bytes(found.spec)),
        ("data", bytes(found.data)),
        ("binaryData", bytes(found.binary_data)),
        ("immutable", bytes(found.immutable)),
        ("automountServiceAccountToken", bytes(found.automount_service_account_token)),
        ("imagePullSecrets", bytes(found.image_pull_secrets)),
    ]


def _digest(found: OwnedObject) -> bytes:
    """Return a digest of all but the status and what the API server counts and notes by itself."""
    metadata = found.metadata
    parts: tuple[Any, ...] = (
        sorted(metadata.labels.items()),
        sorted(item for item in metadata.annotations.items() if not item[0].startswith(_COUNTED)),
        metadata.owner_references,
        metadata.deletion_timestamp,
        *(msgspec.json.decode(raw) if raw else None for _name, raw in _contents(found)),
    )
    return blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=16).digest()


def _is_replaceable(kind: str, found: OwnedObject) -> bool:
    """Whether it can be deleted and made anew without anybody noticing.

    A workload without a ready pod serves nobody. A Service would lose its addresses, a ServiceAccount the tokens of
    running pods.
    """
    match kind:
        case "ConfigMap" | "HorizontalPodAutoscaler" | "PodDisruptionBudget":
            return True
        case "DaemonSet" | "Deployment":
            status = msgspec.json.decode(bytes(found.status) or b"{}", type=_Status)
            return status.ready_replicas == status.number_ready == 0
        case _:
            return False


class _Status(ApiStruct, frozen=True, kw_only=True):
    """Status of a Deployment or, with another word, of a DaemonSet."""

    ready_replicas: int = 0
    number_ready: int = 0
