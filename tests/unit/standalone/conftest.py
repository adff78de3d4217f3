"""The stand-in Envoy as an executable, and directories with paths short enough for sockets."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshgw.standalone.runtime import ProxyDirectory, RuntimeDirectory

PROGRAM = Path(__file__).with_name("fake_envoy.py")


@pytest.fixture
def fake_envoy(tmp_path: Path) -> Path:
    """An executable that behaves as `fake_envoy.py` says."""
    path = tmp_path / "fake-envoy"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {PROGRAM} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def proxy() -> Iterator[ProxyDirectory]:
    """The directory of one proxy."""
    with tempfile.TemporaryDirectory(prefix="meshgw-unit-") as scratch:
        yield RuntimeDirectory(Path(scratch)).proxy("default", "web")
