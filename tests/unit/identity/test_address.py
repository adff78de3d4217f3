from __future__ import annotations

from pathlib import Path

import pytest

from meshgw.identity.address import AddressError, CaAddress


@pytest.mark.parametrize(
    ("text", "target", "is_local"),
    [
        ("127.0.0.1:15010", "ipv4:127.0.0.1:15010", True),
        ("127.9.9.9:1", "ipv4:127.9.9.9:1", True),
        ("[::1]:15010", "ipv6:[::1]:15010", True),
        ("10.0.0.1:15012", "ipv4:10.0.0.1:15012", False),
        ("0.0.0.0:15012", "ipv4:0.0.0.0:15012", False),
        ("[::]:15012", "ipv6:[::]:15012", False),
        ("[2001:db8::1]:15012", "ipv6:[2001:db8::1]:15012", False),
        ("istiod.istio-system.svc:15012", "dns:///istiod.istio-system.svc:15012", False),
        ("localhost:15012", "dns:///localhost:15012", False),
        ("unix:/run/ca.sock", "unix:/run/ca.sock", True),
        ("unix:///run/ca.sock", "unix:/run/ca.sock", True),
    ],
)
def test_address_is_spelled_out_for_grpc(text: str, target: str, is_local: bool) -> None:  # noqa: FBT001 - a parameter
    address = CaAddress.parse(text)
    assert (address.target, address.is_local) == (target, is_local)
    assert address.socket == (Path("/run/ca.sock") if text.startswith("unix:") else None)


@pytest.mark.parametrize(
    "text",
    ["", "istiod", "istiod:", ":15012", "istiod:x", "istiod:65536", "istiod:-1", "::1:15012", "[127.0.0.1]:1",
     "127.0.0.1:1,10.0.0.1:1", "dns:///istiod:15012", "ipv4:127.0.0.1:1", "user@host:1", "host/path:1",
     "unix:relative", "unix:/run/../etc/x", "istiod:\u0661"],
)  # fmt: skip
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        CaAddress.parse(text)
