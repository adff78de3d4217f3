from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.cluster.access import KubectlError
from tests.cluster.archive import Config, Layer, write_archive
from tests.cluster.existing import LOADER, use_existing_cluster, why_not
from tests.cluster.local import LocalCluster
from tests.cluster.programs import executable
from tests.cluster.workloads import Echo


@pytest.mark.parametrize(("environ", "named"), [({}, "KUBECONFIG"), ({"KUBECONFIG": "/k"}, LOADER)])
def test_what_is_missing_is_told(environ: dict[str, str], named: str) -> None:
    assert named in (why_not(environ) or "")


def test_cluster_of_a_kubeconfig_is_as_good_as_any(local_cluster: LocalCluster, tmp_path: Path) -> None:
    loader = shlex.join(local_cluster.command(["ctr", "--namespace", "k8s.io", "images", "import"]))
    environ = {**os.environ, "KUBECONFIG": str(local_cluster.kubeconfig), LOADER: loader}
    assert why_not(environ) is None
    layer = Layer()
    layer.add(executable("pause"), "/bin/wait", mode=0o755)
    write_archive(tmp_path / "wait.tar", "example.test/wait:1", [layer], Config(["/bin/wait"]))
    with use_existing_cluster(environ) as existing:
        existing.load_image(tmp_path / "wait.tar")
        space = existing.create_namespace("existing-tests")
        run = ["run", "wait", "--image=example.test/wait:1", "--image-pull-policy=Never"]
        existing.kubectl("-n", space, *run)
        existing.kubectl("-n", space, "wait", "pod/wait", "--for=condition=Ready", "--timeout=30s")
        server = Echo(existing, space, "server")
        server.deploy()
        assert existing.resolve(server.host)
        assert existing.host == local_cluster.host
        with pytest.raises(KubectlError, match=r"nothing\.tar"):
            existing.load_image(tmp_path / "nothing.tar")
