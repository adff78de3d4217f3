"""The world that is measured: one Gateway, and applications with a host name, a Service and an EndpointSlice each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from meshgw import names
from meshgw.api.decode import decode
from meshgw.api.meta import Key
from meshgw.engine import Table
from meshgw.ir.keys import BackendTarget, ResourceKey
from meshgw.pipeline import FACTS

NAMESPACE = "shop"
GATEWAY = Key(NAMESPACE, "edge")
PORT = 8080
"""Of the listener, not privileged: bound as it is."""

_GATEWAY_API = "gateway.networking.k8s.io/v1"

Document = dict[str, Any]
Batch = dict[Table[Any, Any], dict[Any, Any]]


def application(number: int) -> str:
    """Return the name of an application."""
    return f"app-{number:05d}"


def cluster(app: str) -> str:
    """Return the name of the cluster of an application, which is that of its endpoints too."""
    return BackendTarget("Service", NAMESPACE, app, 80).cluster


def resource_key(type_url: str, name: str) -> ResourceKey:
    """Return the key of a resource of the Gateway."""
    return ResourceKey(GATEWAY, type_url, name)


def gateway(*, listeners: int = 1, label: str = "", address: str = "") -> Document:
    """Return the Gateway; listeners beside the first are for hosts that no route names."""
    names = ["web", *(f"extra-{number}" for number in range(1, listeners))]
    spec: Document = {
        "gatewayClassName": "meshgw",
        "listeners": [
            {"name": name, "port": PORT, "protocol": "HTTP", **({} if name == "web" else {"hostname": f"{name}.test"})}
            for name in names
        ],
    }
    if address:
        spec["addresses"] = [{"type": "IPAddress", "value": address}]
    document = _document(_GATEWAY_API, "Gateway", GATEWAY.name, spec=spec, labels={"team": label} if label else {})
    document["metadata"]["generation"] = listeners  # an API server counts changes of the spec, and not those of labels
    return document


def route(app: str, *, path: str = "/v1") -> Document:
    """Return an HTTPRoute of realistic size: two matches, a header filter, timeouts. `path` is what edits change."""
    rule = {
        "matches": [
            {"path": {"type": "PathPrefix", "value": path}},
            {
                "path": {"type": "Exact", "value": "/status"},
                "headers": [{"name": "x-environment", "value": "production"}],
                "method": "GET",
            },
        ],
        "filters": [
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"set": [{"name": "x-application", "value": app}], "remove": ["x-debug"]},
            }
        ],
        "backendRefs": [{"name": app, "port": 80}],
        "timeouts": {"request": "10s", "backendRequest": "5s"},
    }
    spec = {"parentRefs": [{"name": GATEWAY.name}], "hostnames": [f"{app}.example.com"], "rules": [rule]}
    return _document(_GATEWAY_API, "HTTPRoute", app, spec=spec)


def service(app: str) -> Document:
    """Return the Service of an application."""
    spec = {"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return _document("v1", "Service", app, spec=spec, labels={"app": app})


def endpoint_slice(app: str, *, address: str = "127.0.0.1", port: int = 8080) -> Document:
    """Return the one slice of a Service."""
    document = _document(
        "discovery.k8s.io/v1", "EndpointSlice", f"{app}-1", labels={"kubernetes.io/service-name": app, "app": app}
    )
    ready = {"ready": True, "serving": True, "terminating": False}
    document["addressType"] = "IPv4"
    document["endpoints"] = [{"addresses": [address], "conditions": ready, "targetRef": {"kind": "Pod", "name": app}}]
    document["ports"] = [{"name": "http", "port": port, "protocol": "TCP"}]
    return document


def gateway_class() -> Document:
    """Return the class of the Gateway; the file loader knows it by itself."""
    document = _document(_GATEWAY_API, "GatewayClass", "meshgw")
    del document["metadata"]["namespace"]
    document["spec"] = {"controllerName": names.CONTROLLER_NAME}
    return document


def documents(size: int, *, port: int = 8080) -> Iterator[Document]:
    """Yield the whole world of `size` applications, whose endpoints are at a port of 127.0.0.1."""
    yield gateway_class()
    yield gateway()
    for number in range(size):
        app = application(number)
        yield from (route(app), service(app), endpoint_slice(app, port=port))


def batch_of(found: Iterator[Document] | tuple[Document, ...]) -> Batch:
    """Return documents as typed facts for the pipeline."""
    batch: Batch = {}
    for document in found:
        decoded = decode(document)
        assert decoded.object is not None, decoded.problems
        batch.setdefault(FACTS[decoded.ref.kind], {})[decoded.ref.key] = decoded.object
    return batch


class Folder:
    """The world as files: one for the Gateway, three for each application."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.paths = (str(path),)

    def fill(self, size: int, *, port: int, address: str) -> None:
        """Write everything; the Gateway is at an address, all endpoints are at a port of 127.0.0.1."""
        self.path.mkdir()
        self._write("gateway", gateway(address=address))
        for number in range(size):
            app = application(number)
            self.write_route(app, "/v1")
            self._write(f"{app}-service", service(app))
            self.write_endpoints(app, port)

    def write_route(self, app: str, path: str) -> str:
        """Write a route with another path; returns the file."""
        return self._write(f"{app}-route", route(app, path=path))

    def write_endpoints(self, app: str, port: int) -> str:
        """Write a slice with another endpoint; returns the file."""
        return self._write(f"{app}-endpoints", endpoint_slice(app, port=port))

    def _write(self, name: str, document: Mapping[str, Any]) -> str:
        file = self.path / f"{name}.yaml"
        file.write_text(block(document))
        return str(file)


def block(value: Any, indent: str = "") -> str:
    """Return plain values as block-style YAML, as people write it; scalars are JSON, which is YAML too."""
    if isinstance(value, Mapping) and value:
        return "".join(f"{indent}{key}:{_child(item, indent)}" for key, item in value.items())
    lines = (block(item, f"{indent}  ") if _nested(item) else f"{indent}  {json.dumps(item)}\n" for item in value)
    return "".join(f"{indent}- {line[len(indent) + 2 :]}" for line in lines)


def _child(value: Any, indent: str) -> str:
    return f"\n{block(value, indent + '  ')}" if _nested(value) else f" {json.dumps(value)}\n"


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping | list) and bool(value)


def _document(
    version: str, kind: str, name: str, *, spec: Document | None = None, labels: Mapping[str, str] | None = None
) -> Document:
    metadata: Document = {"name": name, "namespace": NAMESPACE}
    if labels:
        metadata["labels"] = dict(labels)
    document: Document = {"apiVersion": version, "kind": kind, "metadata": metadata}
    if spec is not None:
        document["spec"] = spec
    return document
