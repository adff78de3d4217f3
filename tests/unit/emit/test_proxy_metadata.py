"""Labels, annotations and owners of the objects."""

from __future__ import annotations

from tests.unit.emit.deployed import deploy, gateway, parameters, waypoint

INFRASTRUCTURE = "  infrastructure: {labels: {team: edge, tier: infra}, annotations: {note: hello}}"
LONG = "g" * 70


def test_every_object_and_pod_says_which_gateway_and_class_it_is_of() -> None:
    world = deploy(gateway())
    for metadata in (*(item["metadata"] for item in world.objects().values()), world.pod()["metadata"]):
        labels = metadata["labels"]
        assert labels["gateway.networking.k8s.io/gateway-name"] == "gw"
        assert labels["gateway.networking.k8s.io/gateway-class-name"] == "meshgw"
        assert labels["app.kubernetes.io/managed-by"] == "meshgw"


def test_the_infrastructure_is_on_every_object_and_pod() -> None:
    world = deploy(gateway(extra=INFRASTRUCTURE))
    for metadata in (*(item["metadata"] for item in world.objects().values()), world.pod()["metadata"]):
        assert (metadata["labels"]["team"], metadata["annotations"]["note"]) == ("edge", "hello")


def test_the_infrastructure_wins_over_parameters() -> None:
    extra = INFRASTRUCTURE.removesuffix("}") + (
        ", parametersRef: {group: meshgw.dev, kind: GatewayParameters, name: own}}"
    )
    spec = "{service: {labels: {team: a, x: y}}, podTemplate: {labels: {team: a, x: y}, annotations: {note: a}}}"
    world = deploy(gateway(extra=extra), parameters(spec))
    for labels in (world.objects()["Service"]["metadata"]["labels"], world.pod()["metadata"]["labels"]):
        assert (labels["team"], labels["x"]) == ("edge", "y")
    assert world.pod()["metadata"]["annotations"]["note"] == "hello"


def test_no_other_proxy_comes_between_and_istiod_does_not_take_the_pods_for_its_own() -> None:
    labels = deploy(waypoint()).pod()["metadata"]["labels"]
    assert (labels["istio.io/dataplane-mode"], labels["sidecar.istio.io/inject"]) == ("none", "false")
    assert "gateway.istio.io/managed" not in labels


def test_a_waypoint_is_behind_no_waypoint() -> None:
    world = deploy(waypoint(own=True), parameters("{service: {labels: {istio.io/use-waypoint: other}}}"))
    metadata = world.objects()["Service"]["metadata"]
    assert metadata["labels"]["istio.io/use-waypoint"] == "none"
    assert world.pod()["metadata"]["labels"]["istio.io/use-waypoint"] == "none"
    assert metadata["annotations"]["networking.istio.io/traffic-distribution"] == "PreferClose"
    assert "istio.io/use-waypoint" not in deploy(gateway()).objects()["Service"]["metadata"]["labels"]


def test_a_service_account_takes_annotations() -> None:
    world = deploy(gateway(own=True), parameters("{serviceAccount: {labels: {a: b}, annotations: {role: arn}}}"))
    metadata = world.objects()["ServiceAccount"]["metadata"]
    assert (metadata["labels"]["a"], metadata["annotations"]) == ("b", {"role": "arn"})


def test_a_name_too_long_for_a_label_is_cut_there_and_whole_in_an_annotation() -> None:
    for item in deploy(gateway(LONG)).objects(LONG).values():
        label = item["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"]
        assert len(label) == 63
        assert item["metadata"]["annotations"]["meshgw.dev/gateway-name"] == LONG
        assert len(item["metadata"]["name"]) <= 63


def test_without_an_identity_there_is_no_owner() -> None:
    found = deploy(gateway().replace("uid: uid-of-gw, ", "")).objects()
    assert all("ownerReferences" not in item["metadata"] for item in found.values())
