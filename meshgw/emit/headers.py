"""Header changes as Envoy words them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from meshgw.ir.route import HeaderEdit, Rewrite
from meshgw.protos import HeaderValue, HeaderValueOption

_APPEND = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_SET = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


Edits = Sequence[HeaderEdit | None]


class HeaderFields(TypedDict, total=False):
    """The four fields that Route and ClusterWeight have alike."""

    request_headers_to_add: list[HeaderValueOption]
    request_headers_to_remove: list[str]
    response_headers_to_add: list[HeaderValueOption]
    response_headers_to_remove: list[str]


def edit_fields(request: Edits, response: Edits) -> HeaderFields:
    """The fields for these changes, one edit after the other."""
    fields = HeaderFields()
    if any(request):
        fields["request_headers_to_add"], fields["request_headers_to_remove"] = _sequence(request)
    if any(response):
        fields["response_headers_to_add"], fields["response_headers_to_remove"] = _sequence(response)
    return fields


def host_of(*sources: HeaderEdit | Rewrite | None) -> str:
    """The Host header that the backend sees, from the first of these that changes it; "" leaves it as it is."""
    for source in sources:
        if isinstance(source, Rewrite) and source.hostname:
            return source.hostname
        if isinstance(source, HeaderEdit):
            for name, value in source.set:
                if name.lower() == "host":
                    return value
    return ""


def _sequence(edits: Edits) -> tuple[list[HeaderValueOption], list[str]]:
    """What to add and what to remove.

    Envoy removes, then sets, then appends, whatever their order: what a later edit removes or sets is not added before.
    """
    added: list[HeaderValueOption] = []
    removed: dict[str, None] = {}
    for edit in edits:
        if edit is None:
            continue
        gone = {name.lower() for name in edit.remove}
        removed.update(dict.fromkeys(sorted(gone)))
        replaced = gone | {name.lower() for name, _value in edit.set}
        added = [option for option in added if option.header.key.lower() not in replaced]
        gone.add("host")
        added += _options(edit.set, _SET, gone)
        added += _options(edit.add, _APPEND, gone)
    return added, list(removed)


def _options(pairs: Iterable[tuple[str, str]], action: Any, gone: set[str]) -> Iterable[HeaderValueOption]:
    for name, value in pairs:
        if name.lower() not in gone:
            yield HeaderValueOption(
                header=HeaderValue(key=name, value=value.replace("%", "%%")),
                append_action=action,
                keep_empty_value=not value,
            )
