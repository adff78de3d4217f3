"""Addresses as texts: their canonical form (RFC 5952), and which of them traffic may be sent to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def usable_address(text: str, *, loopback: bool) -> str:
    """Return the canonical form of an address that traffic may be sent to, else "".

    Loopback would reach the proxy itself, link-local its machine's metadata service.
    """
    address = _parse(text)
    if address is None or ((address.is_loopback or address.is_link_local) and not loopback):
        return ""
    return str(address)


def usable_addresses(texts: Iterable[str], *, loopback: bool) -> tuple[str, ...]:
    """Return the usable ones in canonical form, IPv4 first, sorted, without repetition."""
    found = {address for text in texts if (address := _parse(usable_address(text, loopback=loopback))) is not None}
    return tuple(str(address) for address in sorted(found, key=lambda address: (address.version, int(address))))


def _parse(text: str) -> Address | None:
    """The one host that a text names; an IPv4 address in IPv6 clothes is the IPv4 address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast or getattr(address, "scope_id", None):
        return None
    return address
