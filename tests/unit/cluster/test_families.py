"""Which IP families pods have, by what the kernel says of this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgw.cluster.families import has_ipv6

LOOPBACK = "00000000000000000000000000000001 01 80 10 80       lo"
LINK_LOCAL = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0"
UNIQUE_LOCAL = "fd000000000000000000000000000002 04 40 00 82     eth0"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], False),
        ([LOOPBACK, LINK_LOCAL], False),
        ([LOOPBACK, LINK_LOCAL, UNIQUE_LOCAL], True),
        (["20010db8000000000000000000000001 01 80 00 80       lo"], False),
        (["nonsense"], False),
    ],
)
def test_an_address_that_others_reach_counts(tmp_path: Path, lines: list[str], *, found: bool) -> None:
    interfaces = tmp_path / "if_inet6"
    interfaces.write_text("".join(f"{line}\n" for line in lines))
    assert has_ipv6(interfaces) is found


def test_a_kernel_without_ipv6_has_none(tmp_path: Path) -> None:
    assert not has_ipv6(tmp_path / "missing")
