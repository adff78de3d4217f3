"""Which IP families the pods of the cluster have: those of this one, which has its addresses from the same network."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_INTERFACES: Final = Path("/proc/net/if_inet6")
_GLOBAL: Final = "00"
"""The scope of addresses that others can reach, among them unique local ones."""


def has_ipv6(interfaces: Path = _INTERFACES) -> bool:
    """Whether an interface has an IPv6 address by which others reach this pod; False where the kernel has no IPv6."""
    try:
        lines = interfaces.read_text().splitlines()
    except OSError:
        return False
    fields = (line.split() for line in lines)
    return any(len(found) == 6 and found[3] == _GLOBAL and found[5] != "lo" for found in fields)
