"""What was measured on, and with what."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import msgspec

from meshgw.standalone.envoy import find_envoy

PACKAGES = ("grpcio", "protobuf", "msgspec", "xds-protos", "pyyaml")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of the machine, load averages at the start, and versions."""

    name: str
    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    load: tuple[float, float, float]
    python: str
    envoy: str
    packages: dict[str, str]
    revision: str


def describe() -> Machine:
    """Return this machine and the versions in use."""
    cpu = _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    memory = int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0])
    one, five, fifteen = os.getloadavg()
    return Machine(
        name=f"{cores}x{platform.machine()}",
        cpu=cpu,
        cores=cores,
        memory_gib=round(memory / 2**20, 1),
        kernel=platform.release(),
        load=(round(one, 2), round(five, 2), round(fifteen, 2)),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        envoy=find_envoy(os.environ.get("MESHGW_TEST_ENVOY")).version,
        packages={name: version(name) for name in PACKAGES},
        revision=_revision(),
    )


def _field(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
