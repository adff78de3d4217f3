"""The pods of a Gateway: Envoy as the `restricted` pod security standard wants it, probed, and drained at its end."""

from __future__ import annotations

import math
from typing import Any, Final

from meshgw import names
from meshgw.api.meshgw import EnvoyParameters, PodTemplate, Quantity, ResourceRequirements
from meshgw.emit.proxy_config import BOOTSTRAP_FILE, CONFIG_FOLDER, TOKEN_FOLDER, drain_path, drain_seconds
from meshgw.emit.proxy_listeners import LIVE_PATH, READY_PATH
from meshgw.emit.proxy_metadata import pod_metadata, selector
from meshgw.ir.gateway import Role, Settings
from meshgw.ir.proxy import ProxyPlan

CONTAINER: Final = "envoy"
USER: Final = 65532
ANNOTATION_BOOTSTRAP: Final = "meshgw.dev/bootstrap"
"""A digest of the bootstrap: a change of it replaces the pods."""
WORKERS: Final = 2
"""Worker threads of an Envoy without a limit of CPU; its own default is one for each CPU of the node."""

_TOKEN_SECONDS: Final = 3600
_AFTER_DRAIN_SECONDS: Final = 10
_REQUESTS: Final = {"cpu": "100m", "memory": "128Mi"}
_LIMITS: Final = {"memory": "1Gi"}


def build_pod_template(plan: ProxyPlan, settings: Settings, bootstrap: str) -> dict[str, Any]:
    """Return the template of the pods, given a digest of their bootstrap.

    Nothing in it depends on listeners: a change of them must not replace a pod.
    """
    template = plan.parameters.pod_template or PodTemplate()
    spec: dict[str, Any] = {
        "serviceAccountName": plan.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _pod_security(),
        "terminationGracePeriodSeconds": drain_seconds(plan) + _AFTER_DRAIN_SECONDS,
        "containers": [_container(plan, settings, template)],
        "volumes": [*_volumes(plan), *(template.volumes or ())],
        "topologySpreadConstraints": _spread(plan, template),
        "nodeSelector": template.node_selector,
        "tolerations": template.tolerations,
        "affinity": template.affinity,
        "priorityClassName": template.priority_class_name,
        "imagePullSecrets": template.image_pull_secrets,
    }
    return {
        "metadata": pod_metadata(plan, settings, {ANNOTATION_BOOTSTRAP: bootstrap}),
        "spec": {name: value for name, value in spec.items() if value not in (None, {}, (), [], "")},
    }


def _container(plan: ProxyPlan, settings: Settings, template: PodTemplate) -> dict[str, Any]:
    parameters = plan.parameters
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": parameters.image or settings.proxy_image,
        "command": ["envoy"],
        "args": _arguments(plan),
        "env": [
            _field("POD_NAME", "metadata.name"),
            _field("POD_NAMESPACE", "metadata.namespace"),
            *(template.env or ()),
        ],
        "ports": _container_ports(plan),
        "resources": _resources(parameters.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        **_probes(),
        **_lifecycle(plan),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a folder of the pod alone
            *(template.volume_mounts or ()),
        ],
    }
    if parameters.image_pull_policy is not None:
        container["imagePullPolicy"] = parameters.image_pull_policy
    return container


def _arguments(plan: ProxyPlan) -> list[str]:
    envoy = plan.parameters.envoy or EnvoyParameters()
    options = {
        "--config-path": f"{CONFIG_FOLDER}/{BOOTSTRAP_FILE}",
        "--service-node": f"$(POD_NAMESPACE)/{plan.gateway.name}/$(POD_NAME)",
        "--service-cluster": f"{plan.gateway.name}.{plan.gateway.namespace}",
        "--log-level": envoy.log_level or "warning",
        "--component-log-level": envoy.component_log_level,
        "--concurrency": str(envoy.concurrency or _workers(plan.parameters.resources)),
        "--drain-time-s": str(max(drain_seconds(plan), 1)),
        "--drain-strategy": "immediate",
    }
    given = [text for name, value in options.items() if value for text in (name, value)]
    return [*given, "--disable-hot-restart", *(envoy.extra_args or ())]


def _workers(resources: ResourceRequirements | None) -> int:
    """Return as many threads as there are CPUs to use."""
    limit = resources.limits.get("cpu") if resources is not None else None
    cpus = _cpus(limit) if limit is not None else None
    return WORKERS if cpus is None else max(1, math.ceil(cpus))


def _cpus(quantity: Quantity) -> float | None:
    text = str(quantity)
    try:
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        return None  # an unusual notation: the API server knows it


def _resources(wanted: ResourceRequirements | None) -> dict[str, Any]:
    """Return requests and limits; what is usual stands back where it could exceed what is asked for, or fall short."""
    requests, limits = (wanted.requests, wanted.limits) if wanted is not None else ({}, {})
    return {
        "requests": {**{name: value for name, value in _REQUESTS.items() if name not in limits}, **requests},
        "limits": {**{name: value for name, value in _LIMITS.items() if name not in requests}, **limits},
    }


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _container_ports(plan: ProxyPlan) -> list[dict[str, Any]]:
    ports = {"status": names.STATUS_PORT, "metrics": names.METRICS_PORT}
    if plan.role is Role.WAYPOINT:
        ports["mesh"] = names.HBONE_PORT
    return [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()]


def _probes() -> dict[str, Any]:
    ready = {"httpGet": {"path": READY_PATH, "port": names.STATUS_PORT}, "timeoutSeconds": 2}
    alive = {"httpGet": {"path": LIVE_PATH, "port": names.STATUS_PORT}, "timeoutSeconds": 5}
    return {
        # Until the first configuration has come nothing answers; that may take as long as the controller is away.
        "startupProbe": {**ready, "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {**ready, "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**alive, "periodSeconds": 10, "failureThreshold": 6},
    }


def _lifecycle(plan: ProxyPlan) -> dict[str, Any]:
    if not drain_seconds(plan):
        return {}
    return {"lifecycle": {"preStop": {"httpGet": {"path": drain_path(plan), "port": names.STATUS_PORT}}}}


def _volumes(plan: ProxyPlan) -> list[dict[str, Any]]:
    token = {"audience": names.XDS_AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    return [
        {"name": "config", "configMap": {"name": plan.name}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]


def _pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
        # Ports below 1024 without a capability; one of the sysctls that the restricted standard allows.
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
    }


def _spread(plan: ProxyPlan, template: PodTemplate) -> list[Any]:
    if template.topology_spread_constraints is not None:
        return list(template.topology_spread_constraints)
    if plan.parameters.daemon_set:
        return []
    return [
        {
            "maxSkew": 1,
            "topologyKey": topology,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(plan)},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for topology in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
