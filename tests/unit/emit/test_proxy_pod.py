"""The pods of a Gateway. That they keep to the restricted standard is for a real API server to say."""

from __future__ import annotations

import pytest

from tests.unit.emit.deployed import deploy, deploy_with, gateway, waypoint


def test_a_proxy_says_who_it_is_on_its_command_line() -> None:
    arguments = deploy(gateway()).arguments()
    assert arguments["--service-node"] == "$(POD_NAMESPACE)/gw/$(POD_NAME)"
    assert arguments["--service-cluster"] == "gw.default"


def test_its_token_is_for_the_controller_and_short_lived() -> None:
    spec = deploy(gateway()).pod()["spec"]
    (projected,) = (volume["projected"] for volume in spec["volumes"] if volume["name"] == "token")
    (source,) = projected["sources"]
    assert source == {"serviceAccountToken": {"audience": "meshgw", "expirationSeconds": 3600, "path": "token"}}
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("seconds", "grace"), [(20, 30), (60, 70)])
def test_it_drains_before_it_ends_and_is_given_the_time(seconds: int, grace: int) -> None:
    world = deploy_with("{}" if seconds == 20 else f"{{envoy: {{drainSeconds: {seconds}}}}}")
    hook = world.container()["lifecycle"]["preStop"]["httpGet"]
    assert hook == {"path": "/drain/uid-of-gw", "port": 15021}
    assert world.pod()["spec"]["terminationGracePeriodSeconds"] == grace
    assert world.arguments()["--drain-time-s"] == str(seconds)


def test_without_time_to_drain_there_is_no_hook() -> None:
    world = deploy_with("{envoy: {drainSeconds: 0}}")
    assert "lifecycle" not in world.container()
    assert world.arguments()["--drain-time-s"] == "1"


def test_probes_ask_the_status_listener_and_only_readiness_asks_for_configuration() -> None:
    container = deploy(gateway()).container()
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/healthz/ready", "readiness": "/healthz/ready", "liveness": "/healthz/live"}


@pytest.mark.parametrize(
    ("spec", "workers"),
    [
        ("{}", "2"),
        ("{resources: {limits: {cpu: 1}}}", "1"),
        ("{resources: {limits: {cpu: 2500m}}}", "3"),
        ("{resources: {limits: {cpu: '0.5'}}}", "1"),
        ("{resources: {limits: {cpu: 1k}}}", "2"),
        ("{resources: {limits: {cpu: 8}}, envoy: {concurrency: 3}}", "3"),
    ],
)
def test_there_are_as_many_workers_as_cpus(spec: str, workers: str) -> None:
    assert deploy_with(spec).arguments()["--concurrency"] == workers


@pytest.mark.parametrize(
    ("spec", "requests", "limits"),
    [
        ("{}", {"cpu": "100m", "memory": "128Mi"}, {"memory": "1Gi"}),
        ("{limits: {cpu: 50m}}", {"memory": "128Mi"}, {"cpu": "50m", "memory": "1Gi"}),
        ("{requests: {memory: 4Gi}}", {"cpu": "100m", "memory": "4Gi"}, {}),
    ],
)
def test_usual_resources_never_contradict_those_asked_for(
    spec: str, requests: dict[str, str], limits: dict[str, str]
) -> None:
    assert deploy_with(f"{{resources: {spec}}}").container()["resources"] == {"requests": requests, "limits": limits}


def test_the_ports_of_a_container_do_not_depend_on_listeners() -> None:
    assert [port["name"] for port in deploy(gateway()).container()["ports"]] == ["status", "metrics"]
    assert [port["name"] for port in deploy(waypoint()).container()["ports"]] == ["status", "metrics", "mesh"]


def test_the_image_is_the_operators_unless_parameters_name_one() -> None:
    assert deploy_with("{}", proxy_image="a:1").container()["image"] == "a:1"
    container = deploy_with("{image: 'b@sha256:0', imagePullPolicy: Never}", proxy_image="a:1").container()
    assert (container["image"], container["imagePullPolicy"]) == ("b@sha256:0", "Never")


def test_what_is_added_to_a_pod_stands_beside_what_it_needs() -> None:
    world = deploy_with(
        "{podTemplate: {env: [{name: A, value: b}], volumes: [{name: v, emptyDir: {}}],"
        " volumeMounts: [{name: v, mountPath: /v}]}, envoy: {extraArgs: [--cpuset-threads]}}"
    )
    container = world.container()
    assert [entry["name"] for entry in container["env"]] == ["POD_NAME", "POD_NAMESPACE", "A"]
    assert [mount["name"] for mount in container["volumeMounts"]] == ["config", "token", "tmp", "v"]
    assert [volume["name"] for volume in world.pod()["spec"]["volumes"]] == ["config", "token", "tmp", "v"]
    assert container["args"][-1] == "--cpuset-threads"


def test_pods_spread_unless_they_are_on_every_node_or_told_otherwise() -> None:
    keys = [entry["topologyKey"] for entry in deploy(gateway()).pod()["spec"]["topologySpreadConstraints"]]
    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert "topologySpreadConstraints" not in deploy_with("{daemonSet: true}").pod()["spec"]
    assert (
        "topologySpreadConstraints" not in deploy_with("{podTemplate: {topologySpreadConstraints: []}}").pod()["spec"]
    )


def test_prometheus_is_told_where_to_look_unless_somebody_objects() -> None:
    annotations = deploy_with("{podTemplate: {annotations: {prometheus.io/scrape: 'false'}}}").pod()["metadata"]
    assert annotations["annotations"]["prometheus.io/scrape"] == "false"
    assert annotations["annotations"]["prometheus.io/port"] == "15020"
