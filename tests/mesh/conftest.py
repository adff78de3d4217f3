"""A mesh with node proxies, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.istiod import Istiod
from tests.cluster.local import LocalCluster
from tests.mesh.running import run_node_proxy


@pytest.fixture(scope="module")
def captured(cluster: Cluster, istiod: Istiod) -> Iterator[LocalCluster]:
    """The run's cluster while the pods of its ambient namespaces are captured: that ends with the module."""
    del istiod
    if not isinstance(cluster, LocalCluster):
        pytest.skip("the node proxy runs on the node of a local cluster only")
    with run_node_proxy(cluster):
        yield cluster
