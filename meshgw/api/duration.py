"""Durations of the Gateway API (GEP-2257)."""

import re
from typing import Final

_PART: Final = re.compile(r"(\d{1,5})(ms|h|m|s)")
_MILLISECONDS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def milliseconds(duration: str) -> int:
    """Length of a duration such as ``1h30m``, ``10s`` or ``500ms``; the text must match the schema's pattern."""
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(duration))
