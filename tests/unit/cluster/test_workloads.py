"""How proxies do, from what Kubernetes says of their workloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from meshgw.api.meta import Key, ObjectRef
from meshgw.cluster.workloads import Workloads
from meshgw.kube.seen import Observed, Seen
from meshgw.write.workload import PROXY_KINDS, OwnedObject, Problem
from tests.unit.cluster.world import kind as gateway_kind

GATEWAY = Key("shop", "gw")
KINDS = {kind.name: kind for kind in PROXY_KINDS}
SEEN = Seen(GATEWAY, None, Observed(uid="g", resource_version="1", generation=1))
OBSERVED = Observed(uid="u", resource_version="1", generation=1)


def workload(name: str = "gw-meshgw", **status: Any) -> Seen:
    """A Deployment of the Gateway, as seen."""
    owner = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "gw", "uid": "g"}
    document = {"metadata": {"name": name, "namespace": "shop", "ownerReferences": [owner]}, "status": status}
    row = msgspec.json.decode(msgspec.json.encode(document), type=OwnedObject)
    return Seen(row.key, row, OBSERVED)


def following(on_change: Callable[[], None] = lambda: None) -> Workloads:
    """Workloads where the Gateway is known."""
    found = Workloads(on_change)
    found.see(gateway_kind("Gateway"), [SEEN])
    return found


def refused(message: str) -> list[dict[str, str]]:
    return [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]


def test_a_proxy_serves_once_one_of_its_pods_is_ready() -> None:
    changes: list[None] = []
    workloads = following(lambda: changes.append(None))
    missing = workloads.shortfall(GATEWAY)
    assert missing is not None
    assert (missing.reason, missing.message) == ("Pending", "the proxy is not deployed yet")
    workloads.see(KINDS["Deployment"], [workload(replicas=2)])
    missing = workloads.shortfall(GATEWAY)
    assert missing is not None
    assert missing.reason == "Pending"
    workloads.see(KINDS["Deployment"], [workload(replicas=2, availableReplicas=1)])
    assert workloads.shortfall(GATEWAY) is None
    assert len(changes) == 2
    workloads.see(KINDS["Deployment"], [workload(replicas=2, availableReplicas=2)])
    workloads.see(KINDS["ConfigMap"], [workload()])
    assert len(changes) == 2
    workloads.see(KINDS["Deployment"], [Seen(Key("shop", "gw-meshgw"), None, None)])
    assert workloads.shortfall(GATEWAY) is not None


def test_pods_that_are_refused_are_what_the_gateway_lacks() -> None:
    workloads = following()
    workloads.see(KINDS["Deployment"], [workload(conditions=refused("exceeded quota: pods"))])
    missing = workloads.shortfall(GATEWAY)
    assert missing is not None
    assert (missing.reason, missing.message) == ("NoResources", "no pod of the proxy is ready: exceeded quota: pods")


def test_a_daemon_set_that_takes_over_from_a_deployment_is_enough() -> None:
    workloads = following()
    workloads.see(KINDS["DaemonSet"], [workload(desiredNumberScheduled=1, numberAvailable=1)])
    workloads.see(KINDS["Deployment"], [workload(replicas=1)])
    assert workloads.shortfall(GATEWAY) is None


def test_objects_that_cannot_be_applied_count_only_while_nothing_serves() -> None:
    workloads = following()
    problem = Problem(GATEWAY, ObjectRef("Deployment", "shop", "gw-meshgw"), "NameTaken", "exists")
    workloads.note(GATEWAY, [problem])
    missing = workloads.shortfall(GATEWAY)
    assert missing is not None
    assert (missing.reason, missing.message) == ("NoResources", "exists")
    workloads.see(KINDS["Deployment"], [workload(availableReplicas=1)])
    assert workloads.shortfall(GATEWAY) is None
    workloads.see(KINDS["Deployment"], [workload()])
    workloads.note(GATEWAY, ())
    missing = workloads.shortfall(GATEWAY)
    assert missing is not None
    assert missing.reason == "Pending"


def test_what_another_gateway_of_that_name_or_somebody_else_runs_does_not_count() -> None:
    changes: list[None] = []
    workloads = Workloads(lambda: changes.append(None))
    workloads.see(KINDS["Deployment"], [workload(availableReplicas=1)])
    assert workloads.shortfall(GATEWAY) is not None, "there is no such Gateway yet"
    earlier = Seen(GATEWAY, None, Observed(uid="earlier", resource_version="1", generation=1))
    workloads.see(gateway_kind("Gateway"), [earlier])
    assert workloads.shortfall(GATEWAY) is not None
    assert changes == []
    workloads.see(gateway_kind("Gateway"), [SEEN])
    assert workloads.shortfall(GATEWAY) is None
    assert len(changes) == 1
    labels = {"gateway.networking.k8s.io/gateway-name": "gw", "app.kubernetes.io/managed-by": "meshgw"}
    document = {"metadata": {"name": "mine", "namespace": "shop", "labels": labels}, "status": {"availableReplicas": 1}}
    labelled = msgspec.json.decode(msgspec.json.encode(document), type=OwnedObject)
    workloads.see(
        KINDS["Deployment"], [Seen(Key("shop", "gw-meshgw"), None, None), Seen(labelled.key, labelled, OBSERVED)]
    )
    assert workloads.shortfall(GATEWAY) is not None
    workloads.see(KINDS["Deployment"], [workload(availableReplicas=1)])
    workloads.see(gateway_kind("Gateway"), [Seen(GATEWAY, None, None)])
    assert workloads.shortfall(GATEWAY) is not None
