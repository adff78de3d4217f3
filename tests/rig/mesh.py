"""Documents of an ambient mesh for tests, and the whole pipeline fed with them."""

from __future__ import annotations

from typing import Any

import yaml

from meshgw.api.decode import decode
from meshgw.api.meta import Key
from meshgw.engine import Delta, Graph, Table
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.gateway import Binding, Settings
from meshgw.pipeline import FACTS, build_graph
from meshgw.resolve import tables as t
from tests.rig.certs import authority, spiffe

WAYPOINT = Key("default", "waypoint")

CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: meshgw-waypoint}
spec: {controllerName: meshgw.dev/gateway-controller}
"""


def gateway(name: str = "waypoint", *, traffic: str = "service", admits: str = "All", labels: str = "") -> str:
    """Return a waypoint Gateway for one kind of traffic."""
    more = f", {labels}" if labels else ""
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: default, labels: {{istio.io/waypoint-for: {traffic}{more}}}}}
spec:
  gatewayClassName: meshgw-waypoint
  listeners: [{{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {{namespaces: {{from: {admits}}}}}}}]
"""


def feed(graph: Graph, text: str) -> Delta:
    """Commit some documents; every one must be good, and no step may fail."""
    changes: dict[Any, dict[Any, Any]] = {}
    for document in yaml.safe_load_all(text):
        decoded = decode(document)
        assert decoded.object is not None, decoded.problems
        changes.setdefault(FACTS[document["kind"]], {})[decoded.object.key] = decoded.object
    delta = graph.commit(changes)
    assert delta.faults == ()
    return delta


def remove(graph: Graph, table: Table[Key, Any], *keys: Key) -> Delta:
    """Take some objects away."""
    return graph.commit({table: dict.fromkeys(keys)})


def mesh_graph(text: str = "", *, bind: str = "127.0.0.1", settings: Settings | None = None) -> Graph:
    """Return the pipeline with the documents in it; the waypoint has its certificate."""
    graph = build_graph()
    own = spiffe(WAYPOINT.name)
    certificate = WorkloadCertificate(chain=own.chain, key=own.key, roots=authority("mesh").root)
    graph.commit(
        {
            t.SETTINGS: {t.SINGLE: settings or Settings(mesh=True, loopback_endpoints=True)},
            t.BINDINGS: {WAYPOINT: Binding(bind=bind)},
            t.WORKLOAD_CERTIFICATES: {WAYPOINT: certificate},
        }
    )
    if text:
        feed(graph, text)
    return graph


def service(name: str, vip: str, ports: str, *, namespace: str = "default", waypoint: str = "waypoint") -> str:
    """Return a Service behind the waypoint; ports are a flow sequence."""
    labels = f"{{istio.io/use-waypoint: {waypoint}, istio.io/use-waypoint-namespace: default}}"
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}
spec: {{clusterIP: "{vip}", ports: {ports}}}
"""


def endpoints(service: str, ports: dict[str, int], *addresses: str, namespace: str = "default") -> str:
    """Return the EndpointSlice of a Service: port names to numbers, and addresses."""
    named = ", ".join(f"{{name: {name}, port: {port}, protocol: TCP}}" for name, port in ports.items())
    listed = ", ".join(f"{{addresses: ['{address}']}}" for address in addresses)
    labels = f"{{kubernetes.io/service-name: {service}}}"
    return f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-1, namespace: {namespace}, labels: {labels}}}
addressType: IPv4
ports: [{named}]
endpoints: [{listed}]
"""


def pod(name: str, address: str, *, account: str = "app", hbone: bool = True, labels: str = "{}") -> str:
    """Return a running Pod."""
    captured = "{ambient.istio.io/redirection: enabled}" if hbone else "{}"
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, annotations: {captured}, labels: {labels}}}
spec: {{serviceAccountName: {account}, containers: [{{name: app}}]}}
status: {{phase: Running, podIP: "{address}"}}
"""


def policy(name: str, spec: str, *, target: str = "Service echo", namespace: str = "default") -> str:
    """Return an AuthorizationPolicy with a flow-mapping body for `KIND NAME`."""
    kind, target_name = target.split()
    group = "" if kind == "Service" else "gateway.networking.k8s.io"
    return f"""
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  targetRefs: [{{group: "{group}", kind: {kind}, name: {target_name}}}]
  {spec}
"""
