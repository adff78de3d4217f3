"""A mesh on loopback for waypoint tests: documents in, a real Envoy as the waypoint, node proxies in miniature around."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import yaml

from meshgw.api.decode import decode
from meshgw.api.meta import Key
from meshgw.emit.static import emit_static
from meshgw.emit.tables import RESOURCES
from meshgw.engine import Graph
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.gateway import Binding, Settings
from meshgw.names import HBONE_PORT
from meshgw.pipeline import FACTS, build_graph
from meshgw.resolve import tables as t
from tests.rig.addresses import next_loopback
from tests.rig.certs import Leaf, authority, spiffe
from tests.rig.envoy import RunningEnvoy, run_static
from tests.rig.hbone import HboneClient, HboneServer

WAYPOINT = Key("default", "waypoint")

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: meshgw-waypoint}
spec: {controllerName: meshgw.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: default, labels: {istio.io/waypoint-for: all}}
spec:
  gatewayClassName: meshgw-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]
"""


def feed(graph: Graph, text: str) -> None:
    """Commit some documents; every one must be good."""
    changes: dict[Any, dict[Any, Any]] = {}
    for document in yaml.safe_load_all(text):
        decoded = decode(document)
        assert decoded.object is not None, decoded.problems
        changes.setdefault(FACTS[document["kind"]], {})[decoded.object.key] = decoded.object
    delta = graph.commit(changes)
    assert delta.faults == ()


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


@dataclass
class Mesh:
    """Documents and node proxies; `run` starts the waypoint."""

    text: str = GATEWAY
    address: str = field(default_factory=next_loopback)
    settings: Settings = field(default_factory=lambda: Settings(mesh=True, loopback_endpoints=True))
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def graph(self) -> Graph:
        """Return the pipeline with the documents in it."""
        graph = build_graph()
        own = spiffe(WAYPOINT.name)
        certificate = WorkloadCertificate(chain=own.chain, key=own.key, roots=authority("mesh").root)
        graph.commit(
            {
                t.SETTINGS: {t.SINGLE: self.settings},
                t.BINDINGS: {WAYPOINT: Binding(bind=self.address)},
                t.WORKLOAD_CERTIFICATES: {WAYPOINT: certificate},
            }
        )
        feed(graph, self.text)
        return graph

    def add(self, *texts: str) -> None:
        """Add documents."""
        self.text += "".join(texts)

    async def node(
        self, address: str, *, account: str = "app", allow: Callable[[str], bool] = lambda _peer: True, **routes: Any
    ) -> HboneServer:
        """Start the node proxy of a Pod; `routes` are `p<port>=(host, port)`."""
        server = HboneServer(
            spiffe(account),
            authority("mesh").root,
            host=address,
            port=HBONE_PORT,
            routes={f"{address}:{name[1:]}": target for name, target in routes.items()},
            allow=allow,
        )
        return await self._stack.enter_async_context(server)

    @contextlib.asynccontextmanager
    async def run(self, **options: Any) -> AsyncIterator[RunningEnvoy]:
        """Run the waypoint."""
        graph = self.graph()
        resources = [row for _key, row in graph.by(RESOURCES, "gateway", WAYPOINT)]
        async with run_static(emit_static(resources), **options) as envoy:
            yield envoy

    def client(self, account: str = "client", namespace: str = "default", *, leaf: Leaf | None = None) -> HboneClient:
        """Return the node proxy of a client with this identity."""
        identity = leaf or spiffe(account, namespace)
        return HboneClient((self.address, HBONE_PORT), ca=authority("mesh").root, identity=identity)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
