"""Gateway API v1.6.1: ReferenceGrant and BackendTLSPolicy."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from meshgw.api.gateway import LocalObjectReference
from meshgw.api.meta import ApiStruct, Resource, StrictResource
from meshgw.api.scalars import (
    URI_PATTERN,
    WELL_KNOWN_CA_PATTERN,
    Group,
    Hostname,
    KindName,
    NamespaceName,
    ObjectName,
    OptionValue,
    PreciseHostname,
    SectionName,
)


class ReferenceGrantFrom(ApiStruct, frozen=True, kw_only=True):
    """Who may refer."""

    group: Group
    kind: KindName
    namespace: NamespaceName


class ReferenceGrantTo(ApiStruct, frozen=True, kw_only=True):
    """What may be referred to; no ``name`` means all of the kind."""

    group: Group
    kind: KindName
    name: ObjectName | None = None


class ReferenceGrantSpec(ApiStruct, frozen=True, kw_only=True):
    """Every ``from_`` may refer to every ``to`` in the grant's namespace."""

    from_: Annotated[tuple[ReferenceGrantFrom, ...], Meta(min_length=1)]
    to: Annotated[tuple[ReferenceGrantTo, ...], Meta(min_length=1)]


class ReferenceGrant(Resource, frozen=True, kw_only=True):
    """A ReferenceGrant."""

    spec: ReferenceGrantSpec


class LocalPolicyTargetReferenceWithSectionName(LocalObjectReference, frozen=True, kw_only=True):
    """The target of a policy, in its namespace; for a Service ``section_name`` is a port's name."""

    section_name: SectionName | None = None


class SubjectAltName(ApiStruct, frozen=True, kw_only=True):
    """A name the backend's certificate must carry; the field that ``type`` names is set."""

    type: Literal["Hostname", "URI"]
    hostname: Hostname | None = None
    uri: Annotated[str, Meta(pattern=URI_PATTERN, max_length=253)] | None = None


class BackendTLSPolicyValidation(ApiStruct, frozen=True, kw_only=True):
    """How a backend's certificate is verified; ``hostname`` is the SNI, and the name unless SANs are listed."""

    ca_certificate_refs: tuple[LocalObjectReference, ...] = ()
    well_known_ca_certificates: Annotated[str, Meta(pattern=WELL_KNOWN_CA_PATTERN, max_length=253)] | None = None
    hostname: PreciseHostname
    subject_alt_names: tuple[SubjectAltName, ...] = ()


class BackendTLSPolicySpec(ApiStruct, frozen=True, kw_only=True):
    """TLS towards the targets."""

    target_refs: Annotated[tuple[LocalPolicyTargetReferenceWithSectionName, ...], Meta(min_length=1)]
    validation: BackendTLSPolicyValidation
    options: Mapping[str, OptionValue] = {}


class BackendTLSPolicy(StrictResource, frozen=True, kw_only=True):
    """A BackendTLSPolicy; one with fields that were not understood must close its backends."""

    spec: BackendTLSPolicySpec

    @property
    def unknown_target(self) -> str | None:
        """The same, but what is unknown inside of a reference leaves its Service known."""
        path = super().unknown_target
        return None if path is None or path.startswith("spec.targetRefs[") else path
