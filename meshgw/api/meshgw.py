"""meshgw's own API, ``meshgw.dev/v1alpha1``: how the proxies of Gateways are deployed.

Whatever is absent is decided by somebody else: the class for a Gateway, the controller for a class. So no field has a
default of its own, and an empty list says something that an absent one does not.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from meshgw.api.meta import ApiStruct, Resource
from meshgw.api.scalars import LabelValue, PortNumber

MESHGW_GROUP: Final = "meshgw.dev"

Native = Mapping[str, Any]
"""A value of the Kubernetes API that is passed on as it is: the API server checks it when the object is made."""
Natives = tuple[Native, ...]
Quantity = int | str
"""An amount of a resource, such as ``500m`` or ``1Gi``."""
Share = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^[0-9]+%\Z", max_length=6)]
"""A number of pods or a percentage of them."""
AnnotationValue = Annotated[str, Meta(max_length=16384)]
Argument = Annotated[str, Meta(min_length=1, max_length=1024)]
Count = Annotated[int, Meta(ge=0, le=1000)]
Percentage = Annotated[int, Meta(ge=1, le=1000)]


class SelfManaged(ApiStruct, frozen=True, kw_only=True):
    """Says that the user runs the proxies: nothing is made for the Gateway."""


class ResourceRequirements(ApiStruct, frozen=True, kw_only=True):
    """What the proxy's container asks for and may use."""

    requests: Mapping[str, Quantity] = {}
    limits: Mapping[str, Quantity] = {}


class NodePort(ApiStruct, frozen=True, kw_only=True):
    """The port of every node that leads to a listener's port."""

    port: PortNumber
    node_port: PortNumber


class ServiceParameters(ApiStruct, frozen=True, kw_only=True):
    """The Service of a Gateway; fields that do not fit its type have no effect."""

    type: Literal["LoadBalancer", "ClusterIP", "NodePort"] | None = None
    labels: Mapping[str, LabelValue] = {}
    annotations: Mapping[str, AnnotationValue] = {}
    cluster_ip: Annotated[str, Meta(max_length=45)] | None = None
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    internal_traffic_policy: Literal["Cluster", "Local"] | None = None
    traffic_distribution: Annotated[str, Meta(max_length=64)] | None = None
    load_balancer_class: Annotated[str, Meta(max_length=253)] | None = None
    load_balancer_source_ranges: tuple[Annotated[str, Meta(max_length=64)], ...] | None = None
    allocate_load_balancer_node_ports: bool | None = None
    ip_families: Annotated[tuple[Literal["IPv4", "IPv6"], ...], Meta(min_length=1, max_length=2)] | None = None
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    node_ports: Annotated[tuple[NodePort, ...], Meta(max_length=64)] | None = None


class ServiceAccountParameters(ApiStruct, frozen=True, kw_only=True):
    """The ServiceAccount of a Gateway."""

    labels: Mapping[str, LabelValue] = {}
    annotations: Mapping[str, AnnotationValue] = {}


class PodTemplate(ApiStruct, frozen=True, kw_only=True):
    """The pods of a Gateway."""

    labels: Mapping[str, LabelValue] = {}
    annotations: Mapping[str, AnnotationValue] = {}
    node_selector: Mapping[str, LabelValue] = {}
    tolerations: Natives | None = None
    affinity: Native | None = None
    topology_spread_constraints: Natives | None = None
    priority_class_name: Annotated[str, Meta(max_length=253)] | None = None
    image_pull_secrets: Natives | None = None
    env: Natives | None = None
    volumes: Natives | None = None
    volume_mounts: Natives | None = None


class EnvoyParameters(ApiStruct, frozen=True, kw_only=True):
    """The process. ``drain_seconds`` is how long it serves on after it was told to end."""

    log_level: Literal["trace", "debug", "info", "warning", "error", "critical", "off"] | None = None
    component_log_level: Annotated[str, Meta(max_length=1024)] | None = None
    concurrency: Annotated[int, Meta(ge=1, le=1024)] | None = None
    extra_args: Annotated[tuple[Argument, ...], Meta(max_length=64)] | None = None
    drain_seconds: Annotated[int, Meta(ge=0, le=3600)] | None = None
    all_stats: bool | None = None
    max_connections: Annotated[int, Meta(ge=1)] | None = None


class Autoscaling(ApiStruct, frozen=True, kw_only=True):
    """A HorizontalPodAutoscaler. ``metrics`` replace those that the utilizations (in percent of requests) stand for."""

    min_replicas: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_replicas: Annotated[int, Meta(ge=1, le=1000)]
    cpu_utilization: Percentage | None = None
    memory_utilization: Percentage | None = None
    metrics: Natives | None = None
    behavior: Native | None = None


class DisruptionBudget(ApiStruct, frozen=True, kw_only=True):
    """A PodDisruptionBudget: exactly one of the two is set."""

    min_available: Share | None = None
    max_unavailable: Share | None = None


class Overlays(ApiStruct, frozen=True, kw_only=True):
    """Strategic merge patches of the objects as they are made, by kind."""

    config_map: Native | None = None
    daemon_set: Native | None = None
    deployment: Native | None = None
    horizontal_pod_autoscaler: Native | None = None
    pod_disruption_budget: Native | None = None
    service: Native | None = None
    service_account: Native | None = None


class GatewayParametersSpec(ApiStruct, frozen=True, kw_only=True):
    """Parameters of one Gateway, or of all of a class."""

    self_managed: SelfManaged | None = None
    replicas: Count | None = None
    daemon_set: bool | None = None
    image: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    resources: ResourceRequirements | None = None
    service: ServiceParameters | None = None
    service_account: ServiceAccountParameters | None = None
    pod_template: PodTemplate | None = None
    envoy: EnvoyParameters | None = None
    autoscaling: Autoscaling | None = None
    pod_disruption_budget: DisruptionBudget | None = None
    overlays: Overlays | None = None


class GatewayParameters(Resource, frozen=True, kw_only=True):
    """A GatewayParameters object."""

    spec: GatewayParametersSpec = GatewayParametersSpec()
