"""Kubernetes core objects, with the fields a gateway controller reads."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from meshgw.api.meta import ApiStruct, OwnedMeta, Resource
from meshgw.api.scalars import PortNumber

TransportProtocol = Literal["TCP", "UDP", "SCTP"]


class ServicePort(ApiStruct, frozen=True, kw_only=True):
    """One port of a Service; after the defaults ``target_port`` is set, as number or as a container port's name."""

    name: str = ""
    protocol: TransportProtocol = "TCP"
    app_protocol: str | None = None
    port: PortNumber
    target_port: int | str | None = None
    node_port: int = 0


class ServiceSpec(ApiStruct, frozen=True, kw_only=True):
    """What a Service selects and how it is reached; ``cluster_ip`` is ``"None"`` for a headless one."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    selector: Mapping[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = ""
    cluster_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    external_name: str = ""
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str | None = None
    publish_not_ready_addresses: bool = False
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: "SessionAffinityConfig | None" = None
    internal_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    external_traffic_policy: Literal["", "Cluster", "Local"] = ""
    traffic_distribution: str | None = None
    load_balancer_class: str | None = None
    load_balancer_ip: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    allocate_load_balancer_node_ports: bool | None = None
    health_check_node_port: int = 0


class ClientIPConfig(ApiStruct, frozen=True, kw_only=True):
    """How long a client keeps its endpoint."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(ApiStruct, frozen=True, kw_only=True):
    """Parameters of session affinity."""

    client_ip: ClientIPConfig | None = None


class LoadBalancerIngress(ApiStruct, frozen=True, kw_only=True):
    """One address at which a load balancer answers."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancerStatus(ApiStruct, frozen=True, kw_only=True):
    """The addresses of a load balancer."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(ApiStruct, frozen=True, kw_only=True):
    """What the cluster assigned to a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Resource, frozen=True, kw_only=True):
    """A Service (``v1``)."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(ApiStruct, frozen=True, kw_only=True):
    """State of an endpoint; an absent ``ready`` means ready, an absent ``serving`` the same as ``ready``."""

    ready: bool = True
    serving: bool | None = None
    terminating: bool = False


class TargetRef(ApiStruct, frozen=True, kw_only=True):
    """The object behind an endpoint, usually a Pod."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class ZoneHint(ApiStruct, frozen=True, kw_only=True):
    """A zone or node that should use an endpoint."""

    name: str


class EndpointHints(ApiStruct, frozen=True, kw_only=True):
    """Who should use an endpoint."""

    for_zones: tuple[ZoneHint, ...] = ()
    for_nodes: tuple[ZoneHint, ...] = ()


class Endpoint(ApiStruct, frozen=True, kw_only=True):
    """One endpoint; only its first address is used, as in Kubernetes."""

    addresses: Annotated[tuple[str, ...], Meta(min_length=1)]
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: TargetRef | None = None
    hints: EndpointHints | None = None


class EndpointPort(ApiStruct, frozen=True, kw_only=True):
    """One port of an EndpointSlice, matched to a Service port by name; no ``port`` means all ports."""

    name: str = ""
    protocol: TransportProtocol = "TCP"
    port: PortNumber | None = None
    app_protocol: str | None = None


class EndpointSlice(Resource, frozen=True, kw_only=True):
    """An EndpointSlice (``discovery.k8s.io/v1``); the label ``kubernetes.io/service-name`` names its Service."""

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class ContainerPort(ApiStruct, frozen=True, kw_only=True):
    """A port a container listens on."""

    name: str = ""
    container_port: PortNumber
    protocol: TransportProtocol = "TCP"


class Container(ApiStruct, frozen=True, kw_only=True):
    """A container, reduced to its ports."""

    name: str
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(ApiStruct, frozen=True, kw_only=True):
    """Where a Pod runs, and as whom."""

    node_name: str = ""
    service_account_name: str = "default"
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    init_containers: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = ()


class PodIP(ApiStruct, frozen=True, kw_only=True):
    """One address of a Pod."""

    ip: str


class StatusCondition(ApiStruct, frozen=True, kw_only=True):
    """A condition of a Pod or Node, without its timestamps, so that heartbeats do not make it a new value."""

    type: str
    status: str
    reason: str = ""


class PodStatus(ApiStruct, frozen=True, kw_only=True):
    """State of a Pod."""

    phase: str = ""
    host_ip: str = ""
    pod_ip: str = ""
    pod_ips: tuple[PodIP, ...] = ()
    conditions: tuple[StatusCondition, ...] = ()


class Pod(Resource, frozen=True, kw_only=True):
    """A Pod (``v1``)."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class NodeSpec(ApiStruct, frozen=True, kw_only=True):
    """Settings of a Node."""

    provider_id: str = ""
    unschedulable: bool = False


class NodeAddress(ApiStruct, frozen=True, kw_only=True):
    """One address of a Node; ``type`` is ``InternalIP``, ``ExternalIP``, ``Hostname`` and so on."""

    type: str
    address: str


class NodeStatus(ApiStruct, frozen=True, kw_only=True):
    """State of a Node."""

    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[StatusCondition, ...] = ()


class Node(Resource, frozen=True, kw_only=True):
    """A Node (``v1``); its labels give region and zone."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class NamespaceStatus(ApiStruct, frozen=True, kw_only=True):
    """State of a Namespace."""

    phase: str = "Active"


class Namespace(Resource, frozen=True, kw_only=True):
    """A Namespace (``v1``); after the defaults it carries the label ``kubernetes.io/metadata.name``."""

    status: NamespaceStatus = NamespaceStatus()


class Secret(Resource, frozen=True, kw_only=True):
    """A Secret (``v1``); ``data`` is decoded, and after the defaults holds ``string_data`` too.

    Its repr names the keys of the data and never shows their values.
    """

    type: str = "Opaque"
    data: Mapping[str, bytes] = {}
    string_data: Mapping[str, str] = {}
    immutable: bool = False

    def __repr__(self) -> str:
        keys = sorted({*self.data, *self.string_data})
        return f"Secret({str(self.key)!r}, type={self.type!r}, keys={keys!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("key", str(self.key)), ("type", self.type), ("keys", sorted({*self.data, *self.string_data}))]


class ConfigMap(Resource, frozen=True, kw_only=True):
    """A ConfigMap (``v1``)."""

    data: Mapping[str, str] = {}
    binary_data: Mapping[str, bytes] = {}
    immutable: bool = False


class ServiceAccount(Resource, frozen=True, kw_only=True):
    """A ServiceAccount (``v1``), reduced to its identity and whose it is."""

    metadata: OwnedMeta
