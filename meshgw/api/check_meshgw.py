"""Rules for GatewayParameters: the CEL expressions of its CustomResourceDefinition, and what these cannot look into."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec.structs import fields

from meshgw.api.meshgw import GatewayParameters, GatewayParametersSpec, Overlays, PodTemplate, ServiceParameters
from meshgw.api.overlay import check_overlay
from meshgw.names import LABEL_ISTIO_MANAGED

Violation = tuple[str, str]

RESERVED_VOLUMES: Final = frozenset({"config", "token", "tmp"})
RESERVED_MOUNTS: Final = frozenset({"/etc/meshgw", "/var/run/secrets/meshgw", "/tmp"})  # noqa: S108 - a name that is taken
RESERVED_ENV: Final = frozenset({"POD_NAME", "POD_NAMESPACE"})
RESERVED_ARGUMENTS: Final = (
    "-c",
    "-l",
    "--config-path",
    "--config-yaml",
    "--service-node",
    "--service-cluster",
    "--log-level",
    "--concurrency",
    "--component-log-level",
    "--drain-time-s",
    "--drain-strategy",
    "--disable-hot-restart",
    "--mode",
)
"""Options of Envoy that have fields of their own, or without which it would not be the Gateway's proxy."""
LOAD_BALANCER_FIELDS: Final = (
    "load_balancer_class",
    "load_balancer_source_ranges",
    "allocate_load_balancer_node_ports",
)


def gateway_parameters(parameters: GatewayParameters) -> Iterator[Violation]:
    """Rules for a GatewayParameters object."""
    spec = parameters.spec
    yield from _one_way(spec)
    if spec.autoscaling is not None and (spec.autoscaling.min_replicas or 1) > spec.autoscaling.max_replicas:
        yield "spec.autoscaling", "minReplicas must not exceed maxReplicas"
    budget = spec.pod_disruption_budget
    if budget is not None and (budget.min_available is None) == (budget.max_unavailable is None):
        yield "spec.podDisruptionBudget", "exactly one of minAvailable and maxUnavailable must be set"
    if spec.service is not None:
        yield from _service(spec.service)
    if spec.pod_template is not None:
        yield from _pod_template(spec.pod_template)
    for where, labels in _labels(spec):
        if LABEL_ISTIO_MANAGED in labels:
            yield where, f"must not have {LABEL_ISTIO_MANAGED}, which is for what istiod deploys"
    for index, argument in enumerate((spec.envoy and spec.envoy.extra_args) or ()):
        if argument.partition("=")[0] in RESERVED_ARGUMENTS:
            yield f"spec.envoy.extraArgs[{index}]", f"{argument.partition('=')[0]} is set by the controller"
    if spec.overlays is not None:
        yield from _overlays(spec.overlays)


def _one_way(spec: GatewayParametersSpec) -> Iterator[Violation]:
    """There is one way to say how many pods there are."""
    others = [field.encode_name for field in fields(spec) if getattr(spec, field.name) is not None]
    if spec.self_managed is not None and len(others) > 1:
        yield "spec.selfManaged", "must be the only field: nothing is made for which others could hold"
    if spec.daemon_set and (spec.replicas is not None or spec.autoscaling is not None):
        yield "spec.daemonSet", "excludes replicas and autoscaling: every node has one pod"
    if spec.replicas is not None and spec.autoscaling is not None:
        yield "spec.replicas", "excludes autoscaling"


def _service(service: ServiceParameters) -> Iterator[Violation]:
    if service.type == "ClusterIP" and service.external_traffic_policy is not None:
        yield "spec.service.externalTrafficPolicy", "must not be set for type ClusterIP"
    if service.type == "ClusterIP" and service.node_ports:
        yield "spec.service.nodePorts", "must not be set for type ClusterIP"
    if service.type not in {None, "LoadBalancer"}:
        for field in fields(service):
            if field.name in LOAD_BALANCER_FIELDS and getattr(service, field.name) is not None:
                yield f"spec.service.{field.encode_name}", "is for type LoadBalancer only"
    ports = [entry.port for entry in service.node_ports or ()]
    if len(set(ports)) < len(ports):
        yield "spec.service.nodePorts", "names a port twice"


def _pod_template(template: PodTemplate) -> Iterator[Violation]:
    for field, items, key, reserved in (
        ("env", template.env, "name", RESERVED_ENV),
        ("volumes", template.volumes, "name", RESERVED_VOLUMES),
        ("volumeMounts", template.volume_mounts, "mountPath", RESERVED_MOUNTS),
    ):
        for index, item in enumerate(items or ()):
            if not isinstance(item.get(key), str):
                yield f"spec.podTemplate.{field}[{index}].{key}", "is required, as text"
            elif item[key] in reserved:
                yield f"spec.podTemplate.{field}[{index}].{key}", f"{item[key]} is taken by the controller"


def _labels(spec: GatewayParametersSpec) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, part in (
        ("service", spec.service),
        ("serviceAccount", spec.service_account),
        ("podTemplate", spec.pod_template),
    ):
        if part is not None:
            yield f"spec.{name}.labels", part.labels
            yield f"spec.{name}.annotations", part.annotations


def _overlays(overlays: Overlays) -> Iterator[Violation]:
    for field in fields(overlays):
        patch = getattr(overlays, field.name)
        if patch is not None:
            kind = field.encode_name[0].upper() + field.encode_name[1:]
            for path, message in check_overlay(kind, patch):
                yield f"spec.overlays.{field.encode_name}.{path}", message
