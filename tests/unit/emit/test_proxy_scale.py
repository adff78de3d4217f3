"""How many pods there are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.emit.deployed import deploy_with


def spec_of(kind: str, parameters: str) -> Any:
    found = deploy_with(parameters).objects().get(kind)
    return found and found["spec"]


@pytest.mark.parametrize(("parameters", "replicas"), [("{}", 1), ("{replicas: 0}", 0), ("{replicas: 5}", 5)])
def test_a_deployment_has_the_number_of_pods_asked_for(parameters: str, replicas: int) -> None:
    assert spec_of("Deployment", parameters)["replicas"] == replicas


def test_a_pod_goes_when_the_next_one_is_ready() -> None:
    expected = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec_of("Deployment", "{}")["strategy"] == expected
    assert spec_of("DaemonSet", "{daemonSet: true}")["updateStrategy"] == expected


def test_a_daemon_set_takes_the_place_of_the_deployment() -> None:
    found = deploy_with("{daemonSet: true}").objects()
    assert "Deployment" not in found
    assert "replicas" not in found["DaemonSet"]["spec"]


def test_an_autoscaler_alone_decides_the_number() -> None:
    found = deploy_with("{autoscaling: {maxReplicas: 4}}").objects()
    assert "replicas" not in found["Deployment"]["spec"]
    scaler = found["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gw-meshgw"}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 4)


@pytest.mark.parametrize(
    ("utilization", "targets"),
    [
        ("", {"cpu": 80}),
        (", memoryUtilization: 70", {"memory": 70}),
        (", cpuUtilization: 50, memoryUtilization: 70", {"cpu": 50, "memory": 70}),
    ],
)
def test_it_aims_at_utilizations(utilization: str, targets: dict[str, int]) -> None:
    scaler = spec_of("HorizontalPodAutoscaler", f"{{autoscaling: {{maxReplicas: 2{utilization}}}}}")
    found = {m["resource"]["name"]: m["resource"]["target"]["averageUtilization"] for m in scaler["metrics"]}
    assert found == targets


def test_metrics_and_behaviour_are_passed_on() -> None:
    scaler = spec_of(
        "HorizontalPodAutoscaler",
        "{autoscaling: {maxReplicas: 2, metrics: [{type: Pods}], behavior: {scaleUp: {selectPolicy: Max}}}}",
    )
    assert scaler["metrics"] == [{"type": "Pods"}]
    assert scaler["behavior"] == {"scaleUp": {"selectPolicy": "Max"}}


@pytest.mark.parametrize(
    ("parameters", "limits"),
    [
        ("{}", None),
        ("{replicas: 2}", {"maxUnavailable": 1}),
        ("{autoscaling: {maxReplicas: 9}}", None),
        ("{autoscaling: {minReplicas: 2, maxReplicas: 9}}", {"maxUnavailable": 1}),
        ("{podDisruptionBudget: {minAvailable: 1}}", {"minAvailable": 1}),
        ("{replicas: 4, podDisruptionBudget: {maxUnavailable: 25%}}", {"maxUnavailable": "25%"}),
        ("{daemonSet: true}", None),
    ],
)
def test_several_pods_have_a_disruption_budget(parameters: str, limits: dict[str, Any] | None) -> None:
    budget = spec_of("PodDisruptionBudget", parameters)
    selector = {"gateway.networking.k8s.io/gateway-name": "gw", "app.kubernetes.io/instance": "gw-meshgw"}
    assert budget == (limits and {"selector": {"matchLabels": selector}, **limits})
