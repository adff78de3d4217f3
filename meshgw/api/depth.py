"""How deep a JSON text is nested, found without recursion: what is too deep for a decoder must not reach one."""

import re
from itertools import accumulate
from typing import Final

MAX_DEPTH: Final = 100
"""Levels of objects and lists that a document may have, itself being the first."""

_OTHERS: Final = bytes(set(range(256)) - set(b'"{}[]'))
_AS_BRACES: Final = bytes.maketrans(b"[]", b"{}")
_STEPS: Final = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_ROUNDS: Final = 8
_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
# An unterminated string is a token too, so that every byte is looked at once.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}\[\]]', re.DOTALL)


def is_deep(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether a JSON text has more than so many levels; of what is no JSON it says anything."""
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    # Only strings have escapes. Two quotes beside each other may go whether they are one string or the end of one and
    # the start of the next: what is in a string stays in one.
    if b"\\" in text:
        text = _ESCAPE.sub(b"", text)
    text = text.translate(_AS_BRACES, _OTHERS).replace(b'""', b"")
    if b'"' in text:
        text = b"".join(text.split(b'"')[::2])
    # Each round takes off the innermost level everywhere, which leaves next to nothing of a usual document.
    for rounds in range(_ROUNDS):
        if text.count(b"{") <= limit - rounds:
            return False
        text = text.replace(b"{}", b"")
    return max(accumulate(map(_STEPS.__getitem__, text)), default=0) > limit - _ROUNDS


def prune(text: bytes, depth: int) -> bytes:
    """Return a JSON text with the objects and lists of that level empty, so that it has no more levels."""
    kept: list[bytes] = []
    level = start = 0
    for token in _TOKEN.finditer(text):
        step = _STEPS.get(text[token.start()], 0)
        if step > 0:
            level += 1
            if level == depth:
                kept.append(text[start : token.end()])
        elif step < 0:
            if level == depth:
                start = token.start()
            level -= 1
    if level < depth:
        kept.append(text[start:])
    return b"".join(kept)
