"""Addresses: canonical form, and which may be sent to."""

from __future__ import annotations

import pytest

from meshgw.resolve.addresses import usable_address, usable_addresses


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("FD00:0:0::0001", "fd00::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("010.0.0.1", ""),
        ("10.0.0.1:80", ""),
        ("None", ""),
        ("", ""),
        ("host.example", ""),
        ("fe80::1%eth0", ""),
        ("0.0.0.0", ""),
        ("::", ""),
        ("224.0.0.1", ""),
    ],
)
def test_the_canonical_form(text: str, canonical: str) -> None:
    assert usable_address(text, loopback=True) == canonical


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1"])
def test_what_leads_to_the_proxy_or_its_machine(text: str) -> None:
    assert usable_address(text, loopback=False) == ""
    assert usable_address(text, loopback=True) != ""


def test_several_are_sorted_and_distinct_ipv4_first() -> None:
    texts = ["fd00::1", "10.0.0.10", "10.0.0.9", "None", "FD00:0::1"]
    assert usable_addresses(texts, loopback=False) == ("10.0.0.9", "10.0.0.10", "fd00::1")
