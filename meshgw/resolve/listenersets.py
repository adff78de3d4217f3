"""ListenerSets: which of them a Gateway admits, in which order, and what becomes of each (GEP-1713)."""

from __future__ import annotations

from collections.abc import Iterable

from meshgw import names
from meshgw.api import gateway as api
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import View
from meshgw.ir.gateway import Listener, ListenerSetResult
from meshgw.ir.status import Condition
from meshgw.resolve.conditions import ACCEPTED, PROGRAMMED, Problem, fails, holds
from meshgw.resolve.namespaces import admits, allowed
from meshgw.resolve.tables import GATEWAYS, LISTENER_SETS, LISTENERS, OUR_GATEWAYS


def admitted_sets(view: View, gateway: api.Gateway) -> list[tuple[Key, api.ListenerSet]]:
    """Return the ListenerSets that extend a Gateway and may, in order of precedence: the oldest first, then by name."""
    found = [
        (key, row)
        for key, row in view.by(LISTENER_SETS, "parent", gateway.key)
        if _names_gateway(row) and _admitted(view, gateway, key)
    ]
    return sorted(found, key=lambda item: (item[1].metadata.creation_timestamp or "", item[0]))


def parent_accepted(accepted: bool, own: Iterable[Listener]) -> bool:  # noqa: FBT001 - reads as a sentence
    """Whether a Gateway can be extended: it is accepted, and so is a listener of its own if it has any."""
    verdicts = [listener.accepted for listener in own]
    return accepted and (any(verdicts) or not verdicts)


def resolve_listener_sets(view: View, key: Key, row: api.ListenerSet) -> Iterable[tuple[Key, ListenerSetResult]]:
    """Return what became of a ListenerSet that names a Gateway of ours; others give none."""
    parent = Key(row.spec.parent_ref.namespace or key.namespace, row.spec.parent_ref.name)
    gateway, ours = view.get(GATEWAYS, parent), view.get(OUR_GATEWAYS, parent)
    if gateway is None or ours is None or not _names_gateway(row):
        return
    generation = row.metadata.generation
    own = [listener for _key, listener in view.by(LISTENERS, "owner", (parent, "Gateway", parent))]
    problem = None
    if not _admitted(view, gateway, key):
        message = f"Gateway {parent} does not admit ListenerSets of namespace {key.namespace}"
        problem = Problem("NotAllowed", "MG1007", "spec.parentRef", message)
    elif not parent_accepted(ours.accepted, own):
        message = f"Gateway {parent} is not accepted"
        problem = Problem("ParentNotAccepted", "MG1008", "spec.parentRef", message)
    if problem:
        conditions = _refused(generation, problem.reason, problem.message)
    else:
        conditions = _judged(view, parent, key, generation)
    yield (
        key,
        ListenerSetResult(
            key=key,
            gateway=parent,
            accepted=conditions[0].status,
            conditions=conditions,
            generation=generation,
            findings=(problem.finding(ObjectRef("ListenerSet", *key)),) if problem else (),
        ),
    )


def _judged(view: View, parent: Key, key: Key, generation: int) -> tuple[Condition, ...]:
    """Let the listeners decide: one that serves is enough."""
    listeners = [listener for _key, listener in view.by(LISTENERS, "owner", (parent, "ListenerSet", key))]
    bad = ", ".join(sorted(listener.key.name for listener in listeners if not listener.serving))
    message = f"not served: {bad}" if bad else ""
    if not any(listener.serving for listener in listeners):
        return _refused(generation, "ListenersNotValid", message)
    reason = "ListenersNotValid" if bad else ACCEPTED
    return holds(ACCEPTED, generation, reason=reason, message=message), holds(PROGRAMMED, generation)


def _refused(generation: int, reason: str, message: str) -> tuple[Condition, ...]:
    return tuple(fails(kind, generation, reason=reason, message=message) for kind in (ACCEPTED, PROGRAMMED))


def _names_gateway(row: api.ListenerSet) -> bool:
    return (row.spec.parent_ref.group, row.spec.parent_ref.kind) == (names.GATEWAY_GROUP, "Gateway")


def _admitted(view: View, gateway: api.Gateway, key: Key) -> bool:
    rule = gateway.spec.allowed_listeners.namespaces
    return admits(view, allowed(rule.from_, rule.selector), owner=gateway.key.namespace, namespace=key.namespace)
