"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = ["tests.cluster.plugin"]

_LONGEST_ID = 80


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by a long parameter's name, not its text: a certificate differs from worker to worker."""
    return argname if isinstance(val, str | bytes) and len(val) > _LONGEST_ID else None


@pytest.fixture(autouse=True)
def _default_logs() -> Iterator[None]:
    """Logging is global: what a test configures ends with it."""
    yield
    structlog.reset_defaults()
