"""Header changes as Envoy words them."""

from __future__ import annotations

from meshgw.emit.headers import edit_fields
from meshgw.emit.protos import HeaderValueOption
from meshgw.ir.route import HeaderEdit


def worded(*edits: HeaderEdit) -> tuple[list[tuple[str, str, bool]], list[str]]:
    """What is added (name, value, whether appended) and what is removed."""
    fields = edit_fields(edits, ())
    append = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
    added = [
        (option.header.key, option.header.value, option.append_action == append)
        for option in fields["request_headers_to_add"]
    ]
    return added, fields["request_headers_to_remove"]


def test_values_are_literal() -> None:
    assert worded(HeaderEdit(set=(("x", "100%"),))) == ([("x", "100%%", False)], [])


def test_what_a_later_edit_sets_is_not_appended_to_by_an_earlier_one() -> None:
    outer, own = HeaderEdit(add=(("x-by", "rule"), ("x-more", "1"))), HeaderEdit(set=(("X-By", "backend"),))
    assert worded(outer, own) == ([("x-more", "1", True), ("X-By", "backend", False)], [])


def test_a_later_edit_appends_to_what_an_earlier_one_sets() -> None:
    outer, own = HeaderEdit(set=(("x-by", "rule"),)), HeaderEdit(add=(("x-by", "backend"),))
    assert worded(outer, own) == ([("x-by", "rule", False), ("x-by", "backend", True)], [])


def test_what_a_later_edit_removes_is_not_added() -> None:
    outer, own = HeaderEdit(set=(("x-by", "rule"),)), HeaderEdit(remove=("x-by",))
    assert worded(outer, own) == ([], ["x-by"])
