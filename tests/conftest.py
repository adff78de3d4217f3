"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = ["tests.cluster.plugin"]


@pytest.fixture(autouse=True)
def _default_logs() -> Iterator[None]:
    """Logging is global: what a test configures ends with it."""
    yield
    structlog.reset_defaults()
