"""Objects of proxies as they are found: whose they are, and when two sightings are of the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshgw.api.meta import Key
from meshgw.install.rules import WRITTEN
from meshgw.write.workload import PROXY_KINDS, SELECTOR, Found, OwnedObject, find

GATEWAY = Key("shop", "gw")
LABELS = {"app.kubernetes.io/managed-by": "meshgw", "x": "y"}


def owner(uid: str = "g1", **more: Any) -> dict[str, Any]:
    whole = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "gw", "uid": uid}
    return whole | more


def document(**more: Any) -> dict[str, Any]:
    metadata = {"name": "gw-c", "namespace": "shop", "labels": LABELS, "ownerReferences": [owner()]}
    whole = {"metadata": metadata | {"resourceVersion": "5", "generation": 2}, "spec": {"replicas": 2}}
    return whole | more


def found(written: dict[str, Any], kind: str = "Deployment") -> Found:
    read = msgspec.json.decode(msgspec.json.encode(written), type=OwnedObject)
    return find(kind, read, uid="u", resource_version="5")


def changed(**metadata: Any) -> dict[str, Any]:
    whole = document()
    return whole | {"metadata": whole["metadata"] | metadata}


def test_the_kinds_are_those_that_the_controller_may_write() -> None:
    assert {(kind.group, kind.plural) for kind in PROXY_KINDS} == set(WRITTEN)
    assert SELECTOR == "app.kubernetes.io/managed-by=meshgw"


@pytest.mark.parametrize(
    "same",
    [
        document(status={"readyReplicas": 1}),
        document(spec={"replicas": 2}, status={}),
        changed(resourceVersion="6", generation=3, managedFields=[{"manager": "x"}]),
        changed(annotations={"deployment.kubernetes.io/revision": "3"}),
    ],
)
def test_what_kubernetes_counts_is_no_change(same: dict[str, Any]) -> None:
    assert found(same).digest == found(document()).digest


@pytest.mark.parametrize(
    "other",
    [
        document(spec={"replicas": 3}),
        document(data={"a": "b"}),
        document(binaryData={"a": "Yg=="}),
        document(immutable=True),
        document(automountServiceAccountToken=False),
        document(imagePullSecrets=[{"name": "x"}]),
        changed(labels={}),
        changed(annotations={"a": "b"}),
        changed(ownerReferences=[]),
        changed(deletionTimestamp="2026-01-01T00:00:00Z"),
    ],
)
def test_whatever_somebody_can_set_is_a_change(other: dict[str, Any]) -> None:
    assert found(other).digest != found(document()).digest


def test_an_object_belongs_to_the_gateway_it_was_made_for() -> None:
    assert found(document()).belongs_to(GATEWAY, "g1")
    assert found(document()).belongs_to(GATEWAY, "g2"), "of an earlier Gateway of this name"
    assert found(changed(labels={})).belongs_to(GATEWAY, "g1"), "somebody took the label away"
    assert not found(changed(labels={})).belongs_to(GATEWAY, "g2")
    assert not found(document()).belongs_to(Key("shop", "other"), "g2")
    assert not found(changed(ownerReferences=[])).belongs_to(GATEWAY, "")
    assert not found(changed(ownerReferences=[owner(kind="Service")])).belongs_to(GATEWAY, "g2")
    assert not found(changed(ownerReferences=[owner(apiVersion="x/v1")])).belongs_to(GATEWAY, "g2")


def test_only_what_was_made_for_exactly_this_gateway_may_be_deleted() -> None:
    assert found(document()).is_only_of("g1")
    assert not found(document()).is_only_of("g2")
    assert not found(document()).is_only_of("")
    assert not found(changed(labels={})).is_only_of("g1")
    assert not found(changed(ownerReferences=[owner(), owner("g9", name="x")])).is_only_of("g1")
    assert not found(changed(ownerReferences=[])).is_only_of("")


def test_the_gateway_of_an_object_is_its_owner() -> None:
    assert found(document()).gateway_in("shop") == GATEWAY
    assert found(changed(ownerReferences=[owner(kind="Node")])).gateway_in("shop") == Key("shop", "")


def test_only_what_nobody_would_miss_is_made_anew() -> None:
    assert found(document()).replaceable
    assert not found(document(status={"readyReplicas": 1})).replaceable
    assert not found(document(status={"numberReady": 1}), "DaemonSet").replaceable
    assert found(document(status={"numberReady": 0}), "DaemonSet").replaceable
    assert found(document(), "ConfigMap").replaceable
    assert found(document(), "PodDisruptionBudget").replaceable
    assert not found(document(), "Service").replaceable
    assert not found(document(), "ServiceAccount").replaceable


def test_an_object_that_goes_is_seen_as_such() -> None:
    assert found(changed(deletionTimestamp="2026-01-01T00:00:00Z")).deleting
    assert not found(document()).deleting
