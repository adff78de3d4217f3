"""Bind addresses and port offsets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshgw.ir.gateway import Binding
from meshgw.standalone.addresses import (
    DEFAULT_OFFSET,
    Wanted,
    assign_addresses,
    default_port_offset,
    may_bind_privileged_ports,
)


def tcp(*ports: int, addresses: tuple[str, ...] = ()) -> Wanted:
    return Wanted(frozenset(("tcp", port) for port in ports), addresses)


def binds(result: dict[str, Binding]) -> dict[str, str]:
    return {key: binding.bind for key, binding in result.items()}


def test_gateways_share_an_address_until_they_want_the_same_port() -> None:
    result = assign_addresses({"a": tcp(80), "b": tcp(80, 443), "c": tcp(8080), "d": tcp(80)})
    assert binds(result) == {"a": "127.0.0.1", "b": "127.0.0.2", "c": "127.0.0.1", "d": "127.0.0.3"}
    assert result["b"].addresses == ("127.0.0.2",)


def test_transports_do_not_conflict() -> None:
    result = assign_addresses({"a": tcp(53), "b": Wanted(frozenset({("udp", 53)}))})
    assert binds(result) == {"a": "127.0.0.1", "b": "127.0.0.1"}


def test_a_gateway_keeps_its_address_when_another_comes_first() -> None:
    before = assign_addresses({"m": tcp(80)})
    after = assign_addresses({"a": tcp(80), "m": tcp(80)}, before=before)
    assert binds(after) == {"a": "127.0.0.2", "m": "127.0.0.1"}
    assert list(after) == ["a", "m"]
    gone = assign_addresses({"a": tcp(80)}, before=after)
    assert binds(gone) == {"a": "127.0.0.2"}


def test_a_gateway_moves_when_a_new_port_conflicts() -> None:
    before = assign_addresses({"a": tcp(80), "b": tcp(81)})
    assert binds(assign_addresses({"a": tcp(80), "b": tcp(80)}, before=before)) == {"a": "127.0.0.1", "b": "127.0.0.2"}


def test_requested_loopback_addresses_are_obeyed_and_others_are_not() -> None:
    result = assign_addresses(
        {"a": tcp(80, addresses=("127.0.9.9",)), "b": tcp(80, addresses=("10.0.0.1", "host.example"))}
    )
    assert result["a"].bind == "127.0.9.9"
    assert result["b"].bind == "127.0.0.1"
    assert result["b"].unusable == ("10.0.0.1", "host.example")


def test_the_offset_moves_privileged_ports_only() -> None:
    binding = assign_addresses({"a": tcp(80, 8080)}, offset=DEFAULT_OFFSET)["a"]
    assert (binding.port(80), binding.port(8080)) == (10_080, 8080)


def test_shifted_ports_count_in_conflicts() -> None:
    result = assign_addresses({"a": tcp(80), "b": tcp(10_080)}, offset=DEFAULT_OFFSET)
    assert binds(result) == {"a": "127.0.0.1", "b": "127.0.0.2"}


def test_a_gateway_whose_ports_collide_when_shifted_gets_another_offset() -> None:
    binding = assign_addresses({"a": tcp(80, 10_080, 20_080)}, offset=DEFAULT_OFFSET)["a"]
    assert len({binding.port(port) for port in (80, 10_080, 20_080)}) == 3


@pytest.mark.parametrize(
    ("threshold", "mask", "expected"),
    [("1024", "0000000000000400", True), ("1024", "0000000000000000", False), ("0", "0000000000000000", True)],
)
def test_privileged_ports_need_the_capability(tmp_path: Path, threshold: str, mask: str, *, expected: bool) -> None:
    (tmp_path / "sys/net/ipv4").mkdir(parents=True)
    (tmp_path / "sys/net/ipv4/ip_unprivileged_port_start").write_text(f"{threshold}\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text(f"Name:\tx\nCapEff:\t{mask}\nCapAmb:\t{mask}\n")
    assert may_bind_privileged_ports(tmp_path) is expected


def test_without_proc_only_root_may(tmp_path: Path) -> None:
    assert may_bind_privileged_ports(tmp_path) is (os.geteuid() == 0)


def test_the_default_offset_follows_the_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    for may, expected in ((True, 0), (False, DEFAULT_OFFSET)):
        monkeypatch.setattr("meshgw.standalone.addresses.may_bind_privileged_ports", lambda may=may: may)
        assert default_port_offset() == expected
