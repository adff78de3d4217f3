"""Finding the network namespace of a pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mesh.capture import CaptureError, find_namespace

UID = "8d2c0c8e-7f0e-4a3b-9a57-0d6f0b0a0001"


def process(root: Path, name: str, group: str, namespace: str) -> None:
    (root / name / "ns").mkdir(parents=True)
    (root / name / "cgroup").write_text(f"12:pids:/{group}\n0::/{group}\n")
    (root / name / "ns" / "net").symlink_to(namespace)


@pytest.mark.parametrize(
    "group", [f"kubepods/besteffort/pod{UID}/c1", f"kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/c1"]
)
def test_a_pods_process_is_known_by_its_group(tmp_path: Path, group: str) -> None:
    process(tmp_path, "self", "", "net:[1]")
    process(tmp_path, "9", "kubepods/besteffort/pod0/c0", "net:[2]")
    process(tmp_path, "10", f"shim/{group}", "net:[1]")  # of the pod, and not in its network
    process(tmp_path, "11", group, "net:[3]")
    (tmp_path / "12").mkdir()  # ended
    assert find_namespace(UID, tmp_path) == tmp_path / "11" / "ns" / "net"


def test_a_pod_without_processes_is_not_found(tmp_path: Path) -> None:
    process(tmp_path, "self", "", "net:[1]")
    with pytest.raises(CaptureError, match=UID):
        find_namespace(UID, tmp_path)
