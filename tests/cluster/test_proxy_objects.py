"""A real API server takes the objects of proxies, their pods are restricted, and it knows the rules for parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshgw.api.decode import decode
from tests.cluster.apiserver import ApiServer
from tests.cluster.processes import wait_until
from tests.golden.case import ROOT
from tests.unit.api.parameter_specs import BROKEN, GOOD, REFUSED

DEFINITION = Path("manifests/crds/meshgw.dev_gatewayparameters.yaml")
CASES = sorted(path.parent for path in (ROOT / "proxies").glob("*/proxies.yaml"))
ONE_FAMILY = {"dual-stack"}
"""Cases that a cluster of one IP family refuses."""
PATHS = {
    "ServiceAccount": "api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "api/v1/namespaces/{}/configmaps",
    "Service": "api/v1/namespaces/{}/services",
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "DaemonSet": "apis/apps/v1/namespaces/{}/daemonsets",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
}


@pytest.fixture(scope="module")
def parameters(apiserver: ApiServer) -> str:
    """The path of GatewayParameters in a namespace, once they are served."""
    apiserver.apply(DEFINITION)
    space = apiserver.create_namespace("parameters")
    path = f"/apis/meshgw.dev/v1alpha1/namespaces/{space}/gatewayparameters"
    wait_until(lambda: apiserver.request("GET", path)[0] == 200, what="parameters are served", within=30)
    return path


def document(spec: str) -> dict[str, Any]:
    return {
        "apiVersion": "meshgw.dev/v1alpha1",
        "kind": "GatewayParameters",
        "metadata": {"name": "own", "namespace": "parameters"},
        "spec": yaml.safe_load(spec),
    }


def post(server: ApiServer, path: str, body: Any) -> tuple[int, str]:
    status, answer = server.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", body)
    return status, json.loads(answer).get("message", "")


@pytest.mark.parametrize("spec", GOOD)
def test_server_and_controller_accept_good_parameters(apiserver: ApiServer, parameters: str, spec: str) -> None:
    assert post(apiserver, parameters, document(spec)) == (201, "")
    assert decode(document(spec)).problems == ()


@pytest.mark.parametrize("spec", [*REFUSED, *(spec for spec, _field, _message in BROKEN)])
def test_server_and_controller_refuse_bad_parameters(apiserver: ApiServer, parameters: str, spec: str) -> None:
    status, message = post(apiserver, parameters, document(spec))
    assert status == 422, message
    assert decode(document(spec)).problems


def test_parameters_of_the_golden_cases_are_accepted(apiserver: ApiServer, parameters: str) -> None:
    found = 0
    for path in CASES:
        for body in yaml.safe_load_all((path / "in.yaml").read_text()):
            if body["kind"] == "GatewayParameters" and path.name != "overlay-refused":
                body["metadata"]["namespace"] = "parameters"
                assert post(apiserver, parameters, body) == (201, ""), path.name
                found += 1
    assert found >= 20


def test_what_people_see_of_parameters(apiserver: ApiServer, parameters: str) -> None:
    apiserver.apply(document("{replicas: 3, service: {type: NodePort}, image: 'envoy:1'}"))
    head, row = apiserver.kubectl("-n", "parameters", "get", "gwparams", "-o", "wide").splitlines()
    assert head.split() == ["NAME", "REPLICAS", "MAX", "DAEMONSET", "SERVICE", "IMAGE", "AGE"]
    assert row.split()[:4] == ["own", "3", "NodePort", "envoy:1"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_objects_are_accepted(apiserver: ApiServer, path: Path) -> None:
    refused = {}
    for item in yaml.safe_load((path / "proxies.yaml").read_text()):
        kind, name = item["kind"], item["metadata"]["name"]
        where = f"/{PATHS[kind].format('default')}/{name}?fieldManager=meshgw&dryRun=All&fieldValidation=Strict"
        status, answer = apiserver.request("PATCH", where, item, content_type="application/apply-patch+yaml")
        if status not in (200, 201):
            refused[kind] = json.loads(answer)["message"]
    assert set(refused) == ({"Service"} if path.name in ONE_FAMILY else set()), refused


def test_every_kind_of_object_is_among_them() -> None:
    assert {item["kind"] for path in CASES for item in yaml.safe_load((path / "proxies.yaml").read_text())} == set(
        PATHS
    )


@pytest.fixture(scope="module")
def restricted(apiserver: ApiServer) -> str:
    """The path of pods in a namespace that forbids all that the restricted standard does."""
    space = apiserver.create_namespace("restricted", **{"pod-security.kubernetes.io__enforce": "restricted"})
    return f"/api/v1/namespaces/{space}/pods"


@pytest.mark.parametrize(
    "path", [path for path in CASES if not path.name.startswith("overlay")], ids=lambda path: path.name
)
def test_pods_keep_to_the_restricted_standard(apiserver: ApiServer, restricted: str, path: Path) -> None:
    for template in _templates(path):
        account = template["spec"]["serviceAccountName"]
        accounts = restricted.replace("/pods", "/serviceaccounts")
        apiserver.request(
            "POST", accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
        )
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {**template["metadata"], "name": "pod"}
        assert post(apiserver, restricted, pod) == (201, "")
        pod["spec"]["containers"][0].pop("securityContext")
        status, message = post(apiserver, restricted, pod)
        assert (status, "violates PodSecurity" in message) == (403, True)


def _templates(path: Path) -> list[Any]:
    items = yaml.safe_load((path / "proxies.yaml").read_text())
    return [item["spec"]["template"] for item in items if "template" in item.get("spec", {})]
