"""Well-known names: controller, labels, annotations, ports and classes."""

from __future__ import annotations

CONTROLLER_NAME = "meshgw.dev/gateway-controller"

GATEWAY_GROUP = "gateway.networking.k8s.io"
NETWORKING_GROUP = "networking.istio.io"
CORE_GROUP = ""

# Classes that exist without being declared, and the role each gives to its Gateways.
CLASS_INGRESS = "meshgw"
CLASS_EGRESS = "meshgw-egress"
CLASS_WAYPOINT = "meshgw-waypoint"

LABEL_GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
LABEL_GATEWAY_CLASS = "gateway.networking.k8s.io/gateway-class-name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_DATAPLANE_MODE = "istio.io/dataplane-mode"
LABEL_INJECT = "sidecar.istio.io/inject"
LABEL_ISTIO_MANAGED = "gateway.istio.io/managed"
"""Says that istiod deployed something: it would take such proxies for its own."""
LABEL_ROLE = "meshgw.dev/role"
LABEL_SERVICE_ACCOUNT = "meshgw.dev/service-account"
LABEL_USE_WAYPOINT = "istio.io/use-waypoint"
LABEL_USE_WAYPOINT_NAMESPACE = "istio.io/use-waypoint-namespace"
LABEL_WAYPOINT_FOR = "istio.io/waypoint-for"
LABEL_NETWORK = "topology.istio.io/network"
LABEL_TUNNEL = "networking.istio.io/tunnel"
LABEL_SERVICE_NAME = "kubernetes.io/service-name"
ANNOTATION_REDIRECTION = "ambient.istio.io/redirection"
ANNOTATION_DRY_RUN = "istio.io/dry-run"

HBONE_PORT = 15008
"""Where ztunnel and waypoints terminate HBONE (HTTP/2 CONNECT over mutual TLS)."""

DEFAULT_TRUST_DOMAIN = "cluster.local"
DEFAULT_CLUSTER_DOMAIN = "cluster.local"
DEFAULT_ROOT_NAMESPACE = "istio-system"

# Secrets and internal listeners inside an Envoy.
SDS_WORKLOAD_CERTIFICATE = "default"
SDS_MESH_ROOTS = "ROOTCA"
LISTENER_CONNECT_TERMINATE = "connect_terminate"
LISTENER_MAIN_INTERNAL = "main_internal"
LISTENER_CONNECT_ORIGINATE = "connect_originate"

# Filter state set by connect_terminate for the chains behind it (Istio uses the same keys).
STATE_PEER_PRINCIPAL = "io.istio.peer_principal"
STATE_LOCAL_PRINCIPAL = "io.istio.local_principal"
STATE_CONNECT_AUTHORITY = "io.istio.connect_authority"

ANY_IPV4 = "0.0.0.0"  # noqa: S104 - inside a pod
ANY_ADDRESS = "::"
"""All addresses of both families, where Envoy is told to be compatible with IPv4."""

REGEX_PROGRAM_SIZE = 1000
"""Largest RE2 program that is accepted; every Envoy is started with this as `re2.max_program_size.error_level`."""

# Proxies in a cluster: what their bootstrap, their pods and their Services agree on.
PROXY_IMAGE = "docker.io/envoyproxy/envoy:distroless-v1.40.0"
XDS_ADDRESS = "meshgw.meshgw-system.svc:18000"
XDS_AUDIENCE = "meshgw"
"""Audience of the ServiceAccount tokens by which proxies prove who they are."""
METRICS_PORT = 15020
STATUS_PORT = 15021
ADMIN_PORT = 19000
