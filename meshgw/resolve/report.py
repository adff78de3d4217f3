"""Where the remarks about one route are collected while it is compiled, so that every part of it is looked at."""

from __future__ import annotations

from typing import NamedTuple

from meshgw.api.meta import ObjectRef
from meshgw.ir.finding import Finding
from meshgw.ir.route import RefsReason

_REFS_CODES = {
    RefsReason.NOT_FOUND: "MG2001",
    RefsReason.NOT_PERMITTED: "MG2002",
    RefsReason.INVALID_KIND: "MG2003",
    RefsReason.UNSUPPORTED_PROTOCOL: "MG2006",
}
_REFS_ORDER = {reason: position for position, reason in enumerate(RefsReason)}
_SHOWN = 5


class BadRef(NamedTuple):
    """Why a reference cannot be used.

    The message of a forbidden one is the same whether its target exists or not.
    """

    reason: RefsReason
    message: str


class Report:
    """Remarks about one object, in the order in which its parts are read.

    `errors` are the reasons why the part at hand cannot be served.
    """

    __slots__ = ("bad_refs", "errors", "findings", "object")

    def __init__(self, about: ObjectRef) -> None:
        self.object = about
        self.errors: list[str] = []
        self.findings: list[Finding] = []
        self.bad_refs: list[BadRef] = []

    def part(self) -> Report:
        """Return a report whose findings and references count for this one, but whose errors are its own."""
        part = Report(self.object)
        part.findings, part.bad_refs = self.findings, self.bad_refs
        return part

    def refuse(self, code: str, field: str, message: str) -> None:
        """Note an error: the part cannot be served."""
        self.errors.append(message)
        self.remark(code, field, message)

    def remark(self, code: str, field: str, message: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(code=code, object=self.object, field=field, message=message))

    def bad_ref(self, field: str, bad: BadRef) -> None:
        """Note a reference that cannot be used."""
        self.bad_refs.append(bad)
        self.remark(_REFS_CODES[bad.reason], field, bad.message)

    def refs(self) -> tuple[RefsReason, str]:
        """Return reason and message of the ResolvedRefs condition: the gravest reason, and all distinct messages."""
        if not self.bad_refs:
            return RefsReason.RESOLVED, ""
        reason = min((bad.reason for bad in self.bad_refs), key=_REFS_ORDER.__getitem__)
        return reason, join_messages([bad.message for bad in self.bad_refs])


def join_messages(messages: list[str]) -> str:
    """Return distinct messages as one line that stays far below the API's limit."""
    distinct = list(dict.fromkeys(messages))
    text = "; ".join(distinct[:_SHOWN])
    return text if len(distinct) <= _SHOWN else f"{text}; and {len(distinct) - _SHOWN} more"
