"""Fixtures of the identity tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for the 107 bytes of a socket address."""
    with tempfile.TemporaryDirectory(prefix="ca-", dir="/tmp") as path:
        yield Path(path)
