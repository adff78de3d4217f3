"""Remarks collected while a route is compiled."""

from __future__ import annotations

from meshgw.api.meta import ObjectRef
from meshgw.ir.route import RefsReason
from meshgw.resolve.report import BadRef, Report, join_messages

ABOUT = ObjectRef("HTTPRoute", "default", "route")


def test_a_part_shares_findings_and_references_but_has_errors_of_its_own() -> None:
    report = Report(ABOUT)
    part = report.part()
    part.refuse("MG4001", "spec.a", "wrong")
    part.bad_ref("spec.b", BadRef(RefsReason.NOT_FOUND, "absent"))
    assert (part.errors, report.errors) == (["wrong"], [])
    assert [finding.code for finding in report.findings] == ["MG4001", "MG2001"]
    assert report.refs() == (RefsReason.NOT_FOUND, "absent")


def test_the_gravest_reason_counts_and_all_messages_are_told_once() -> None:
    report = Report(ABOUT)
    assert report.refs() == (RefsReason.RESOLVED, "")
    for reason, message in (
        (RefsReason.NOT_FOUND, "absent"),
        (RefsReason.NOT_PERMITTED, "forbidden"),
        (RefsReason.NOT_FOUND, "absent"),
    ):
        report.bad_ref("spec", BadRef(reason, message))
    assert report.refs() == (RefsReason.NOT_PERMITTED, "absent; forbidden")


def test_a_long_list_of_messages_is_cut() -> None:
    assert join_messages([str(number) for number in range(8)]) == "0; 1; 2; 3; 4; and 3 more"
