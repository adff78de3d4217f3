"""The page of results: each benchmark writes its own part and leaves the other's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "performance.md"
CLUSTER: Final = "<!-- From here on written by `make bench-cluster`. -->\n"
"""Between the two parts."""


def replace_first(page: str, part: str) -> str:
    """Return the page with another first part."""
    _, mark, rest = page.partition(CLUSTER)
    return f"{part}\n{mark}{rest}" if mark else part


def replace_cluster(page: str, part: str) -> str:
    """Return the page with another part about clusters."""
    first, mark, _ = page.partition(CLUSTER)
    return f"{first}{mark or chr(10) + CLUSTER}{part}"
