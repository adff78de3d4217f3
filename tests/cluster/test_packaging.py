"""Charts and kustomizations, rendered by the real programs: both say the same, and what the code says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshgw.cli.controller import command
from meshgw.cluster.serving import GIVEN_SECRET
from meshgw.install.documents import class_documents, role_documents
from meshgw.install.generate import CHARTS, list_values
from meshgw.install.rules import Scope
from meshgw.pipeline import list_kinds
from tests.cluster.apiserver import ApiServer
from tests.cluster.programs import executable

Document = dict[str, Any]
Identity = tuple[str, str, str]

MANIFESTS = Path(__file__).parents[2] / "manifests"
CERTS = MANIFESTS.parent / "certs"
PROGRAMS = ("helm",)
"""What is built before any test here runs."""

OF_HELM = ("app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "app.kubernetes.io/version", "helm.sh/chart")


def kustomize(folder: str) -> dict[Identity, Document]:
    finished = subprocess.run(
        [executable("kubectl"), "kustomize", MANIFESTS / folder], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return by_identity(finished.stdout)


def helm(
    chart: str, values: Mapping[str, Any] | None = None, *, namespace: str = "meshgw-system"
) -> dict[Identity, Document]:
    return by_identity(_helm(chart, values, namespace=namespace).stdout)


def _helm(chart: str, values: Mapping[str, Any] | None, *, namespace: str, fails: bool = False) -> Any:
    command = [executable("helm"), "template", chart, MANIFESTS / "charts" / chart, "--namespace", namespace, "-f", "-"]
    finished = subprocess.run(
        command,
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": "/nonexistent"},
    )
    assert (finished.returncode != 0) is fails, finished.stderr
    return finished


def by_identity(text: str) -> dict[Identity, Document]:
    """Objects by kind, namespace and name; labels and annotations that only Helm sets are left out."""
    found: dict[Identity, Document] = {}
    for document in yaml.safe_load_all(text):
        if not document:
            continue
        _drop_labels(document)
        document["metadata"].get("annotations", {}).pop("helm.sh/resource-policy", None)
        if document["metadata"].get("annotations") == {}:
            del document["metadata"]["annotations"]
        identity = (document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"])
        assert identity not in found
        found[identity] = document
    return found


def _drop_labels(value: Any) -> None:
    if isinstance(value, dict):
        for name in OF_HELM:
            value.pop(name, None)
        for inner in value.values():
            _drop_labels(inner)
    elif isinstance(value, list):
        for inner in value:
            _drop_labels(inner)


def roles(objects: dict[Identity, Document]) -> dict[Identity, Document]:
    return {identity: found for identity, found in objects.items() if identity[0].startswith(("Role", "ClusterRole"))}


def expected(scope: Scope) -> dict[Identity, Document]:
    return by_identity(yaml.safe_dump_all(role_documents(scope, list_kinds().kinds)))


def test_charts_and_base_are_the_same_objects() -> None:
    base = kustomize("base")
    # Helm makes the namespace itself, as `--create-namespace` asks.
    del base["Namespace", "", "meshgw-system"]
    assert helm("meshgw") | helm("meshgw-crds") == base


@pytest.mark.parametrize(
    ("values", "scope"),
    [
        ({}, Scope()),
        ({"clusterWideSecrets": True}, Scope(cluster_wide_secrets=True)),
        ({"secretNamespaces": ["a", "b"]}, Scope(secret_namespaces=("a", "b"))),
        ({"namespaces": ["a", "b"]}, Scope(namespaces=("a", "b"))),
        (
            {"namespaces": ["a", "istio-system"], "secretNamespaces": ["a", "c"]},
            Scope(namespaces=("a", "istio-system"), secret_namespaces=("a", "c")),
        ),
        (
            {"namespaces": ["a"], "istio": {"namespace": "mesh"}, "clusterWideSecrets": True},
            Scope(namespaces=("a",), mesh="mesh", cluster_wide_secrets=True),
        ),
    ],
    ids=["default", "all-secrets", "some-secrets", "namespaces", "istios-own", "another-mesh"],
)
def test_permissions_of_the_chart_are_those_of_the_code(values: dict[str, Any], scope: Scope) -> None:
    assert roles(helm("meshgw", values)) == expected(scope)


def test_the_chart_goes_to_any_namespace() -> None:
    objects = helm("meshgw", namespace="gateways")
    assert roles(objects) == expected(Scope(home="gateways"))
    assert {namespace for _kind, namespace, _name in objects} == {"", "gateways"}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"namespace": ["a"]}, "'namespace' not allowed"),
        ({"replicas": 0}, "at '/replicas': minimum"),
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"image": {"digest": "latest"}}, "at '/image/digest'"),
        ({"image": {"pullPolicy": "Sometimes"}}, "'Always', 'IfNotPresent', 'Never'"),
        ({"namespaces": ["A"]}, "at '/namespaces/0'"),
        ({"namespaces": "a,b"}, "at '/namespaces': got string, want array"),
        ({"secretNamespaces": ["a", "a"]}, "at '/secretNamespaces'"),
        ({"namespaces": ["a"], "namespaceSelector": "a=b"}, "namespaces and namespaceSelector exclude each other"),
        ({"istio": {"caAddress": "istiod"}}, "at '/istio/caAddress'"),
        ({"istio": {"namespace": ""}}, "at '/istio/namespace'"),
        ({"xdsCertificate": "mine"}, "'own', 'given'"),
        ({"gatewayClasses": {"parameters": {"other": {"name": "p"}}}}, "'other' not allowed"),
        ({"gatewayClasses": {"parameters": {"meshgw": {"namespace": "n"}}}}, "missing property 'name'"),
        ({"extraEnv": [{"value": "b"}]}, "missing property 'name'"),
        ({"podLabels": {"app.kubernetes.io/name": "x"}}, "podLabels: the chart sets app.kubernetes.io/name itself"),
        ({"podDisruptionBudget": {"maxUnavailable": "one"}}, "at '/podDisruptionBudget/maxUnavailable'"),
        ({"topologySpread": "Never"}, "'ScheduleAnyway', 'DoNotSchedule'"),
        ({"metrics": {"serviceMonitor": {"interval": "soon"}}}, "at '/metrics/serviceMonitor/interval'"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_values_that_are_mistakes_are_refused(values: dict[str, Any], complaint: str) -> None:
    assert complaint in _helm("meshgw", values, namespace="x", fails=True).stderr


OTHERS: dict[str, Any] = {
    "namespaces": ["a"],
    "namespaceSelector": "a=b",
    "clusterWideSecrets": True,
    "secretNamespaces": ["a"],
    "replicas": 1,
    "image.repository": "x/y",
    "image.tag": "t",
    "image.digest": f"sha256:{'0' * 64}",
    "image.pullPolicy": "Always",
    "imagePullSecrets": ["a"],
    "istio.namespace": "mesh",
    "istio.caAddress": "a:1",
    "istio.revision": "r",
    "istio.clusterId": "c",
    "istio.network": "n",
    "istio.trustDomain": "td",
    "proxyImage": "e",
    "gatewayParameters": "none",
    "ipFamilies": "dual",
    "xdsCertificate": "given",
    "gatewayClasses.create": False,
    "gatewayClasses.parameters": {"meshgw-egress": {"name": "p"}},
    "extraArgs": ["--no-mesh"],
    "extraEnv": [{"name": "A"}],
    "extraVolumes": [{"name": "a"}],
    "extraVolumeMounts": [{"name": "a", "mountPath": "/a"}],
    "resources": {"limits": {"cpu": 1}},
    "podSecurityContext": {"runAsNonRoot": False},
    "podLabels": {"a": "b"},
    "podAnnotations": {"prometheus.io/scrape": "false"},
    "priorityClassName": "p",
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a"}],
    "affinity": {"podAffinity": {}},
    "topologySpread": "DoNotSchedule",
    "serviceAccount.annotations": {"a": "b"},
    "service.annotations": {"a": "b"},
    "podDisruptionBudget.create": False,
    "podDisruptionBudget.maxUnavailable": "50%",
    "networkPolicy.create": True,
    "metrics.serviceMonitor.create": True,
    "metrics.serviceMonitor.labels": {"a": "b"},
    "metrics.serviceMonitor.interval": "1m",
}
"""For every value another than its default."""
MONITORED = {"metrics": {"serviceMonitor": {"create": True}}}


def nested(key: str, value: Any) -> dict[str, Any]:
    head, separator, rest = key.partition(".")
    return {head: nested(rest, value) if separator else value}


def test_every_value_is_documented_checked_and_has_an_effect() -> None:
    chart = MANIFESTS / "charts" / "meshgw"
    text = (chart / "values.yaml").read_text()
    documented = {key: json.loads(default) for key, default, _meaning in list_values(text)}
    assert set(documented) == set(OTHERS)
    checked = set(leaves(json.loads((chart / "values.schema.json").read_text()), documented))
    assert checked == {*documented, "global"}
    plain, monitored = helm("meshgw"), helm("meshgw", MONITORED)
    for key, value in OTHERS.items():
        assert documented[key] != value
        values = nested(key, value)
        if key.startswith("metrics.serviceMonitor.") and not key.endswith("create"):
            values["metrics"]["serviceMonitor"]["create"] = True
            assert helm("meshgw", values) != monitored, key
        else:
            assert helm("meshgw", values) != plain, key


def leaves(schema: dict[str, Any], whole: Collection[str], path: str = "") -> Iterator[str]:
    """The dotted keys of a schema, down to those that are one value as a whole."""
    for key, inner in schema["properties"].items():
        if inner.get("properties") and f"{path}{key}" not in whole:
            yield from leaves(inner, whole, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def test_an_annotation_of_the_user_goes_before_ours() -> None:
    objects = helm("meshgw", {"podAnnotations": {"prometheus.io/scrape": "false"}})
    metadata = objects["Deployment", "meshgw-system", "meshgw"]["spec"]["template"]["metadata"]
    assert metadata["annotations"] == {"prometheus.io/scrape": "false", "prometheus.io/port": "9090"}


@pytest.mark.parametrize("chart", CHARTS)
def test_helm_finds_nothing_to_say_of_a_chart(chart: str) -> None:
    command = [executable("helm"), "lint", "--strict", "--quiet", MANIFESTS / "charts" / chart]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": "/nonexistent"})
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_values_reach_the_deployment() -> None:
    digest = f"sha256:{'0' * 64}"
    values = {
        "replicas": 3,
        "image": {"digest": digest},
        "namespaces": ["a", "b"],
        "extraArgs": ["--log-level=debug"],
        "extraEnv": [{"name": "A", "value": "b"}],
        "extraVolumes": [{"name": "v", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
        "podLabels": {"team": "x"},
        "podAnnotations": {"note": "y"},
        "priorityClassName": "high",
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "imagePullSecrets": ["pull"],
        "topologySpread": "DoNotSchedule",
        "gatewayClasses": {"parameters": {"meshgw": {"name": "p", "namespace": "n"}}},
        "networkPolicy": {"create": True},
        "podDisruptionBudget": {"create": False},
        "metrics": {"serviceMonitor": {"create": True, "labels": {"release": "prometheus"}}},
        "service": {"annotations": {"s": "t"}},
        "serviceAccount": {"annotations": {"u": "v"}},
    }
    objects = helm("meshgw", values)
    deployment = objects["Deployment", "meshgw-system", "meshgw"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert deployment["spec"]["replicas"] == 3
    assert container["image"] == f"ghcr.io/meshgw/meshgw@{digest}"
    assert {"--log-level=debug", "--namespaces=a,b"} <= set(container["args"])
    assert {"name": "A", "value": "b"} in container["env"]
    assert (container["volumeMounts"], pod["volumes"]) == (values["extraVolumeMounts"], values["extraVolumes"])
    assert deployment["spec"]["template"]["metadata"]["labels"]["team"] == "x"
    assert deployment["spec"]["template"]["metadata"]["annotations"]["note"] == "y"
    assert [pod[name] for name in ("priorityClassName", "nodeSelector", "tolerations", "affinity")] == [
        "high", {"disk": "ssd"}, [{"operator": "Exists"}], {"nodeAffinity": {}}
    ]  # fmt: skip
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"
    assert objects["GatewayClass", "", "meshgw"]["spec"]["parametersRef"] == {
        "group": "meshgw.dev", "kind": "GatewayParameters", "name": "p", "namespace": "n"
    }  # fmt: skip
    assert "parametersRef" not in objects["GatewayClass", "", "meshgw-waypoint"]["spec"]
    assert ("NetworkPolicy", "meshgw-system", "meshgw") in objects
    assert ("PodDisruptionBudget", "meshgw-system", "meshgw") not in objects
    monitor = objects["ServiceMonitor", "meshgw-system", "meshgw"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert objects["Service", "meshgw-system", "meshgw"]["metadata"]["annotations"] == {"s": "t"}
    assert objects["ServiceAccount", "meshgw-system", "meshgw"]["metadata"]["annotations"] == {"u": "v"}


def test_arguments_of_the_chart_are_those_of_the_command() -> None:
    values = {
        "proxyImage": "envoy:x",
        "gatewayParameters": "safe",
        "ipFamilies": "ipv4",
        "xdsCertificate": "given",
        "namespaceSelector": "team=a,env!=test",
        "istio": {
            "namespace": "mesh",
            "caAddress": "istiod.mesh.svc:15012",
            "revision": "canary",
            "clusterId": "east",
            "network": "east-1",
            "trustDomain": "td.test",
        },
        "extraArgs": ["--log-level=debug"],
    }
    (container,) = helm("meshgw", values)["Deployment", "meshgw-system", "meshgw"]["spec"]["template"]["spec"][
        "containers"
    ]
    verb, *arguments = container["args"]
    context = command.make_context(verb, arguments)
    found = {name: context.params[name] for name in ("proxy_image", "xds_secret", "namespace_selector", "revision")}
    assert found == {
        "proxy_image": "envoy:x",
        "xds_secret": GIVEN_SECRET,
        "namespace_selector": "team=a,env!=test",
        "revision": "canary",
    }
    assert context.params["istiod_address"] == "istiod.mesh.svc:15012"
    assert [context.params[name] for name in ("root_namespace", "cluster_id", "network", "trust_domain")] == [
        "mesh",
        "east",
        "east-1",
        "td.test",
    ]
    assert [context.params[name] for name in ("gateway_parameters", "ip_families")] == ["safe", "ipv4"]
    (plain,) = helm("meshgw", {"namespaces": ["a", "b"]})["Deployment", "meshgw-system", "meshgw"]["spec"]["template"][
        "spec"
    ]["containers"]
    assert command.make_context("controller", plain["args"][1:]).params["namespaces"] == ("a", "b")


def test_the_charts_network_policy_is_the_components() -> None:
    component = yaml.safe_load((MANIFESTS / "components/network-policy/policy.yaml").read_text())
    objects = helm("meshgw", {"networkPolicy": {"create": True}})
    assert objects["NetworkPolicy", "meshgw-system", "meshgw"] == component


def test_classes_can_be_left_out() -> None:
    assert {found["metadata"]["name"] for found in class_documents()} == {
        name for kind, _namespace, name in helm("meshgw") if kind == "GatewayClass"
    }
    objects = helm("meshgw", {"gatewayClasses": {"create": False}})
    assert [identity for identity in objects if identity[0] == "GatewayClass"] == []


def test_definitions_outlive_their_release() -> None:
    for document in yaml.safe_load_all(_helm("meshgw-crds", None, namespace="x").stdout):
        assert document["kind"] == "CustomResourceDefinition"
        assert document["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("overlay", ["kind", "production", "openshift"])
def test_an_overlay_changes_what_it_says(overlay: str) -> None:
    base, objects = kustomize("base"), kustomize(f"overlays/{overlay}")
    assert set(base) <= set(objects)
    deployment = objects["Deployment", "meshgw-system", "meshgw"]["spec"]
    added = {identity for identity in objects if identity not in base}
    match overlay:
        case "kind":
            assert deployment["replicas"] == 1
            assert added == {("ClusterRoleBinding", "", "meshgw-secrets")}
            assert roles(objects) == expected(Scope(cluster_wide_secrets=True))
        case "production":
            assert deployment["replicas"] == 3
            assert added == {("NetworkPolicy", "meshgw-system", "meshgw")}
        case _:
            assert "runAsUser" not in deployment["template"]["spec"]["securityContext"]
            assert added == set()


def test_an_api_server_takes_base_and_overlays(apiserver: ApiServer) -> None:
    """Strictly: a field that does not exist is an error. In a namespace that enforces restricted pod security."""
    for overlay in ("production", "kind", "openshift"):
        text = apiserver.kubectl("kustomize", str(MANIFESTS / "overlays" / overlay))
        namespace = next(text_ for text_ in text.split("---\n") if "kind: Namespace\n" in text_)
        apiserver.apply(namespace)
        said = apiserver.kubectl(
            "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
        )
        assert "deployment.apps/meshgw serverside-applied" in said


def test_an_api_server_takes_the_files_of_the_walk(apiserver: ApiServer) -> None:
    apiserver.create_namespace("shop")
    said = apiserver.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", MANIFESTS / "examples" / "walk"
    )
    assert {"gateway.gateway.networking.k8s.io/waypoint", "authorizationpolicy.security.istio.io/shop"} <= {
        line.split()[0] for line in said.splitlines()
    }


def test_an_api_server_takes_the_samples_for_cert_manager(apiserver: ApiServer) -> None:
    """By cert-manager's own definitions, strictly."""
    apiserver.install_cert_manager()
    for namespace in ("meshgw-system", "shop"):
        apiserver.create_namespace(namespace)
    said = apiserver.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", CERTS / "cert-manager"
    )
    taken = [line.split()[0] for line in said.splitlines()]
    assert sorted(taken) == [
        "certificate.cert-manager.io/meshgw-xds-root",
        "certificate.cert-manager.io/meshgw-xds-tls",
        "certificate.cert-manager.io/shop-example-com",
        "issuer.cert-manager.io/meshgw-xds",
        "issuer.cert-manager.io/meshgw-xds-root",
    ]
