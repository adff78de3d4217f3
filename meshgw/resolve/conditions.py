"""Conditions: their types, and constructors that leave no room for a status and reason that disagree."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from meshgw.api.meta import ObjectRef
from meshgw.ir.finding import Finding
from meshgw.ir.status import Condition

ACCEPTED = "Accepted"
PROGRAMMED = "Programmed"
RESOLVED_REFS = "ResolvedRefs"
CONFLICTED = "Conflicted"
INSECURE_FRONTEND = "InsecureFrontendValidationMode"
OVERLAPPING_TLS = "OverlappingTLSConfig"


class Problem(NamedTuple):
    """Something wrong with one field: the reason that its condition takes, and the finding that goes with it."""

    reason: str
    code: str
    field: str
    message: str

    def finding(self, about: ObjectRef) -> Finding:
        """Return the finding about an object."""
        return Finding(code=self.code, object=about, field=self.field, message=self.message)


def holds(kind: str, generation: int, *, reason: str = "", message: str = "") -> Condition:
    """Return a condition that is True; its reason is its type unless another is given."""
    return Condition(type=kind, status=True, reason=reason or kind, message=message, observed_generation=generation)


def fails(kind: str, generation: int, *, reason: str, message: str = "") -> Condition:
    """Return a condition that is False."""
    return Condition(type=kind, status=False, reason=reason, message=message, observed_generation=generation)


def verdict(kind: str, generation: int, problem: Problem | None) -> Condition:
    """Return a condition that is True unless there is a problem."""
    if problem is None:
        return holds(kind, generation)
    return fails(kind, generation, reason=problem.reason, message=problem.message)


def ordered(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Return conditions sorted by type, the order in which every status shows them."""
    return tuple(sorted(conditions, key=lambda condition: condition.type))


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """Whether the condition of that type is there and True."""
    return any(condition.type == kind and condition.status for condition in conditions)
