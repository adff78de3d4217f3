"""Header changes as Envoy words them."""

from __future__ import annotations

from meshgw.emit.headers import edit_fields, host_of
from meshgw.ir.route import HeaderEdit, Rewrite
from meshgw.protos import HeaderValueOption


def added(*edits: HeaderEdit) -> list[tuple[str, str, int]]:
    fields = edit_fields(edits, ())
    return [(item.header.key, item.header.value, item.append_action) for item in fields["request_headers_to_add"]]


SET, ADD = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD, HeaderValueOption.APPEND_IF_EXISTS_OR_ADD


def test_nothing_to_change_sets_no_field() -> None:
    assert edit_fields((None,), ()) == {}


def test_values_are_literal() -> None:
    assert added(HeaderEdit(set=(("a", "%REQ(b)%"),))) == [("a", "%%REQ(b)%%", SET)]


def test_what_a_later_edit_removes_is_not_added() -> None:
    first = HeaderEdit(set=(("a", "1"), ("b", "1")), add=(("C", "1"),))
    second = HeaderEdit(set=(("b", "2"),), remove=("A", "c"))
    assert added(first, second) == [("b", "2", SET)]
    assert edit_fields((first, second), ())["request_headers_to_remove"] == ["a", "c"]


def test_what_a_later_edit_sets_is_not_appended_to_by_an_earlier_one() -> None:
    outer, own = HeaderEdit(add=(("x-by", "rule"), ("x-more", "1"))), HeaderEdit(set=(("X-By", "backend"),))
    assert added(outer, own) == [("x-more", "1", ADD), ("X-By", "backend", SET)]


def test_a_later_edit_appends_to_what_an_earlier_one_sets() -> None:
    outer, own = HeaderEdit(set=(("x-by", "rule"),)), HeaderEdit(add=(("x-by", "backend"),))
    assert added(outer, own) == [("x-by", "rule", SET), ("x-by", "backend", ADD)]


def test_one_edit_sets_then_adds_then_removes() -> None:
    edit = HeaderEdit(set=(("a", "1"), ("b", "1")), add=(("a", "2"),), remove=("b",))
    assert added(edit) == [("a", "1", SET), ("a", "2", ADD)]


def test_a_later_edit_adds_what_an_earlier_one_removed() -> None:
    assert added(HeaderEdit(remove=("a",)), HeaderEdit(add=(("a", "2"),))) == [("a", "2", ADD)]


def test_empty_values_are_kept() -> None:
    (option,) = edit_fields((), (HeaderEdit(set=(("a", ""),)),))["response_headers_to_add"]
    assert option.keep_empty_value


def test_the_host_header_is_a_rewrite() -> None:
    edit = HeaderEdit(set=(("Host", "set.test"), ("x", "y")))
    assert added(edit) == [("x", "y", SET)]
    assert host_of(Rewrite(), edit) == "set.test"
    assert host_of(Rewrite(hostname="rewrite.test"), edit) == "rewrite.test"
    assert host_of(None) == ""
