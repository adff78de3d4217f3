"""Addresses of a CA, and which of them may carry a token in the clear."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, Self

import msgspec

_UNIX: Final = "unix:"
_HOST_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")


class AddressError(ValueError):
    """A text that is no CA address, or one that must not be used in the way asked for."""


class CaAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a CA listens: `host:port`, `1.2.3.4:port`, `[::1]:port` or `unix:/path`."""

    target: str
    """The address in gRPC's own notation, which leaves it nothing to guess."""
    is_local: bool
    """Nothing sent there leaves this machine: a unix socket or a loopback address (a name proves nothing)."""
    socket: Path | None = None
    """The socket file of a unix address."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address that `text` spells; raises `AddressError`."""
        if text.startswith(_UNIX):
            path = Path(text.removeprefix(_UNIX).replace("///", "/", 1))
            if not path.is_absolute() or ".." in path.parts:
                raise AddressError(f"{text!r}: a unix address is unix:/absolute/path")
            return cls(target=f"{_UNIX}{path}", is_local=True, socket=path)
        host, _, port = text.rpartition(":")
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
            raise AddressError(f"{text!r} is not host:port, [ipv6]:port or unix:/path")
        address = _literal(host)
        if address is not None:
            target = f"ipv6:[{address}]:{port}" if address.version == 6 else f"ipv4:{address}:{port}"
            return cls(target=target, is_local=address.is_loopback)
        if not host or not _HOST_CHARACTERS.issuperset(host.lower()):
            raise AddressError(f"{text!r} is not host:port, [ipv6]:port or unix:/path")
        return cls(target=f"dns:///{host}:{port}", is_local=False)


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    return address if bracketed == (address.version == 6) else None
