"""What a cluster would be given for some YAML: the objects of proxies, by the whole pipeline."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from meshgw.api.meta import Key
from meshgw.emit.tables import PROXY_OBJECTS
from meshgw.engine import Graph
from meshgw.ir.gateway import Settings
from meshgw.ir.proxy import ProxyPlan
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from meshgw.standalone.facts import read_text

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, uid: uid-of-{name}, labels: {labels}}}
spec:
  gatewayClassName: {class_name}
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
{extra}
---
"""
REF = "{group: meshgw.dev, kind: GatewayParameters, name: own}"


def gateway(
    name: str = "gw",
    *,
    class_name: str = "meshgw",
    labels: str = "{}",
    port: int = 80,
    extra: str = "",
    own: bool = False,
) -> str:
    """A Gateway; with `own` it names the GatewayParameters of `parameters`."""
    if own:
        extra = f"  infrastructure: {{parametersRef: {REF}}}"
    return GATEWAY.format(name=name, class_name=class_name, labels=labels, port=port, extra=extra)


def waypoint(**options: Any) -> str:
    return gateway(class_name="meshgw-waypoint", **options).replace("protocol: HTTP", "protocol: HBONE")


def parameters(spec: str, name: str = "own", namespace: str = "default") -> str:
    return f"""
apiVersion: meshgw.dev/v1alpha1
kind: GatewayParameters
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
---
"""


def gateway_class(name: str = "mine", parameters: str = "{namespace: infra, name: all}", labels: str = "{}") -> str:
    ref = parameters.replace("{", "{group: meshgw.dev, kind: GatewayParameters, ", 1)
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: {name}, labels: {labels}}}
spec: {{controllerName: meshgw.dev/gateway-controller, parametersRef: {ref}}}
---
"""


class Deployed:
    """A committed pipeline; `put` and `remove` commit changes."""

    def __init__(self, *texts: str, **settings: Any) -> None:
        self.graph: Graph = build_graph()
        self._commit({t.SETTINGS: {t.SINGLE: Settings(**{"deploys": True, "mesh": True, **settings})}})
        self.put(*texts)

    def put(self, *texts: str) -> None:
        facts, problems = read_text("---\n".join(texts))
        assert problems == ()
        self._commit(facts)

    def remove(self, table: Any, name: str, namespace: str = "default") -> None:
        self._commit({table: {Key(namespace, name): None}})

    def remember(self, name: str) -> None:
        """Keep a class in mind as the controller does."""
        self._commit({t.REMEMBERED_CLASSES: {name: self.graph.rows(t.CLASSES)[name]}})

    def _commit(self, batch: Any) -> None:
        assert self.graph.commit(batch).faults == ()

    def plan(self, name: str = "gw") -> ProxyPlan:
        return self.graph.rows(t.PROXY_PLANS)[Key("default", name)]

    def objects(self, name: str = "gw") -> dict[str, Any]:
        """The objects of a Gateway by kind."""
        rows = self.graph.by(PROXY_OBJECTS, "gateway", Key("default", name))
        return {ref.kind: msgspec.json.decode(row.body) for ref, row in rows}

    def pod(self) -> Any:
        """The template of the pods of `gw`."""
        found = self.objects()
        return found.get("Deployment", found.get("DaemonSet"))["spec"]["template"]

    def container(self) -> Any:
        return self.pod()["spec"]["containers"][0]

    def arguments(self) -> dict[str, str]:
        """The options of Envoy's command line that have values."""
        args = self.container()["args"]
        return {name: value for name, value in itertools.pairwise(args) if name.startswith("--")}


def deploy(*texts: str, **settings: Any) -> Deployed:
    return Deployed(*texts, **settings)


def deploy_with(spec: str, **settings: Any) -> Deployed:
    """One Gateway with parameters of its own."""
    return Deployed(gateway(own=True), parameters(spec), **settings)
