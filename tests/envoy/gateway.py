"""Gateways from YAML on a real Envoy without a controller: evaluated once, written as a static configuration, run.

What a test passes is text or objects as a user would write them; nothing of the product is called but what reads them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import yaml

from meshgw.api.meta import Key, ObjectRef
from meshgw.emit.static import emit_static
from meshgw.emit.tables import RESOURCES
from meshgw.engine import Graph
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Binding, Settings
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from meshgw.standalone.facts import read_text
from tests.rig.backends import Backends, EchoBackend
from tests.rig.clients import Headers, HttpClient, HttpVersion, Response, Target, tcp
from tests.rig.envoy import RunningEnvoy, run_static
from tests.rig.tls import ClientTls

Document = dict[str, Any]
Manifest = str | Document | Iterable["Manifest"]
"""YAML text, an object, or several of either."""

OFFSET = 10_000
HTTP = 80
HTTPS = 443
GROUP = "gateway.networking.k8s.io"


def manifest(*documents: Manifest) -> str:
    """Return everything as one YAML text (objects as JSON, which is YAML)."""
    return "\n---\n".join(_texts(documents))


def _texts(documents: Iterable[Manifest]) -> Iterable[str]:
    for document in documents:
        if isinstance(document, str):
            yield document
        elif isinstance(document, Mapping):
            yield json.dumps(document)
        else:
            yield from _texts(document)


def resource(
    kind: str, name: str, spec: Any, *, namespace: str = "default", version: str = "v1", **meta: Any
) -> Document:
    """Return an object of the Gateway API; a `spec` in text is YAML."""
    body = yaml.safe_load(spec) if isinstance(spec, str) else spec
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **meta},
        "spec": body,
    }


def gateway(
    *listeners: Document, name: str = "gw", namespace: str = "default", gateway_class: str = "meshgw", **spec: Any
) -> Document:
    """Return a Gateway; without listeners it has one for HTTP on port 80."""
    spec = {"gatewayClassName": gateway_class, "listeners": list(listeners or (listener(),)), **spec}
    return resource("Gateway", name, spec, namespace=namespace)


def listener(name: str = "http", *, port: int = HTTP, protocol: str = "HTTP", **fields: Any) -> Document:
    """Return a listener."""
    return {"name": name, "port": port, "protocol": protocol, **fields}


def https_listener(
    name: str = "https",
    *,
    certificates: Sequence[str] = ("cert",),
    port: int = HTTPS,
    protocol: str = "HTTPS",
    **fields: Any,
) -> Document:
    """Return a listener that ends TLS with the certificates of these Secrets."""
    tls = {"mode": "Terminate", "certificateRefs": [{"name": secret} for secret in certificates]}
    return listener(name, port=port, protocol=protocol, tls=tls, **fields)


def route(
    rules: str | Sequence[Document],
    *hostnames: str,
    kind: str = "HTTPRoute",
    name: str = "route",
    namespace: str = "default",
    parents: Sequence[Document] = ({"name": "gw"},),
    version: str = "v1",
    **meta: Any,
) -> Document:
    """Return a route with `rules` (YAML text or objects)."""
    spec: Document = {
        "parentRefs": list(parents),
        "rules": yaml.safe_load(rules) if isinstance(rules, str) else list(rules),
    }
    if hostnames:
        spec["hostnames"] = list(hostnames)
    return resource(kind, name, spec, namespace=namespace, version=version, **meta)


def service(
    name: str,
    *places: Target,
    namespace: str = "default",
    port: int = 80,
    protocol: str = "TCP",
    app_protocol: str | None = None,
    unready: Sequence[Target] = (),
) -> list[Document]:
    """Return a Service of one port and a slice for each place that serves it."""
    ports: Document = {"name": "main", "port": port, "targetPort": "main", "protocol": protocol}
    if app_protocol:
        ports["appProtocol"] = app_protocol
    meta = {"name": name, "namespace": namespace}
    body: Document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": {"app": name}, "clusterIP": "10.96.0.1", "ports": [ports]},
    }
    slices = [
        endpoint_slice(f"{name}-{number}", name, place, namespace=namespace, protocol=protocol, ready=ready)
        for number, (place, ready) in enumerate([*((p, True) for p in places), *((p, False) for p in unready)])
    ]
    return [body, *slices]


def endpoint_slice(
    name: str,
    service_name: str,
    place: Target,
    *,
    namespace: str = "default",
    protocol: str = "TCP",
    port_name: str = "main",
    ready: bool = True,
) -> Document:
    """Return an EndpointSlice with one endpoint."""
    address, port = place
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service_name}},
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": port, "protocol": protocol}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
    }


def namespace(name: str, **labels: str) -> Document:
    """Return a Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def grant(source_namespace: str, namespace: str, *, source: str = "HTTPRoute", target: str = "Service") -> Document:
    """Return a ReferenceGrant in `namespace`."""
    spec = {
        "from": [{"group": GROUP, "kind": source, "namespace": source_namespace}],
        "to": [{"group": "", "kind": target}],
    }
    return resource("ReferenceGrant", "grant", spec, namespace=namespace, version="v1beta1")


def backend_tls_policy(service_name: str, **fields: object) -> Document:
    """Return a BackendTLSPolicy: the Service proves to be `backend.test` by the ConfigMap `backend-ca`."""
    ref = {"group": "", "kind": "ConfigMap", "name": "backend-ca"}
    spec = {
        "targetRefs": [{"group": "", "kind": "Service", "name": service_name}],
        "validation": {"hostname": "backend.test", "caCertificateRefs": [ref], **fields},
    }
    return resource("BackendTLSPolicy", "policy", spec)


class Site:
    """A Gateway that serves; ports are those of its listeners, the offset is added here."""

    def __init__(self, envoy: RunningEnvoy, graph: Graph, problems: Sequence[Finding], address: str) -> None:
        self.envoy, self.graph, self.address = envoy, graph, address
        self.problems = problems
        """What reading the text found."""
        self.backends: dict[str, EchoBackend] = {}
        """The echo backends that `site` started, by the name of their Service."""
        self._clients = contextlib.AsyncExitStack()
        self._plain: dict[int, HttpClient] = {}

    def target(self, port: int = HTTP) -> Target:
        """Return where a listener's port is bound."""
        return self.address, port + OFFSET if port < 1024 else port

    async def request(self, method: str, path: str = "/", *, port: int = HTTP, **options: Any) -> Response:
        """Send a request over HTTP/1.1 on a kept connection."""
        if port not in self._plain:
            self._plain[port] = await self._clients.enter_async_context(HttpClient(self.target(port)))
        options.setdefault("host", "site.test")
        return await self._plain[port].request(method, path, **options)

    async def get(self, path: str = "/", **options: Any) -> Response:
        """Send a GET over HTTP/1.1 on a kept connection."""
        return await self.request("GET", path, **options)

    async def pods(self, number: int, path: str = "/", **options: Any) -> list[str]:
        """Return which backends (or `str(status)` without one) answered `number` requests."""
        answers = [await self.get(path, **options) for _ in range(number)]
        return [answer.pod if answer.status == 200 and answer.pod else str(answer.status) for answer in answers]

    async def fresh(
        self,
        path: str = "/",
        *,
        host: str,
        port: int = HTTPS,
        tls: ClientTls | None = None,
        http: HttpVersion = "1.1",
        headers: Headers = (),
    ) -> Response:
        """Send a GET on a connection of its own."""
        async with HttpClient(self.target(port), tls=tls, http=http) as client:
            return await client.get(path, host=host, headers=headers)

    async def raw(self, data: bytes, *, port: int = HTTP, within: float = 5.0) -> bytes:
        """Send these bytes and return all that comes until Envoy closes (ask it to)."""
        async with tcp(self.target(port), within=within) as (reader, writer), asyncio.timeout(within):
            writer.write(data)
            return await reader.read()

    def findings(self, code: str = "") -> list[Finding]:
        """Return the findings of the pipeline whose code begins like this."""
        rows = self.graph.rows(t.FINDINGS).values()
        return sorted((row for row in rows if row.code.startswith(code)), key=lambda row: row.sort_key)

    def status(self, kind: str, name: str = "route", namespace: str = "default") -> Any:
        """Return the resolved status of an object."""
        return self.graph.get(t.STATUSES, ObjectRef(kind, namespace, name))

    async def close(self) -> None:
        """Close kept connections."""
        await self._clients.aclose()


def evaluate(address: str, *documents: Manifest, mesh: bool = False) -> tuple[Graph, Sequence[Finding]]:
    """Return the committed pipeline of these objects, all Gateways bound to `address`, and what reading found."""
    batch, problems = read_text(manifest(*documents))
    batch[t.SETTINGS] = {t.SINGLE: Settings(mesh=mesh, loopback_endpoints=True)}
    graph = build_graph()
    graph.commit(batch)
    place = Binding(bind=address, addresses=(address,), port_offset=OFFSET)
    graph.commit({t.BINDINGS: dict.fromkeys(graph.rows(t.OUR_GATEWAYS), place)})
    assert not graph.faults, graph.faults
    return graph, problems


@contextlib.asynccontextmanager
async def serve(
    address: str, *documents: Manifest, name: str = "gw", namespace: str = "default"
) -> AsyncIterator[Site]:
    """Run one Gateway of these objects on a loopback address until the block ends."""
    graph, problems = evaluate(address, *documents)
    resources = [row for _key, row in graph.by(RESOURCES, "gateway", Key(namespace, name))]
    async with run_static(emit_static(resources)) as envoy:
        site = Site(envoy, graph, problems, address)
        try:
            yield site
        finally:
            await site.close()


@contextlib.asynccontextmanager
async def site(
    address: str, backends: Backends, *documents: Manifest, names: Iterable[str] = ("a", "b")
) -> AsyncIterator[Site]:
    """Run the Gateway `gw` of these objects beside Services of these names, each with an echo backend."""
    started = {name: await backends.echo(name) for name in names}
    services = [service(name, pod.address) for name, pod in started.items()]
    async with serve(address, *documents, services) as served:
        served.backends = started
        yield served


def to(name: str, *matches: Document, **rule: object) -> Document:
    """Return a rule that sends what matches (everything, without matches) to a Service."""
    return {"matches": list(matches) or [{}], "backendRefs": [{"name": name, "port": 80}], **rule}


def path(kind: str, value: str, **match: object) -> Document:
    """Return a match of a path."""
    return {"path": {"type": kind, "value": value}, **match}
