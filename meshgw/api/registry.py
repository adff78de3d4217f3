"""The one list of kinds: what is decoded, watched and checked for permissions."""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from meshgw.api.core import ConfigMap, EndpointSlice, Namespace, Node, Pod, Secret, Service, ServiceAccount
from meshgw.api.gateway import GATEWAY_GROUP, Gateway, GatewayClass, ListenerSet
from meshgw.api.grpc import GRPCRoute
from meshgw.api.http import HTTPRoute
from meshgw.api.istio import AuthorizationPolicy
from meshgw.api.l4 import TCPRoute, TLSRoute, UDPRoute
from meshgw.api.meshgw import MESHGW_GROUP, GatewayParameters
from meshgw.api.meta import Resource
from meshgw.api.policy import BackendTLSPolicy, ReferenceGrant

_READ: Final = ("list", "watch")
_STATUS: Final = (*_READ, "patch status")


class Kind(Struct, frozen=True, kw_only=True):
    """A kind of object: its names, its struct, and how it is used.

    ``versions`` lists the accepted ones, preferred first. ``optional`` kinds may be missing from a
    cluster. ``verbs`` is what the controller needs. A ``partial`` struct has only the fields that
    are read, so others are no mistake. In a ``strict`` kind, whose struct is a StrictResource, an
    ignored field could widen access. Objects of a ``rooted`` kind in Istio's root namespace hold for
    all namespaces, so they are read there wherever else nothing is.
    """

    name: str
    group: str
    versions: tuple[str, ...]
    plural: str
    struct: type[Resource]
    namespaced: bool = True
    optional: bool = False
    verbs: tuple[str, ...] = _READ
    partial: bool = False
    strict: bool = False
    rooted: bool = False

    @property
    def api_version(self) -> str:
        """Group and preferred version, as in ``apiVersion``."""
        return f"{self.group}/{self.versions[0]}" if self.group else self.versions[0]

    def __str__(self) -> str:
        return self.name


def _gateway_api(
    struct: type[Resource],
    plural: str,
    *older: str,
    namespaced: bool = True,
    optional: bool = False,
    verbs: tuple[str, ...] = _STATUS,
    strict: bool = False,
) -> Kind:
    return Kind(
        name=struct.__name__,
        group=GATEWAY_GROUP,
        versions=("v1", *older),
        plural=plural,
        struct=struct,
        namespaced=namespaced,
        optional=optional,
        verbs=verbs,
        strict=strict,
    )


def _core(struct: type[Resource], plural: str, *, namespaced: bool = True, partial: bool = False) -> Kind:
    return Kind(
        name=struct.__name__,
        group="",
        versions=("v1",),
        plural=plural,
        struct=struct,
        namespaced=namespaced,
        partial=partial,
    )


KINDS: Final[tuple[Kind, ...]] = (
    _core(Namespace, "namespaces", namespaced=False, partial=True),
    _core(Node, "nodes", namespaced=False, partial=True),
    _core(Service, "services"),
    Kind(
        name="EndpointSlice", group="discovery.k8s.io", versions=("v1",), plural="endpointslices", struct=EndpointSlice
    ),
    _core(Pod, "pods", partial=True),
    _core(Secret, "secrets"),
    _core(ConfigMap, "configmaps"),
    _core(ServiceAccount, "serviceaccounts", partial=True),
    _gateway_api(GatewayClass, "gatewayclasses", "v1beta1", namespaced=False),
    _gateway_api(Gateway, "gateways", "v1beta1"),
    _gateway_api(ListenerSet, "listenersets", optional=True),
    _gateway_api(HTTPRoute, "httproutes", "v1beta1"),
    _gateway_api(GRPCRoute, "grpcroutes", optional=True),
    _gateway_api(TLSRoute, "tlsroutes", "v1alpha3", "v1alpha2", optional=True),
    _gateway_api(TCPRoute, "tcproutes", "v1alpha2", optional=True),
    _gateway_api(UDPRoute, "udproutes", "v1alpha2", optional=True),
    _gateway_api(ReferenceGrant, "referencegrants", "v1beta1", verbs=_READ),
    _gateway_api(BackendTLSPolicy, "backendtlspolicies", "v1alpha3", optional=True, strict=True),
    Kind(
        name="AuthorizationPolicy",
        group="security.istio.io",
        versions=("v1", "v1beta1"),
        plural="authorizationpolicies",
        struct=AuthorizationPolicy,
        optional=True,
        strict=True,
        rooted=True,
    ),
    Kind(
        name="GatewayParameters",
        group=MESHGW_GROUP,
        versions=("v1alpha1",),
        plural="gatewayparameters",
        struct=GatewayParameters,
        optional=True,
    ),
)


class Registry:
    """Kinds by the names that documents use; names are unique within one registry."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds: Final = tuple(kinds)
        self.groups: Final = frozenset(kind.group for kind in self.kinds)
        self._by_api_version: Final = {
            (f"{kind.group}/{version}" if kind.group else version, kind.name): kind
            for kind in self.kinds
            for version in kind.versions
        }
        self._by_name: Final = {kind.name: kind for kind in self.kinds}
        self._by_struct: Final = {kind.struct: kind for kind in self.kinds}
        if len(self._by_name) != len(self.kinds):
            raise ValueError("two kinds have one name")

    def with_kinds(self, kinds: Iterable[Kind]) -> "Registry":
        """A registry that knows these kinds too."""
        return Registry((*self.kinds, *kinds))

    def lookup(self, api_version: str, name: str) -> Kind | None:
        """The kind of that ``apiVersion`` and ``kind``, or None."""
        return self._by_api_version.get((api_version, name))

    def by_name(self, name: str) -> Kind | None:
        """The kind of that name, whatever its version."""
        return self._by_name.get(name)

    def kind_of(self, resource: Resource) -> Kind:
        """The kind of a typed object; KeyError for a struct that is not registered."""
        return self._by_struct[type(resource)]


REGISTRY: Final = Registry(KINDS)
"""The kinds that are always read; policy features add theirs."""
