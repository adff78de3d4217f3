"""Parameters of classes and Gateways, and how those of one go over those of the other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml

from meshgw.api.meshgw import GatewayParametersSpec
from meshgw.api.meta import Key
from meshgw.ir.gateway import OwnParameters
from meshgw.resolve import tables as t
from meshgw.resolve.parameters import merge_parameters, unsafe_field
from tests.unit.emit.deployed import deploy, gateway, gateway_class, parameters
from tests.unit.resolve.graph import codes, shown


def spec(text: str) -> GatewayParametersSpec:
    return msgspec.convert(yaml.safe_load(text), GatewayParametersSpec)


@pytest.mark.parametrize(
    ("base", "own", "merged"),
    [
        ("{replicas: 2}", "{}", "{replicas: 2}"),
        ("{}", "{replicas: 2}", "{replicas: 2}"),
        ("{replicas: 2, image: a}", "{replicas: 0}", "{replicas: 0, image: a}"),
        ("{daemonSet: true}", "{daemonSet: false}", "{daemonSet: false}"),
        (
            "{service: {type: NodePort, labels: {a: '1', b: '1'}}}",
            "{service: {labels: {b: '2'}}}",
            "{service: {type: NodePort, labels: {a: '1', b: '2'}}}",
        ),
        (
            "{resources: {limits: {cpu: 1}}}",
            "{resources: {requests: {cpu: 1}}}",
            "{resources: {requests: {cpu: 1}, limits: {cpu: 1}}}",
        ),
        (
            "{podTemplate: {tolerations: [{key: a}]}}",
            "{podTemplate: {tolerations: []}}",
            "{podTemplate: {tolerations: []}}",
        ),
        ("{podTemplate: {affinity: {a: 1}}}", "{podTemplate: {affinity: {b: 1}}}", "{podTemplate: {affinity: {b: 1}}}"),
        ("{envoy: {extraArgs: [a]}}", "{envoy: {logLevel: info}}", "{envoy: {extraArgs: [a], logLevel: info}}"),
        (
            "{podDisruptionBudget: {minAvailable: 1}}",
            "{podDisruptionBudget: {maxUnavailable: 1}}",
            "{podDisruptionBudget: {maxUnavailable: 1}}",
        ),
        (
            "{autoscaling: {minReplicas: 2, maxReplicas: 3}}",
            "{autoscaling: {maxReplicas: 1}}",
            "{autoscaling: {maxReplicas: 1}}",
        ),
        ("{replicas: 3}", "{daemonSet: true}", "{daemonSet: true}"),
        ("{daemonSet: true}", "{replicas: 3}", "{replicas: 3}"),
        ("{replicas: 3, image: a}", "{autoscaling: {maxReplicas: 2}}", "{autoscaling: {maxReplicas: 2}, image: a}"),
        ("{image: a}", "{selfManaged: {}}", "{selfManaged: {}}"),
        ("{selfManaged: {}}", "{image: a}", "{image: a}"),
        ("{selfManaged: {}}", "{}", "{selfManaged: {}}"),
    ],
)
def test_the_more_specific_one_goes_over_the_other(base: str, own: str, merged: str) -> None:
    assert merge_parameters(spec(base), spec(own)) == spec(merged)


def test_merging_changes_neither() -> None:
    base, own = spec("{service: {labels: {a: b}}}"), spec("{service: {labels: {c: d}}}")
    merge_parameters(base, own)
    assert (base, own) == (spec("{service: {labels: {a: b}}}"), spec("{service: {labels: {c: d}}}"))


def test_parameters_of_class_and_gateway_hold_together() -> None:
    world = deploy(
        gateway_class(),
        parameters("{replicas: 2, image: a}", "all", "infra"),
        gateway(class_name="mine", own=True),
        parameters("{image: b}"),
    )
    assert world.plan().parameters == spec("{replicas: 2, image: b}")
    world.remove(t.GATEWAY_PARAMETERS, "own")
    world.put(gateway(class_name="mine"))
    assert world.plan().parameters == spec("{replicas: 2, image: a}")


BAD_REFS = {
    "missing": (
        "{group: meshgw.dev, kind: GatewayParameters, name: other}",
        "there are no GatewayParameters default/other",
    ),
    "kind": ("{group: '', kind: ConfigMap, name: own}", "names a ConfigMap"),
    "group": ("{group: x.io, kind: GatewayParameters, name: own}", "names a x.io/GatewayParameters"),
}


@pytest.mark.parametrize("case", sorted(BAD_REFS))
@pytest.mark.parametrize("deploys", [True, False])
def test_a_bad_reference_of_a_gateway_is_its_own_problem(case: str, *, deploys: bool) -> None:
    ref, message = BAD_REFS[case]
    extra = f"  infrastructure: {{parametersRef: {ref}}}"
    world = deploy(gateway(extra=extra), gateway("other"), parameters("{}"), deploys=deploys)
    rows = {key.name: row for key, row in world.graph.rows(t.OUR_GATEWAYS).items()}
    assert shown(rows["gw"].conditions)["Accepted"] == "False/InvalidParameters"
    assert shown(rows["other"].conditions)["Accepted"] == "True/Accepted"
    assert codes(rows["gw"].findings) == ["MG7001"]
    assert message in rows["gw"].findings[0].message
    assert (rows["gw"].held, rows["gw"].accepted) == (deploys, deploys)


@pytest.mark.parametrize(
    ("ref", "field"),
    [("{name: all}", "spec.parametersRef.namespace"), ("{namespace: infra, name: other}", "spec.parametersRef")],
)
def test_a_bad_reference_of_a_class_holds_its_gateways(ref: str, field: str) -> None:
    world = deploy(gateway_class(parameters=ref), parameters("{}", "all", "infra"), gateway(class_name="mine"))
    found = world.graph.rows(t.CLASSES)["mine"]
    assert shown(found.conditions)["Accepted"] == "False/InvalidParameters"
    assert [(finding.code, finding.field) for finding in found.findings] == [("MG7001", field)]
    (row,) = world.graph.rows(t.OUR_GATEWAYS).values()
    assert (row.accepted, row.held) == (True, True)
    assert shown(row.conditions)["Accepted"] == "False/Invalid"


def test_a_class_that_is_wrong_otherwise_serves_nothing() -> None:
    world = deploy(gateway_class(labels="{meshgw.dev/role: odd}"), gateway(class_name="mine"))
    (row,) = world.graph.rows(t.OUR_GATEWAYS).values()
    assert (row.accepted, row.held) == (False, False)


def test_parameters_that_appear_are_used() -> None:
    world = deploy(gateway(own=True))
    assert world.objects() == {}
    world.put(parameters("{replicas: 4}"))
    found: Any = world.objects()["Deployment"]
    assert found["spec"]["replicas"] == 4


@pytest.mark.parametrize(
    ("own", "field"),
    [
        ("{replicas: 2, resources: {limits: {cpu: 1}}, podDisruptionBudget: {minAvailable: 1}}", ""),
        ("{daemonSet: true, service: {type: NodePort, annotations: {example.com/a: b}}}", ""),
        ("{autoscaling: {maxReplicas: 3}, envoy: {logLevel: info, concurrency: 2}}", ""),
        ("{selfManaged: {}}", "spec.selfManaged"),
        ("{image: evil}", "spec.image"),
        ("{imagePullPolicy: Never}", "spec.imagePullPolicy"),
        ("{podTemplate: {}}", "spec.podTemplate"),
        ("{serviceAccount: {annotations: {a: b}}}", "spec.serviceAccount"),
        ("{overlays: {service: {spec: {}}}}", "spec.overlays"),
        ("{envoy: {extraArgs: [--a]}}", "spec.envoy.extraArgs"),
        ("{service: {labels: {istio.io/use-waypoint: other}}}", "spec.service.labels[istio.io/use-waypoint]"),
    ],
)
def test_what_is_safe_changes_neither_software_nor_identity_nor_confinement(own: str, field: str) -> None:
    assert unsafe_field(spec(own)) == field


@pytest.mark.parametrize("permitted", OwnParameters)
def test_parameters_of_classes_may_say_everything_whatever_gateways_may(permitted: OwnParameters) -> None:
    whole = parameters("{podTemplate: {priorityClassName: high}}", "all", "infra")
    texts = (gateway_class(), whole, gateway(class_name="mine"))
    assert deploy(*texts, own_parameters=permitted).pod()["spec"]["priorityClassName"] == "high"


def test_what_gateways_may_not_say_holds_them_and_names_the_field() -> None:
    texts = (gateway(own=True), parameters("{image: evil}"))
    for permitted, named in ((OwnParameters.SAFE, "spec.image"), (OwnParameters.NONE, "classes only")):
        world = deploy(*texts, own_parameters=permitted)
        assert world.plan().held_by
        assert world.objects() == {}
        (finding,) = world.graph.rows(t.OUR_GATEWAYS)[Key("default", "gw")].findings
        assert finding.code == "MG7005"
        assert named in finding.message
