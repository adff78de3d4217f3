"""Which namespaces a listener or Gateway admits: Same, All, None, or those whose labels a selector picks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from meshgw.api.meta import Key, LabelSelector, LabelSelectorRequirement
from meshgw.engine import View
from meshgw.ir.gateway import AllowedNamespaces
from meshgw.resolve.tables import NAMESPACES

LABEL_NAME = "kubernetes.io/metadata.name"
"""Set by the API server on every Namespace."""


def allowed(source: str, selector: LabelSelector | None) -> AllowedNamespaces:
    """Return `from` and `selector` of the API in comparable form; a missing selector picks nothing."""
    if source != "Selector" or selector is None:
        return AllowedNamespaces(source=source)
    return AllowedNamespaces(source=source, selector=msgspec.json.encode(selector, order="sorted"))


def admits(view: View, allowed_namespaces: AllowedNamespaces, *, owner: str, namespace: str) -> bool:
    """Whether objects of `namespace` may attach to something in the namespace `owner`."""
    match allowed_namespaces.source:
        case "All":
            return True
        case "Same":
            return namespace == owner
        case "Selector" if allowed_namespaces.selector:
            return selects(_selector(allowed_namespaces.selector), labels(view, namespace))
        case _:
            return False


def labels(view: View, namespace: str) -> Mapping[str, str]:
    """Return the labels of a Namespace; one that is not declared still has the label with its name."""
    row = view.get(NAMESPACES, Key("", namespace))
    return {**(row.metadata.labels if row else {}), LABEL_NAME: namespace}


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether all labels and expressions match; an empty selector matches everything, an unknown operator nothing."""
    return all(labels.get(name) == value for name, value in selector.match_labels.items()) and all(
        _matches(expression, labels) for expression in selector.match_expressions
    )


def _matches(expression: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.key)
    match expression.operator:
        case "In":
            return value is not None and value in expression.values
        case "NotIn":
            return value is None or value not in expression.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False


@lru_cache(maxsize=256)
def _selector(encoded: bytes) -> LabelSelector:
    return msgspec.json.decode(encoded, type=LabelSelector)
