from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.access import Access
from tests.cluster.namespaces import ROOT


@pytest.mark.usefixtures("cluster")
@pytest.mark.timeout(240)
def test_person_gets_a_cluster_with_istiod_and_gets_rid_of_it() -> None:
    command = [sys.executable, "-m", "tests.cluster"]
    started = subprocess.run([*command, "up"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=200)
    kubeconfig = Path(started.stdout.strip().removeprefix("export KUBECONFIG="))
    try:
        access = Access(kubeconfig)
        assert access.get("-n", "istio-system", "deployment", "istiod")["status"]["readyReplicas"] == 1
        assert access.get("gateways", "-A")["items"] == []
    finally:
        ended = subprocess.run(
            [*command, "down", str(kubeconfig)], cwd=ROOT, capture_output=True, text=True, check=True
        )
    assert f"removed {kubeconfig.parent}" in ended.stderr
    assert not kubeconfig.parent.exists()
    with pytest.raises(OSError):
        access.request("GET", "/readyz", within=1)


def test_usage_is_told() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.cluster", "sideways"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert "up | down" in told.stderr
