"""What the `spec.infrastructure` of a Gateway adds to its objects (GEP-1867): all labels and annotations but some.

Whoever may write a Gateway need not be allowed to write pods, Services and ServiceAccounts. So what selects them, what
says whose they are, how a mesh or a network takes them, as whom they act and how they are confined is not taken from
there. GatewayParameters, whose writers may run pods, can say what of that is not fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from meshgw import names
from meshgw.api import gateway as api
from meshgw.api.meta import ObjectRef
from meshgw.ir.finding import Finding

RESERVED_DOMAINS: Final[Mapping[str, str]] = {
    names.GATEWAY_GROUP: "says whose it is",
    "meshgw.dev": "says whose it is",
    "app.kubernetes.io": "says what it is, and selects it",
    "istio.io": "says how the mesh takes it",
    "linkerd.io": "says how a mesh takes it",
    "kuma.io": "says how a mesh takes it",
    "consul.hashicorp.com": "says how a mesh takes it",
    "dapr.io": "adds a container",
    "opentelemetry.io": "adds a container",
    "vault.hashicorp.com": "adds a container with secrets",
    "eks.amazonaws.com": "says as whom it acts in a cloud",
    "iam.amazonaws.com": "says as whom it acts in a cloud",
    "iam.gke.io": "says as whom it acts in a cloud",
    "azure.workload.identity": "says as whom it acts in a cloud",
    "pod-identity.alibabacloud.com": "says as whom it acts in a cloud",
    "apparmor.security.beta.kubernetes.io": "says how it is confined",
    "seccomp.security.alpha.kubernetes.io": "says how it is confined",
    "k8s.v1.cni.cncf.io": "says which networks it is in",
    "v1.multus-cni.io": "says which networks it is in",
    "cni.projectcalico.org": "says which networks it is in",
    "k8s.ovn.org": "says which networks it is in",
    "deployment.kubernetes.io": "is kept by a controller of Kubernetes",
}
"""Domains of labels and annotations that are left out, those below them included, and why."""
RESERVED_NAMES: Final[Mapping[str, str]] = {
    "aadpodidbinding": "says as whom it acts in a cloud",
    "pod-template-hash": "selects it",
    "controller-revision-hash": "selects it",
    "pod-template-generation": "is kept by a controller of Kubernetes",
}
"""Those without a domain."""
RESERVED_BEGINNINGS: Final[Mapping[str, str]] = {
    "io.kubernetes.cri-o.": "says how it is confined",
    "io.katacontainers.": "says how it is confined",
}
"""How names begin that container runtimes read."""


class Infrastructure(NamedTuple):
    """Labels and annotations for all objects of a Gateway, and a remark on each that is left out."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    findings: tuple[Finding, ...]


def read_infrastructure(gateway: api.Gateway) -> Infrastructure:
    """Return what a Gateway adds to its objects."""
    infrastructure = gateway.spec.infrastructure
    if infrastructure is None:
        return Infrastructure({}, {}, ())
    parts = {"labels": infrastructure.labels, "annotations": infrastructure.annotations}
    findings = tuple(finding for part, given in parts.items() for finding in _left_out(gateway, part, given))
    labels, annotations = (
        {name: value for name, value in given.items() if not reserved_because(name)} for given in parts.values()
    )
    return Infrastructure(labels, annotations, findings)


def reserved_because(name: str) -> str:
    """Return why a label or annotation is not for the infrastructure to decide, "" if it is."""
    domain, slash, _ = name.rpartition("/")
    if not slash:
        found = (why for beginning, why in RESERVED_BEGINNINGS.items() if name.startswith(beginning))
        return RESERVED_NAMES.get(name) or next(found, "")
    labels = domain.split(".")
    above = (".".join(labels[position:]) for position in range(len(labels)))
    return next((RESERVED_DOMAINS[each] for each in above if each in RESERVED_DOMAINS), "")


def _left_out(gateway: api.Gateway, part: str, given: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(given):
        if why := reserved_because(name):
            yield Finding(
                code="MG7004",
                object=ObjectRef("Gateway", *gateway.key),
                field=f"spec.infrastructure.{part}[{name}]",
                message=f"{name} is left out: it {why}",
            )
