from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshgw.kube.client import Client, KubeSettings, connect
from tests.cluster.apiserver import ApiServer


@pytest.fixture
async def client(apiserver: ApiServer) -> AsyncIterator[Client]:
    async with connect(KubeSettings(kubeconfig=str(apiserver.kubeconfig))) as found:
        yield found


@pytest.fixture
async def space(apiserver: ApiServer, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = request.node.name.removeprefix("test_").replace("_", "-").lower()[:50].strip("-")
    await asyncio.to_thread(apiserver.create_namespace, name)
    return name
