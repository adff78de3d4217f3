"""ReferenceGrants: which references may cross namespaces (GEP-709)."""

from __future__ import annotations

from meshgw.api.meta import Key
from meshgw.engine import View
from meshgw.resolve.tables import REFERENCE_GRANTS


def permitted(view: View, *, group: str, kind: str, namespace: str, to_group: str, to_kind: str, to: Key) -> bool:
    """Whether an object of this group, kind and namespace may refer to `to`.

    Inside one namespace always; across namespaces only if a grant in the target's namespace says so. Ask before
    looking at the target: a reference that is not permitted must not reveal whether its target exists.
    """
    if namespace == to.namespace:
        return True
    return any(
        any(
            source.group == group and source.kind == kind and source.namespace == namespace for source in row.spec.from_
        )
        and any(
            target.group == to_group and target.kind == to_kind and target.name in {None, "", to.name}
            for target in row.spec.to
        )
        for _key, row in view.by(REFERENCE_GRANTS, "namespace", to.namespace)
    )


def kind_name(group: str, kind: str) -> str:
    """Return how messages name a kind: with its group, unless it is a core one."""
    return f"{group}/{kind}" if group else kind
