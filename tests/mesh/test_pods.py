"""Which pods are captured."""

from __future__ import annotations

from typing import Any

import pytest

from tests.mesh.pods import Pod, enlisted


def namespace(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "shop", "labels": labels}}


AMBIENT = {"metadata": {"name": "shop", "labels": {"istio.io/dataplane-mode": "ambient"}}}


def pod(*, labels: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    status = {"phase": "Running", "podIPs": [{"ip": "10.1.0.1"}], **changes.pop("status", {})}
    metadata = {
        "uid": "u",
        "namespace": "shop",
        "name": "cart-1",
        "labels": labels or {},
        **changes.pop("metadata", {}),
    }
    return {"metadata": metadata, "spec": {"serviceAccountName": "cart", **changes}, "status": status}


def test_a_pod_of_a_labelled_namespace_is_captured() -> None:
    assert enlisted(pod(), AMBIENT) == Pod("u", "shop", "cart-1", "cart", ("10.1.0.1",))
    assert enlisted(pod(), namespace()) is None


def test_a_pods_own_label_comes_first() -> None:
    assert enlisted(pod(labels={"istio.io/dataplane-mode": "none"}), AMBIENT) is None
    assert enlisted(pod(labels={"istio.io/dataplane-mode": "ambient"}), namespace()) is not None


@pytest.mark.parametrize(
    "other",
    [
        pod(hostNetwork=True),
        pod(labels={"networking.istio.io/tunnel": "http"}),
        pod(status={"phase": "Succeeded"}),
        pod(status={"podIPs": []}),
        pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
    ],
    ids=["node's network", "speaks HBONE itself", "ended", "no address", "leaves"],
)
def test_what_cannot_or_need_not_be_captured_is_left_alone(other: dict[str, Any]) -> None:
    assert enlisted(other, AMBIENT) is None
