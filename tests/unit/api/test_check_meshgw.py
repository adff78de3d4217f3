"""Rules for GatewayParameters; `tests/cluster` holds them against those of a real API server."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshgw.api.decode import decode


def problems(spec: str) -> list[tuple[str, str]]:
    document: dict[str, Any] = {
        "apiVersion": "meshgw.dev/v1alpha1",
        "kind": "GatewayParameters",
        "metadata": {"name": "own"},
        "spec": yaml.safe_load(spec),
    }
    return [(problem.field, problem.message) for problem in decode(document).problems]


@pytest.mark.parametrize(
    "spec",
    [
        "{}",
        "{selfManaged: {}}",
        "{daemonSet: false, replicas: 1}",
        "{autoscaling: {minReplicas: 2, maxReplicas: 2}}",
        "{podDisruptionBudget: {maxUnavailable: 10%}}",
        "{service: {externalTrafficPolicy: Local, loadBalancerClass: a.b/c}}",
        "{service: {type: NodePort, nodePorts: [{port: 80, nodePort: 30080}, {port: 81, nodePort: 30081}]}}",
        "{envoy: {extraArgs: [--cpuset-threads]}}",
    ],
)
def test_good_parameters_have_no_problems(spec: str) -> None:
    assert problems(spec) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ("{selfManaged: {}, image: a}", "spec.selfManaged", "only field"),
        ("{daemonSet: true, replicas: 1}", "spec.daemonSet", "excludes replicas"),
        ("{daemonSet: true, autoscaling: {maxReplicas: 1}}", "spec.daemonSet", "excludes replicas"),
        ("{replicas: 1, autoscaling: {maxReplicas: 1}}", "spec.replicas", "excludes autoscaling"),
        ("{autoscaling: {minReplicas: 3, maxReplicas: 2}}", "spec.autoscaling", "exceed"),
        ("{podDisruptionBudget: {}}", "spec.podDisruptionBudget", "exactly one"),
        ("{podDisruptionBudget: {minAvailable: 1, maxUnavailable: 1}}", "spec.podDisruptionBudget", "exactly one"),
        (
            "{service: {type: ClusterIP, externalTrafficPolicy: Local}}",
            "spec.service.externalTrafficPolicy",
            "ClusterIP",
        ),
        (
            "{service: {type: ClusterIP, nodePorts: [{port: 80, nodePort: 30080}]}}",
            "spec.service.nodePorts",
            "ClusterIP",
        ),
        ("{service: {type: NodePort, loadBalancerClass: a.b/c}}", "spec.service.loadBalancerClass", "LoadBalancer"),
        ("{service: {nodePorts: [{port: 1, nodePort: 2}, {port: 1, nodePort: 3}]}}", "spec.service.nodePorts", "twice"),
        ("{service: {labels: {gateway.istio.io/managed: x}}}", "spec.service.labels", "istiod"),
        ("{podTemplate: {annotations: {gateway.istio.io/managed: x}}}", "spec.podTemplate.annotations", "istiod"),
        ("{serviceAccount: {labels: {gateway.istio.io/managed: x}}}", "spec.serviceAccount.labels", "istiod"),
        ("{podTemplate: {env: [{name: A}, {name: POD_NAME}]}}", "spec.podTemplate.env[1].name", "taken"),
        ("{podTemplate: {env: [{value: A}]}}", "spec.podTemplate.env[0].name", "required"),
        ("{podTemplate: {volumes: [{name: token}]}}", "spec.podTemplate.volumes[0].name", "taken"),
        ("{podTemplate: {volumeMounts: [{mountPath: /tmp}]}}", "spec.podTemplate.volumeMounts[0].mountPath", "taken"),
        ("{envoy: {extraArgs: [-c]}}", "spec.envoy.extraArgs[0]", "set by the controller"),
        ("{envoy: {extraArgs: [--a, --service-node=x]}}", "spec.envoy.extraArgs[1]", "--service-node is set"),
        ("{overlays: {service: {kind: Pod}}}", "spec.overlays.service.kind", "cannot be changed"),
        ("{overlays: {daemonSet: {spec: {selector: {}}}}}", "spec.overlays.daemonSet.spec.selector", "cannot"),
        ("{overlays: {configMap: {$patch: delete}}}", "spec.overlays.configMap.$patch", "cannot be left out"),
    ],
)
def test_each_rule_names_its_field(spec: str, field: str, message: str) -> None:
    found = dict(problems(spec))
    assert set(found) == {field}
    assert message in found[field]
