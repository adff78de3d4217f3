"""What the infrastructure of a Gateway adds to its objects, and what it may not."""

from __future__ import annotations

import pytest

from meshgw.resolve.infrastructure import reserved_because
from tests.unit.emit.deployed import deploy, gateway


def test_what_is_not_for_a_gateway_to_decide_is_left_out_and_named() -> None:
    given = "{team: edge, istio.io/dataplane-mode: ambient, gateway.istio.io/managed: x}"
    plan = deploy(gateway(extra=f"  infrastructure: {{labels: {given}, annotations: {given}}}")).plan()
    assert plan.labels == plan.annotations == {"team": "edge"}
    assert [(finding.code, finding.field) for finding in plan.findings] == [
        ("MG7004", f"spec.infrastructure.{part}[{name}]")
        for part in ("labels", "annotations")
        for name in ("gateway.istio.io/managed", "istio.io/dataplane-mode")
    ]


@pytest.mark.parametrize(
    "name",
    [
        "gateway.networking.k8s.io/gateway-name",
        "gateway.istio.io/managed",
        "istio.io/use-waypoint",
        "istio.io/rev",
        "ambient.istio.io/redirection",
        "networking.istio.io/tunnel",
        "topology.istio.io/network",
        "sidecar.istio.io/inject",
        "config.linkerd.io/inject",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/name",
        "meshgw.dev/service-account",
        "eks.amazonaws.com/role-arn",
        "iam.amazonaws.com/role",
        "iam.gke.io/gcp-service-account",
        "azure.workload.identity/client-id",
        "aadpodidbinding",
        "container.apparmor.security.beta.kubernetes.io/envoy",
        "k8s.v1.cni.cncf.io/networks",
        "v1.multus-cni.io/default-network",
        "sidecar.opentelemetry.io/inject",
        "io.kubernetes.cri-o.userns-mode",
        "pod-template-hash",
    ],
)
def test_identity_selection_capture_and_confinement_are_left_out(name: str) -> None:
    assert reserved_because(name)


@pytest.mark.parametrize(
    "name",
    [
        "team",
        "example.com/cost",
        "notistio.io/mode",
        "istio.io.example.com/a",
        "istio.io",
        "service.beta.kubernetes.io/aws-load-balancer-scheme",
        "service.beta.kubernetes.io/azure-load-balancer-internal",
        "networking.gke.io/load-balancer-type",
        "external-dns.alpha.kubernetes.io/hostname",
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "prometheus.io/scrape",
        "kubectl.kubernetes.io/restartedAt",
    ],
)
def test_all_else_is_for_the_gateway_to_say(name: str) -> None:
    assert not reserved_because(name)
