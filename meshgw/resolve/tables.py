"""Handles of every table below the emitters: what it holds, its key and its indexes.

`meshgw.pipeline` says how each is derived.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from meshgw.api import core, gateway, grpc, http, istio, l4, meshgw, policy
from meshgw.api.meta import Key, ObjectRef
from meshgw.engine import Table
from meshgw.ir import backend, mesh
from meshgw.ir import gateway as ir
from meshgw.ir import route as irr
from meshgw.ir.finding import Finding
from meshgw.ir.keys import ClusterKey, ListenerKey, RouteConfigKey, RouteKey
from meshgw.ir.proxy import ProxyPlan
from meshgw.ir.status import RouteStatus, Status
from meshgw.names import LABEL_SERVICE_NAME

SINGLE = "settings"
"""Key of the single row of SETTINGS."""

# --- Facts ---------------------------------------------------------------------------------------------------------

SETTINGS: Table[str, ir.Settings] = Table("settings")
BINDINGS: Table[Key, ir.Binding] = Table("bindings")
IDENTITY_PROBLEMS: Table[Key, ir.IdentityProblem] = Table("identity-problems")
"""By ServiceAccount: those that get no new mesh certificate."""
WORKLOAD_CERTIFICATES: Table[Key, backend.WorkloadCertificate] = Table("workload-certificates")
"""By namespace and name of the ServiceAccount."""

REMEMBERED_CLASSES: Table[str, ir.GatewayClass] = Table("remembered-classes")
"""Classes of ours as they were last: they hold for Gateways while an object of the name does not exist."""

GATEWAY_CLASSES: Table[Key, gateway.GatewayClass] = Table("gatewayclasses")
GATEWAYS: Table[Key, gateway.Gateway] = Table("gateways")
GATEWAY_PARAMETERS: Table[Key, meshgw.GatewayParameters] = Table("gatewayparameters")


def _listener_set_parent(key: Key, row: gateway.ListenerSet) -> Iterable[Hashable]:
    return (Key(row.spec.parent_ref.namespace or key.namespace, row.spec.parent_ref.name),)


LISTENER_SETS: Table[Key, gateway.ListenerSet] = Table("listenersets", indexes={"parent": _listener_set_parent})


def _parent_services(key: Key, row: http.HTTPRoute | grpc.GRPCRoute) -> Iterable[Hashable]:
    return {Key(ref.namespace or key.namespace, ref.name) for ref in row.spec.parent_refs if ref.kind == "Service"}


HTTP_ROUTES: Table[Key, http.HTTPRoute] = Table("httproutes", indexes={"service": _parent_services})
GRPC_ROUTES: Table[Key, grpc.GRPCRoute] = Table("grpcroutes", indexes={"service": _parent_services})
TLS_ROUTES: Table[Key, l4.TLSRoute] = Table("tlsroutes")
TCP_ROUTES: Table[Key, l4.TCPRoute] = Table("tcproutes")
UDP_ROUTES: Table[Key, l4.UDPRoute] = Table("udproutes")
REFERENCE_GRANTS: Table[Key, policy.ReferenceGrant] = Table(
    "referencegrants", indexes={"namespace": lambda key, _row: (key.namespace,)}
)


def _policy_targets(key: Key, row: policy.BackendTLSPolicy) -> Iterable[Hashable]:
    named: set[tuple[str, ...]] = {(ref.group, ref.kind, key.namespace, ref.name) for ref in row.spec.target_refs}
    return named if row.unknown_target is None else {*named, (key.namespace,)}


BACKEND_TLS_POLICIES: Table[Key, policy.BackendTLSPolicy] = Table(
    "backendtlspolicies", indexes={"target": _policy_targets}
)
"""Those whose targets are not all known are found by (namespace,) too."""
AUTHORIZATION_POLICIES: Table[Key, istio.AuthorizationPolicy] = Table(
    "authorizationpolicies", indexes={"namespace": lambda key, _row: (key.namespace,)}
)
NAMESPACES: Table[Key, core.Namespace] = Table("namespaces")
"""Keys have an empty namespace, as for every cluster-scoped kind."""
SERVICES: Table[Key, core.Service] = Table("services", indexes={"namespace": lambda key, _row: (key.namespace,)})


def _slice_service(key: Key, row: core.EndpointSlice) -> Iterable[Hashable]:
    service = row.metadata.labels.get(LABEL_SERVICE_NAME)
    return (Key(key.namespace, service),) if service else ()


ENDPOINT_SLICES: Table[Key, core.EndpointSlice] = Table("endpointslices", indexes={"service": _slice_service})
PODS: Table[Key, core.Pod] = Table("pods", indexes={"namespace": lambda key, _row: (key.namespace,)})
NODES: Table[Key, core.Node] = Table("nodes")
SECRETS: Table[Key, core.Secret] = Table("secrets")
CONFIG_MAPS: Table[Key, core.ConfigMap] = Table("configmaps")
SERVICE_ACCOUNTS: Table[Key, core.ServiceAccount] = Table("serviceaccounts")

# --- Gateways ------------------------------------------------------------------------------------------------------

CLASSES: Table[str, ir.GatewayClass] = Table("classes")
"""Our GatewayClasses by name."""
CERTIFICATES: Table[Key, backend.Certificate] = Table("certificates")
"""By Secret; every kubernetes.io/tls-like Secret, good or bad."""
BUNDLES: Table[tuple[str, Key], backend.Bundle] = Table("bundles")
"""By (ConfigMap or Secret, key)."""
OUR_GATEWAYS: Table[Key, ir.Gateway] = Table(
    "our-gateways",
    indexes={
        "role": lambda _key, row: (row.role,),
        "account": lambda key, row: (Key(key.namespace, row.service_account),),
    },
)

GATEWAY_PROFILES: Table[Key, ir.Gateway] = Table("gateway-profiles")
"""The same without what changes with every edit and concerns the Gateway alone: for what thousands of rows read."""


def _listener_host(key: ListenerKey, row: ir.Listener) -> Iterable[Hashable]:
    return ((key.gateway, row.port, row.protocol, row.hostname),) if row.serving else ()


LISTENERS: Table[ListenerKey, ir.Listener] = Table(
    "listeners",
    indexes={
        "gateway": lambda key, _row: (key.gateway,),
        "owner": lambda key, _row: ((key.gateway, key.owner_kind, key.owner),),
        "port": lambda key, row: ((key.gateway, row.port),),
        "host": _listener_host,
    },
)

LISTENER_SET_RESULTS: Table[Key, ir.ListenerSetResult] = Table(
    "listener-set-results", indexes={"gateway": lambda _key, row: (row.gateway,)}
)

PROXY_PLANS: Table[Key, ProxyPlan] = Table("proxy-plans")
"""In a cluster: what is done with the Kubernetes objects of each Gateway, also of those that are not ours any more."""

# --- Waypoints -----------------------------------------------------------------------------------------------------

WORKLOADS: Table[Key, mesh.Workload] = Table("workloads", indexes={"address": lambda _key, row: row.addresses})
"""Running Pods by key."""
ADMISSIONS: Table[Key, ir.AllowedNamespaces] = Table("admissions")
"""By waypoint: the namespaces whose Services and Pods may be behind it."""
ENROLMENTS: Table[tuple[str, Key], mesh.Enrolment] = Table("enrolments")
"""By (Service or Pod, key): those that name a waypoint."""
WAYPOINT_SERVICES: Table[tuple[Key, Key], mesh.WaypointService] = Table(
    "waypoint-services",
    indexes={
        "gateway": lambda key, _row: (key[0],),
        "service": lambda key, _row: (key[1],),
        "address": lambda key, row: [(key[0], address) for address in row.addresses],
    },
)
"""By (waypoint, Service)."""
WAYPOINT_WORKLOADS: Table[tuple[Key, Key], mesh.WaypointWorkload] = Table(
    "waypoint-workloads",
    indexes={
        "gateway": lambda key, _row: (key[0],),
        "address": lambda key, row: [(key[0], address) for address in row.addresses],
    },
)
"""By (waypoint, Pod)."""
POLICIES: Table[Key, mesh.AuthorizationPolicy] = Table("policies", indexes={"target": lambda _key, row: row.targets})
"""Authorization policies as they are enforced."""
AUTHORIZATIONS: Table[tuple[Key, Key], mesh.Authorization] = Table("authorizations")
"""By (Gateway, Service behind it). The Service Key("", "") stands for all else: gateway-wide policies only."""

# --- Routes --------------------------------------------------------------------------------------------------------

PARENTS: Table[tuple[RouteKey, int], irr.Parent] = Table("parents", indexes={"route": lambda key, _row: (key[0],)})
"""One row per parentRef that names something of ours."""
ATTACHMENTS: Table[tuple[RouteKey, ListenerKey], irr.Attachment] = Table(
    "attachments",
    indexes={"listener": lambda key, _row: (key[1],), "route": lambda key, _row: (key[0],)},
)
ATTACHED_COUNTS: Table[ListenerKey, int] = Table("attached-counts")
ROUTES: Table[RouteKey, irr.Route] = Table("routes")
HOSTS: Table[tuple[RouteConfigKey, str, RouteKey], irr.HostEntry] = Table(
    "hosts", indexes={"route": lambda key, _row: (key[2],)}
)
"""By (RouteConfiguration, domain, claimant). Claims of a listener itself have RouteKey("", "", listener name)."""
CONFIG_LISTENERS: Table[tuple[RouteConfigKey, ListenerKey], bool] = Table(
    "config-listeners", indexes={"config": lambda key, _row: (key[0],)}
)
"""Which listeners, or service port behind a waypoint, a RouteConfiguration is of; always True."""
L4_BINDINGS: Table[ListenerKey, irr.L4Binding] = Table("l4-bindings")

# --- Backends ------------------------------------------------------------------------------------------------------

CLUSTER_USES: Table[tuple[ClusterKey, Hashable], bool] = Table("cluster-uses")
"""Who names a cluster; always True."""


def _cluster_service(key: ClusterKey, _row: backend.Cluster) -> Iterable[Hashable]:
    return (Key(key.target.namespace, key.target.name),) if key.target.kind == "Service" else ()


CLUSTERS: Table[ClusterKey, backend.Cluster] = Table(
    "clusters", indexes={"gateway": lambda key, _row: (key.gateway,), "service": _cluster_service}
)
ENDPOINTS: Table[ClusterKey, backend.Endpoints] = Table("endpoints")
BACKEND_TLS_RESULTS: Table[Key, backend.BackendTlsResult] = Table("backend-tls-results")
"""By BackendTLSPolicy; only those that some Gateway of ours uses."""

# --- What others are told -------------------------------------------------------------------------------------------

ROUTE_STATUSES: Table[RouteKey, RouteStatus] = Table("route-statuses")
STATUSES: Table[ObjectRef, Status] = Table("statuses")
FINDINGS: Table[tuple[ObjectRef, str, int], Finding] = Table(
    "findings", indexes={"object": lambda key, _row: (key[0],)}
)
"""By (object, table and key of the row that found it, position)."""
