"""How many pods a Gateway has: its Deployment or DaemonSet, disruption budget and autoscaler."""

from __future__ import annotations

from typing import Any, Final

from meshgw.api.meshgw import Autoscaling
from meshgw.emit.proxy_metadata import selector
from meshgw.ir.proxy import ProxyPlan

REPLICAS: Final = 1
CPU_UTILIZATION: Final = 80

# A pod is taken away when the one that replaces it is ready, never before.
_ROLLING: Final = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def build_workload(plan: ProxyPlan, template: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return kind and body of what runs the pods of a template; an autoscaler decides their number if there is one."""
    parameters = plan.parameters
    spec: dict[str, Any] = {"selector": {"matchLabels": selector(plan)}, "template": template}
    if parameters.daemon_set:
        return "DaemonSet", {"spec": {**spec, "updateStrategy": _ROLLING}}
    if parameters.autoscaling is None:
        spec["replicas"] = _replicas(plan)
    return "Deployment", {"spec": {**spec, "strategy": _ROLLING}}


def build_budget(plan: ProxyPlan) -> dict[str, Any] | None:
    """Return the PodDisruptionBudget without its metadata; of its own accord a Gateway of several pods has one."""
    parameters = plan.parameters
    budget = parameters.pod_disruption_budget
    if parameters.daemon_set:
        return None  # drains of a node leave them alone
    if budget is None:
        several = _replicas(plan) > 1 if parameters.autoscaling is None else _least(parameters.autoscaling) > 1
        limits: dict[str, Any] = {"maxUnavailable": 1} if several else {}
    elif budget.min_available is not None:
        limits = {"minAvailable": budget.min_available}
    else:
        limits = {"maxUnavailable": budget.max_unavailable}
    return {"spec": {"selector": {"matchLabels": selector(plan)}, **limits}} if limits else None


def build_autoscaler(plan: ProxyPlan) -> dict[str, Any] | None:
    """Return the HorizontalPodAutoscaler without its metadata, if one is asked for."""
    scaling = plan.parameters.autoscaling
    if scaling is None or plan.parameters.daemon_set:
        return None
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name},
        "minReplicas": _least(scaling),
        "maxReplicas": scaling.max_replicas,
        "metrics": _metrics(scaling),
        **({} if scaling.behavior is None else {"behavior": scaling.behavior}),
    }
    return {"spec": spec}


def _replicas(plan: ProxyPlan) -> int:
    replicas = plan.parameters.replicas
    return REPLICAS if replicas is None else replicas


def _least(scaling: Autoscaling) -> int:
    return scaling.min_replicas or 1


def _metrics(scaling: Autoscaling) -> list[Any]:
    if scaling.metrics is not None:
        return list(scaling.metrics)
    wanted = {"cpu": scaling.cpu_utilization, "memory": scaling.memory_utilization}
    chosen = {name: value for name, value in wanted.items() if value} or {"cpu": CPU_UTILIZATION}
    return [
        {"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": value}}}
        for name, value in chosen.items()
    ]
