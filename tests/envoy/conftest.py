"""Fixtures of the real-Envoy tier; every test below this folder is marked `envoy`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.envoy.waypoint_world import World, open_world
from tests.rig.addresses import next_loopback
from tests.rig.backends import Backends
from tests.rig.certs import CertificateAuthority, authority
from tests.rig.envoy import envoy_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what this folder holds (the hook sees the whole run)."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.envoy)


@pytest.fixture(scope="session")
def envoy() -> Path:
    """The Envoy under test, fetched when absent."""
    return envoy_path()


@pytest.fixture
async def backends() -> AsyncIterator[Backends]:
    """Echo backends that end with the test."""
    async with Backends() as started:
        yield started


@pytest.fixture
def loopback() -> str:
    """A loopback address no other test uses: any port on it is free."""
    return next_loopback()


@pytest.fixture(scope="session")
def ca() -> CertificateAuthority:
    """The run's ordinary certificate authority."""
    return authority()


@pytest.fixture(scope="session")
def mesh_ca() -> CertificateAuthority:
    """The run's mesh root, which signs `tests.rig.certs.spiffe` identities."""
    return authority("mesh")


@pytest.fixture
async def world(backends: Backends) -> AsyncIterator[World]:
    """A waypoint's mesh: an HTTP and a TCP service behind it."""
    async with open_world(backends) as opened:
        yield opened
