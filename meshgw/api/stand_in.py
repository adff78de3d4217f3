"""What stands for a policy that cannot be decoded while no good version of it is known: an object that refuses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from meshgw.api.istio import AuthorizationPolicy, AuthorizationPolicySpec, PolicyTargetReference
from meshgw.api.meta import ApiStruct, ObjectMeta, ObjectRef, StrictResource
from meshgw.api.policy import (
    BackendTLSPolicy,
    BackendTLSPolicySpec,
    BackendTLSPolicyValidation,
    LocalPolicyTargetReferenceWithSectionName,
)
from meshgw.api.registry import Kind
from meshgw.api.scalars import printable

T = TypeVar("T", bound=ApiStruct)

TARGETS: Final = "spec.targetRefs"
"""In the unknown fields of what stands for a policy whose targets cannot be read."""


def stand_in(kind: Kind, ref: ObjectRef, document: Mapping[str, Any], reason: str) -> StrictResource | None:
    """The object for a document of that kind and identity, None if nothing has to stand for it.

    It has the targets of the document if these at least can be read.
    """
    build = _BY_STRUCT.get(kind.struct)
    if build is None or not ref.name:
        return None
    spec = document.get("spec")
    metadata = ObjectMeta(name=printable(ref.name), namespace=printable(ref.namespace))
    return build(metadata, spec, f"cannot be read ({printable(reason)})")


def _authorization_policy(metadata: ObjectMeta, spec: object, reason: str) -> StrictResource:
    """A policy that denies; without targets it is, as any such policy, the business of others."""
    refs = _targets(spec, PolicyTargetReference, "targetRefs", "targetRef")
    unknown = () if refs is not None else (TARGETS,)
    return AuthorizationPolicy(
        metadata=metadata,
        spec=AuthorizationPolicySpec(target_refs=refs or ()),
        unknown_fields=unknown,
        unreadable=reason,
    )


def _backend_tls_policy(metadata: ObjectMeta, spec: object, reason: str) -> StrictResource:
    """A policy that closes its backends; it must have had targets, so having none means that they are unknown."""
    refs = _targets(spec, LocalPolicyTargetReferenceWithSectionName, "targetRefs") or ()
    unknown = () if refs else (TARGETS,)
    return BackendTLSPolicy(
        metadata=metadata,
        spec=BackendTLSPolicySpec(target_refs=refs, validation=BackendTLSPolicyValidation(hostname="")),
        unknown_fields=unknown,
        unreadable=reason,
    )


_BY_STRUCT: Final[Mapping[type, Callable[[ObjectMeta, object, str], StrictResource]]] = {
    AuthorizationPolicy: _authorization_policy,
    BackendTLSPolicy: _backend_tls_policy,
}


def _targets(spec: object, struct: type[T], *fields: str) -> tuple[T, ...] | None:
    """The targets that some fields name, None if there may be others."""
    if not isinstance(spec, Mapping):
        return None
    named = [name for name in spec if str(name).lower().startswith("target")]
    if any(name not in fields for name in named):
        return None
    listed = [spec[name] if isinstance(spec[name], Sequence) else [spec[name]] for name in named]
    wire = {field.encode_name for field in msgspec.structs.fields(struct)}
    refs = [ref for refs in listed for ref in refs]
    if not all(isinstance(ref, Mapping) and ref.keys() <= wire for ref in refs):
        return None
    try:
        return msgspec.convert(tuple(refs), tuple[struct, ...])  # type: ignore[valid-type]  # the type is a value here
    except msgspec.ValidationError:
        return None
