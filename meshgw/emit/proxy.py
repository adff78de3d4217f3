"""The Kubernetes objects that run a Gateway's proxies, from the decision about it to bytes for server-side apply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from meshgw.api.meshgw import Overlays
from meshgw.api.meta import Key, ObjectRef
from meshgw.api.overlay import lay_over
from meshgw.emit.proxy_config import build_config_map, digest_of
from meshgw.emit.proxy_metadata import build_metadata
from meshgw.emit.proxy_pod import build_pod_template
from meshgw.emit.proxy_scale import build_autoscaler, build_budget, build_workload
from meshgw.emit.proxy_service import build_service
from meshgw.emit.tables import ProxyObject
from meshgw.engine import View
from meshgw.ir.gateway import Settings
from meshgw.ir.proxy import Deploying, ProxyPlan
from meshgw.resolve.settings import read_settings

API_VERSIONS: Final = {
    "ServiceAccount": "v1",
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "DaemonSet": "apps/v1",
    "Service": "v1",
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
}
"""Kinds in the order in which they are best made."""

_OVERLAYS: Final = {
    "ServiceAccount": "service_account",
    "ConfigMap": "config_map",
    "Deployment": "deployment",
    "DaemonSet": "daemon_set",
    "Service": "service",
    "PodDisruptionBudget": "pod_disruption_budget",
    "HorizontalPodAutoscaler": "horizontal_pod_autoscaler",
}


def emit_proxy(view: View, key: Key, plan: ProxyPlan) -> Iterable[tuple[ObjectRef, ProxyObject]]:
    """Return the objects of a Gateway that is MANAGED; others have none here."""
    if plan.deploying is not Deploying.MANAGED:
        return
    encode = msgspec.json.Encoder(order="deterministic").encode
    for kind, document in _documents(plan, read_settings(view)):
        row = ProxyObject(gateway=key, api_version=API_VERSIONS[kind], body=encode(document))
        yield ObjectRef(kind, key.namespace, plan.name), row


def _documents(plan: ProxyPlan, settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    config = _finish("ConfigMap", build_config_map(plan, settings), plan)
    workload, spec = build_workload(plan, build_pod_template(plan, settings, digest_of(config)))
    built = (
        ("ServiceAccount", {"automountServiceAccountToken": False}),
        (workload, spec),
        ("Service", build_service(plan)),
        ("PodDisruptionBudget", build_budget(plan)),
        ("HorizontalPodAutoscaler", build_autoscaler(plan)),
    )
    yield "ConfigMap", config
    for kind, body in built:
        document = {} if body is None else _finish(kind, body, plan)
        if document:
            yield kind, document


def _finish(kind: str, body: dict[str, Any], plan: ProxyPlan) -> dict[str, Any]:
    """Add what every object has, and the overlays; empty if one of them leaves the object out."""
    document = {"apiVersion": API_VERSIONS[kind], "kind": kind, "metadata": build_metadata(kind, plan), **body}
    for overlays in plan.overlays:
        patch = _patch(overlays, kind)
        laid = document if patch is None else lay_over(kind, document, patch)
        if laid is None:
            return {}
        document = laid
    return document


def _patch(overlays: Overlays, kind: str) -> Any:
    return getattr(overlays, _OVERLAYS[kind])
