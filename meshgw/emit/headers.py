"""Header changes as Envoy words them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from meshgw.emit.protos import HeaderValue, HeaderValueOption
from meshgw.ir.route import HeaderEdit, Rewrite

_APPEND = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_SET = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


class HeaderFields(TypedDict, total=False):
    """The four fields that Route and ClusterWeight have alike."""

    request_headers_to_add: list[HeaderValueOption]
    request_headers_to_remove: list[str]
    response_headers_to_add: list[HeaderValueOption]
    response_headers_to_remove: list[str]


def edit_fields(request: HeaderEdit | None, response: HeaderEdit | None) -> HeaderFields:
    """The fields for these changes. Envoy removes before it adds, so what is removed is not added at all."""
    fields = HeaderFields()
    if request is not None:
        fields["request_headers_to_add"] = _additions(request)
        fields["request_headers_to_remove"] = list(dict.fromkeys(request.remove))
    if response is not None:
        fields["response_headers_to_add"] = _additions(response)
        fields["response_headers_to_remove"] = list(dict.fromkeys(response.remove))
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


def _additions(edit: HeaderEdit) -> list[HeaderValueOption]:
    removed = {name.lower() for name in edit.remove} | {"host"}
    return [
        *_options(edit.set, _SET, removed),
        *_options(edit.add, _APPEND, removed),
    ]


def _options(pairs: Iterable[tuple[str, str]], action: Any, removed: set[str]) -> Iterable[HeaderValueOption]:
    for name, value in pairs:
        if name.lower() not in removed:
            yield HeaderValueOption(
                header=HeaderValue(key=name, value=value.replace("%", "%%")),
                append_action=action,
                keep_empty_value=not value,
            )
