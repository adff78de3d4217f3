"""Older definitions of the Gateway API: former versions of kinds, kinds and fields that are not there yet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import crds
from tests.cluster.apiserver import ApiServer
from tests.cluster.controllers import GATEWAY_API, Controller, condition, run_controller
from tests.cluster.site import Site, accepted, backend, gateway, route, serves, settled
from tests.rig.addresses import free_ports, own_address
from tests.rig.backends import Backends
from tests.rig.certs import authority
from tests.rig.waiting import eventually

pytestmark = pytest.mark.timeout(300)

FORMER = {
    "gatewayclasses": "v1",
    "gateways": "v1",
    "httproutes": "v1",
    "referencegrants": "v1beta1",
    "tlsroutes": "v1alpha2",
    "backendtlspolicies": "v1alpha3",
}
"""The one version of each kind that an API server with the definitions of Gateway API v1.2 has; others it has not."""
UNKNOWN = {"gatewayclasses": "supportedFeatures", "gateways": "attachedListenerSets"}
"""Fields of statuses that came later."""


def older() -> Iterator[crds.Definition]:
    """Yield definitions as they were: what is there now with the names and the fields of then."""
    for definition in crds.gateway_api("standard"):
        plural = definition.path.rpartition("/")[2].partition(".")[0]
        if plural not in FORMER:
            continue
        document: dict[str, Any] = yaml.load(definition.text, Loader=yaml.CSafeLoader)
        newest = next(each for each in document["spec"]["versions"] if each["storage"])
        document["spec"]["versions"] = [newest | {"name": FORMER[plural], "served": True}]
        document["metadata"]["annotations"]["gateway.networking.k8s.io/bundle-version"] = "v1.2.1"
        if plural in UNKNOWN:
            del newest["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"][UNKNOWN[plural]]
        document.pop("status", None)
        yield crds.Definition(definition.path, json.dumps(document).encode())


async def test_older_definitions_are_served_as_far_as_they_go(
    start_apiserver: Callable[..., ApiServer], backends: Backends, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(start_apiserver)
    await asyncio.to_thread(lambda: server._install([*older()]))
    echo = await backends.echo("echo", host=own_address())
    (port,) = free_ports(1)
    async with run_controller(server, tmp_path, "older", "--no-mesh") as controller:
        site = Site(server, controller)
        edge = gateway(controller, "kept", port)
        edge["spec"]["listeners"].append(
            {"name": "tls", "port": port + 1, "protocol": "TLS", "tls": {"mode": "Passthrough"}}
        )
        bundle = {"name": "roots", "namespace": controller.name}
        ca = {"ca.crt": authority().root.decode()}
        await site.apply(
            edge,
            *backend(controller, echo),
            route(controller, "edited", ["kept"], "/kept"),
            tls_route(controller.name),
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": bundle, "data": ca},
            *secured(controller),
        )
        await eventually(lambda: site.has_objects("kept"), what="the objects", within=15)
        for kind, field in (("tlsroute", "parents"), ("backendtlspolicy", "ancestors")):
            said = says(site, kind, field)
            await eventually(said, what=f"the status of a {kind}", within=20)
        async with site.envoy("kept"):
            await eventually(lambda: serves(port, "/kept"), what="it serves", within=20)
            # What the API server does not keep of a status is not written again and again.
            before = await settled(controller)
            for number in range(3):
                await site.apply(route(controller, "edited", ["kept"], f"/{number}"))
                await eventually(lambda: accepted(site, "edited"), what="the status of an edit", within=15)
                await eventually(lambda number=number: serves(port, f"/{number}"), what="the edit", within=10)
            assert await settled(controller) == before + 3, controller.log()
        assert "supportedFeatures" not in (await site.get("gatewayclass", controller.class_()))["status"]
        assert "attachedListenerSets" not in (await site.get("gateway", "kept"))["status"]


def says(site: Site, kind: str, field: str) -> Callable[[], Any]:
    async def is_accepted() -> bool:
        found = (await site.get(kind, "former")).get("status", {}).get(field, ())
        assert [condition({"status": entry}, "Accepted")[0] for entry in found] == ["True"], found
        return True

    return is_accepted


def tls_route(namespace: str) -> dict[str, Any]:
    spec = {
        "parentRefs": [{"name": "kept", "sectionName": "tls"}],
        "hostnames": ["a.example.com"],
        "rules": [{"backendRefs": [{"name": "echo", "port": 80}]}],
    }
    metadata = {"name": "former", "namespace": namespace}
    version = GATEWAY_API.replace("v1", FORMER["tlsroutes"])
    return {"apiVersion": version, "kind": "TLSRoute", "metadata": metadata, "spec": spec}


def secured(controller: Controller) -> list[dict[str, Any]]:
    """Return a Service that is spoken to by TLS, the policy that says so, and a route to it."""
    metadata = {"name": "former", "namespace": controller.name}
    references = [{"group": "", "kind": "ConfigMap", "name": "roots"}]
    spec = {
        "targetRefs": [{"group": "", "kind": "Service", "name": "former"}],
        "validation": {"hostname": "echo.example.com", "caCertificateRefs": references},
    }
    version = GATEWAY_API.replace("v1", FORMER["backendtlspolicies"])
    to_it = route(controller, "secured", ["kept"], "/secured")
    to_it["spec"]["rules"][0]["backendRefs"] = [{"name": "former", "port": 80}]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}},
        {"apiVersion": version, "kind": "BackendTLSPolicy", "metadata": metadata, "spec": spec},
        to_it,
    ]
