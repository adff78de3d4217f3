"""Policies in texts that cannot be parsed: nothing is known of such a text but its words, and no policy may be lost."""

import re
from collections.abc import Iterator
from typing import Final

from meshgw.api.decode import Decoded
from meshgw.api.defaults import DEFAULT_NAMESPACE
from meshgw.api.meta import ObjectRef
from meshgw.api.registry import Registry
from meshgw.api.stand_in import stand_in

_KIND: Final = re.compile(r"^kind[ \t]*:[ \t]*[\"']?(?P<kind>[A-Za-z]+)", re.MULTILINE)
_KIND_OF_ITEM: Final = re.compile(r"^[ \t]*(?:- )?kind[ \t]*:[ \t]*[\"']?(?P<kind>[A-Za-z]+)", re.MULTILINE)
_KIND_IN_JSON: Final = re.compile(r"\"kind\"\s*:\s*\"(?P<kind>[A-Za-z]+)")
_ITEMS: Final = re.compile(r"^items[ \t]*:", re.MULTILINE)
_NAME: Final = re.compile(r"[\s{,]\"?name\"?[ \t]*:[ \t]*[\"']?(?P<name>[A-Za-z0-9][\w.-]*)")
_NAMESPACE: Final = re.compile(r"[\s{,]\"?namespace\"?[ \t]*:[ \t]*[\"']?(?P<name>[A-Za-z0-9][\w.-]*)")
_METADATA: Final = re.compile(r"\"?metadata\"?[ \t]*:")

UNNAMED: Final = "unnamed"
"""Name of a policy whose own cannot be found."""


def guess_policies(text: str, registry: Registry) -> Iterator[Decoded]:
    """Yield what stands for each policy that a text seems to define, in the form of a document of the wrong shape.

    Only kinds that something must stand for are looked for, where a document or an item of a list has its kind. A
    wrong guess refuses too much until the text is mended; none at all would leave open what the policy closed.
    """
    if text.lstrip().startswith("{"):
        found = list(_KIND_IN_JSON.finditer(text))
    else:
        found = list((_KIND_OF_ITEM if _ITEMS.search(text) else _KIND).finditer(text))
    for position, match in enumerate(found, start=1):
        kind = registry.by_name(match["kind"])
        if kind is None:
            continue
        end = found[position].start() if position < len(found) else len(text)
        part = text[match.end() : end] if len(found) > 1 else text
        metadata = _METADATA.search(part)
        after = part[metadata.end() :] if metadata else ""
        name, namespace = _NAME.search(after), _NAMESPACE.search(after)
        ref = ObjectRef(
            kind.name,
            namespace["name"] if namespace else DEFAULT_NAMESPACE,
            name["name"] if name else UNNAMED,
        )
        stands = stand_in(kind, ref, {}, "its text cannot be parsed")
        if stands is not None:
            yield Decoded(ref=ref, kind=kind, stand_in=stands)
