"""Fixtures of tests of the controller: what its proxies send requests to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.rig.backends import Backends


@pytest.fixture
async def backends() -> AsyncIterator[Backends]:
    """Echo backends that end with the test."""
    async with Backends() as started:
        yield started
