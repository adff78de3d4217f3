"""Parameters of Gateways: those of the class with those of the Gateway over them."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import msgspec

from meshgw.api import gateway as api
from meshgw.api.meshgw import MESHGW_GROUP, GatewayParametersSpec, Overlays
from meshgw.api.meta import ApiStruct, Key
from meshgw.engine import View
from meshgw.ir.gateway import OwnParameters
from meshgw.resolve.conditions import Problem
from meshgw.resolve.grants import kind_name
from meshgw.resolve.infrastructure import reserved_because
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import GATEWAY_CLASSES, GATEWAY_PARAMETERS

S = TypeVar("S", bound=ApiStruct)

INVALID_PARAMETERS = "InvalidParameters"

SAFE_FIELDS = frozenset(
    {
        "replicas",
        "daemon_set",
        "resources",
        "service",
        "envoy",
        "autoscaling",
        "pod_disruption_budget",
    }
)
"""What Gateways may say of their own where only SAFE is permitted, but for arguments of Envoy and reserved names."""

_HOW_MANY = ("replicas", "daemon_set", "autoscaling")
"""Ways to say how many pods there are: the more specific object chooses one."""
_WHOLE = ("pod_disruption_budget", "autoscaling")
"""Fields that are replaced, not merged: what they hold belongs together."""


class Parameters(NamedTuple):
    """Parameters as they hold for a Gateway; overlays go over its objects in order."""

    spec: GatewayParametersSpec
    overlays: tuple[Overlays, ...]


def class_parameters(view: View, row: api.GatewayClass) -> GatewayParametersSpec | Problem:
    """Return the parameters that a class names, or what is wrong with its reference."""
    ref = row.spec.parameters_ref
    if ref is None:
        return GatewayParametersSpec()
    return _find(view, ref.group, ref.kind, Key(ref.namespace or "", ref.name), "spec.parametersRef")


def own_parameters(view: View, row: api.Gateway) -> GatewayParametersSpec | Problem:
    """Return the parameters that a Gateway itself names, or what is wrong with its reference."""
    ref = row.spec.infrastructure.parameters_ref if row.spec.infrastructure else None
    if ref is None:
        return GatewayParametersSpec()
    field = "spec.infrastructure.parametersRef"
    permitted = read_settings(view).own_parameters
    if permitted is OwnParameters.NONE:
        message = "the installation permits GatewayParameters to classes only"
        return Problem(INVALID_PARAMETERS, "MG7005", field, message)
    key = Key(row.metadata.namespace, ref.name)
    found = _find(view, ref.group, ref.kind, key, field)
    if isinstance(found, Problem) or permitted is OwnParameters.ANY:
        return found
    unsafe = unsafe_field(found)
    if not unsafe:
        return found
    message = f"the installation permits {unsafe} to GatewayParameters of classes only, not to {key}"
    return Problem(INVALID_PARAMETERS, "MG7005", field, message)


def unsafe_field(spec: GatewayParametersSpec) -> str:
    """Return the first field by which parameters change what pods run, as whom or how confined; "" if there is none."""
    for field in msgspec.structs.fields(spec):
        if field.name not in SAFE_FIELDS and getattr(spec, field.name) is not None:
            return f"spec.{field.encode_name}"
    if spec.envoy is not None and spec.envoy.extra_args is not None:
        return "spec.envoy.extraArgs"
    if spec.service is not None:
        for part, given in (("labels", spec.service.labels), ("annotations", spec.service.annotations)):
            for name in sorted(given):
                if reserved_because(name):
                    return f"spec.service.{part}[{name}]"
    return ""


def effective_parameters(view: View, row: api.Gateway) -> Parameters | Problem:
    """Return the parameters that hold for a Gateway."""
    its_class = view.get(GATEWAY_CLASSES, Key("", row.spec.gateway_class_name))
    base = GatewayParametersSpec() if its_class is None else class_parameters(view, its_class)
    if isinstance(base, Problem):
        return base
    own = own_parameters(view, row)
    if isinstance(own, Problem):
        return own
    overlays = tuple(part.overlays for part in (base, own) if part.overlays is not None)
    return Parameters(msgspec.structs.replace(merge_parameters(base, own), overlays=None), overlays)


def merge_parameters(base: GatewayParametersSpec, own: GatewayParametersSpec) -> GatewayParametersSpec:
    """Return parameters with more specific ones over them.

    Objects merge field by field and labels, annotations and the like by key; everything else is replaced.
    """
    if own == GatewayParametersSpec():
        return base
    if own.self_managed is not None or base.self_managed is not None:
        return own
    if any(getattr(own, name) is not None for name in _HOW_MANY):
        base = msgspec.structs.replace(base, **dict.fromkeys(_HOW_MANY))
    return _merge(base, own)


def _merge(base: S, own: S) -> S:
    merged: dict[str, Any] = {}
    for field in msgspec.structs.fields(base):
        old, new = getattr(base, field.name), getattr(own, field.name)
        if isinstance(old, ApiStruct) and isinstance(new, ApiStruct) and field.name not in _WHOLE:
            merged[field.name] = _merge(old, new)
        elif field.default_factory is dict:
            merged[field.name] = {**old, **new}
        else:
            merged[field.name] = old if new is None else new
    return msgspec.structs.replace(base, **merged)


def _find(view: View, group: str, kind: str, key: Key, field: str) -> GatewayParametersSpec | Problem:
    if (group, kind) != (MESHGW_GROUP, "GatewayParameters"):
        message = (
            f"parametersRef names a {kind_name(group, kind)}, not a {kind_name(MESHGW_GROUP, 'GatewayParameters')}"
        )
        return Problem(INVALID_PARAMETERS, "MG7001", field, message)
    if not key.namespace:
        return Problem(INVALID_PARAMETERS, "MG7001", f"{field}.namespace", "parametersRef must name a namespace")
    found = view.get(GATEWAY_PARAMETERS, key)
    if found is None:
        return Problem(INVALID_PARAMETERS, "MG7001", field, f"there are no GatewayParameters {key}")
    return found.spec
