"""What every API object shares: identity and metadata."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec import Struct

from meshgw.api.scalars import MaybeNamespace, Subdomain

_INITIALISMS: Final = {
    "client_ip": "clientIP",
    "cluster_ip": "clusterIP",
    "cluster_ips": "clusterIPs",
    "external_ips": "externalIPs",
    "host_ip": "hostIP",
    "load_balancer_ip": "loadBalancerIP",
    "pod_ip": "podIP",
    "pod_ips": "podIPs",
    "provider_id": "providerID",
    "well_known_ca_certificates": "wellKnownCACertificates",
}


def wire_name(attribute: str) -> str:
    """The field name of an attribute: camelCase, with the initialisms Kubernetes keeps in capitals."""
    if attribute in _INITIALISMS:
        return _INITIALISMS[attribute]
    first, *rest = attribute.strip("_").split("_")
    return first + "".join(part.title() for part in rest)


class ApiStruct(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Base of every API value: immutable, compared by content, camelCase on the wire.

    ``gc=False`` is safe because a decoded tree has no cycles.
    """


class Key(NamedTuple):
    """Identity of an object among those of its kind; ``namespace`` is empty for cluster-scoped kinds."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class ObjectRef(NamedTuple):
    """Identity of an object among all: ``str()`` gives ``HTTPRoute default/reviews``."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"

    @property
    def key(self) -> Key:
        """The identity within the kind."""
        return Key(self.namespace, self.name)


class ObjectMeta(ApiStruct, frozen=True, kw_only=True):
    """Object metadata; timestamps stay RFC 3339 text, which sorts by age when all are in UTC."""

    name: Subdomain
    namespace: MaybeNamespace = ""
    uid: str = ""
    generation: int = 1
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class OwnerReference(ApiStruct, frozen=True, kw_only=True):
    """An object that takes this one with it when it goes."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class OwnedMeta(ObjectMeta, frozen=True, kw_only=True):
    """Metadata with owners."""

    owner_references: tuple[OwnerReference, ...] = ()


class Resource(ApiStruct, frozen=True, kw_only=True):
    """Base of every top-level object."""

    metadata: ObjectMeta

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return Key(self.metadata.namespace, self.metadata.name)


class StrictResource(Resource, frozen=True, kw_only=True):
    """Base of objects in which a field that is ignored could widen access.

    ``unknown_fields`` holds the paths the decoder did not understand: fields it does not know, and
    nulls. ``unreadable`` says why the document could not be decoded at all; the object then stands for
    it, and nothing but its name and targets is known.
    """

    unknown_fields: tuple[str, ...] = ()
    unreadable: str = ""

    @property
    def unknown_target(self) -> str | None:
        """The first field that was not understood and says what is meant, None if all that is is known."""
        return next((path for path in self.unknown_fields if path.lower().startswith("spec.target")), None)


class LabelSelectorRequirement(ApiStruct, frozen=True, kw_only=True):
    """One expression of a label selector; the schema does not limit ``operator``, so an unknown one can arrive."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(ApiStruct, frozen=True, kw_only=True):
    """A label selector: all labels and all expressions must match; an empty one matches everything."""

    match_labels: Mapping[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()
