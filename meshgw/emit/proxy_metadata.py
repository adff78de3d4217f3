"""Names, labels, annotations and owner of the objects that are made for a Gateway (GEP-1762)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshgw import names
from meshgw.ir.gateway import Role, Settings
from meshgw.ir.proxy import ProxyPlan, label_value

ANNOTATION_GATEWAY_NAME: Final = "meshgw.dev/gateway-name"
"""The whole name of a Gateway whose name is too long for a label."""

_FIELD_MANAGER: Final = "meshgw"
_WAYPOINT_SERVICE_ANNOTATIONS: Final = {"networking.istio.io/traffic-distribution": "PreferClose"}


def build_metadata(kind: str, plan: ProxyPlan) -> dict[str, Any]:
    """Return the metadata of one object."""
    labels, annotations = _of_kind(kind, plan)
    metadata: dict[str, Any] = {
        "name": plan.name,
        "namespace": plan.gateway.namespace,
        "labels": {**labels, **plan.labels, **_fixed_labels(kind, plan)},
    }
    given = {**annotations, **plan.annotations, **_fixed_annotations(plan)}
    if given:
        metadata["annotations"] = given
    if plan.uid:
        metadata["ownerReferences"] = [_owner(plan)]
    return metadata


def pod_metadata(plan: ProxyPlan, settings: Settings, annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of the pods, with some annotations that are the pods' own."""
    template = plan.parameters.pod_template
    own_labels, own_annotations = (template.labels, template.annotations) if template is not None else ({}, {})
    labels = {
        **own_labels,
        **plan.labels,
        **common_labels(plan),
        **_POD_LABELS,
        **_unbound(plan),
        **_network(settings),
    }
    scraping = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(names.METRICS_PORT),
        "prometheus.io/path": "/stats/prometheus",
    }
    given = {**scraping, **own_annotations, **plan.annotations, **_fixed_annotations(plan), **annotations}
    return {"labels": labels, "annotations": given}


def selector(plan: ProxyPlan) -> dict[str, str]:
    """Return the labels that the pods of a Gateway have and no others; they never change."""
    return {names.LABEL_GATEWAY_NAME: label_value(plan.gateway.name), names.LABEL_INSTANCE: plan.name}


def common_labels(plan: ProxyPlan) -> dict[str, str]:
    """Return the labels of all objects and pods of a Gateway, besides those of its infrastructure."""
    return {
        **selector(plan),
        names.LABEL_GATEWAY_CLASS: label_value(plan.class_name),
        "app.kubernetes.io/name": "meshgw-proxy",
        "app.kubernetes.io/component": str(plan.role or Role.INGRESS),
        "app.kubernetes.io/part-of": "meshgw",
        names.LABEL_MANAGED_BY: _FIELD_MANAGER,
    }


def _network(settings: Settings) -> dict[str, str]:
    """Return what tells Istio the network of pods, if anything is to be told."""
    return {names.LABEL_NETWORK: settings.network} if settings.network else {}


# The proxy speaks HBONE itself: neither a node proxy nor a sidecar may come between.
_POD_LABELS: Final = {names.LABEL_DATAPLANE_MODE: "none", names.LABEL_INJECT: "false"}


def _fixed_labels(kind: str, plan: ProxyPlan) -> dict[str, str]:
    return {**common_labels(plan), **(_unbound(plan) if kind == "Service" else {})}


def _unbound(plan: ProxyPlan) -> dict[str, str]:
    """Return what keeps a waypoint in a namespace behind it from being behind itself."""
    return {names.LABEL_USE_WAYPOINT: "none"} if plan.role is Role.WAYPOINT else {}


def _fixed_annotations(plan: ProxyPlan) -> dict[str, str]:
    cut = label_value(plan.gateway.name) != plan.gateway.name
    return {ANNOTATION_GATEWAY_NAME: plan.gateway.name} if cut else {}


def _of_kind(kind: str, plan: ProxyPlan) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return labels and annotations that parameters give to one kind of object."""
    parameters = plan.parameters
    if kind == "ServiceAccount" and parameters.service_account is not None:
        return parameters.service_account.labels, parameters.service_account.annotations
    if kind != "Service":
        return {}, {}
    usual = _WAYPOINT_SERVICE_ANNOTATIONS if plan.role is Role.WAYPOINT else {}
    if parameters.service is None:
        return {}, usual
    return parameters.service.labels, {**usual, **parameters.service.annotations}


def _owner(plan: ProxyPlan) -> dict[str, Any]:
    return {
        "apiVersion": f"{names.GATEWAY_GROUP}/v1",
        "kind": "Gateway",
        "name": plan.gateway.name,
        "uid": plan.uid,
        "controller": True,
    }
