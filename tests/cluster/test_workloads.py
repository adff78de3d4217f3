from __future__ import annotations

import pytest

from tests.cluster.access import KubectlError
from tests.cluster.cluster import Cluster
from tests.cluster.workloads import HBONE, HTTP, Echo, lines_of
from tests.rig.certs import authority


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> str:
    return cluster.create_namespace("workload-tests")


def test_echo_calls_echo_by_name(cluster: Cluster, space: str) -> None:
    server, client = Echo(cluster, space, "server", replicas=2), Echo(cluster, space, "client")
    server.deploy()
    client.deploy()
    said = client.call("--count=20", f"http://{server.host}/")
    assert set(lines_of(said, "StatusCode")) == {"200"}
    assert set(lines_of(said, "Hostname")) == set(server.pods())
    with pytest.raises(KubectlError):
        client.call(f"http://nobody.{space}.svc.cluster.local/")


def test_echo_speaks_hbone(cluster: Cluster, space: str) -> None:
    leaf = authority("mesh").issue(uris=[f"spiffe://cluster.local/ns/{space}/sa/tunnel"])
    tunnel = Echo(cluster, space, "tunnel", identity=(leaf.chain, leaf.key))
    tunnel.deploy()
    ((name, address),) = tunnel.pods().items()
    target = f"127.0.0.1:{HTTP}"
    said = tunnel.call_through_tunnel(f"{address}:{HBONE}", target, f"http://{target}/")
    assert lines_of(said, "Hostname") == [name]
    assert lines_of(said, "StatusCode") == ["200"]
    assert "Received CONNECT" in cluster.kubectl("-n", space, "logs", "deployment/tunnel")
