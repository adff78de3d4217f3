"""A bug that one object brings to light, at a real API server: it costs that object, and nobody else."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

import pytest

from meshgw import features
from meshgw.api.meta import Key
from meshgw.cluster.application import Application
from meshgw.cluster.scope import Scope
from meshgw.config import ClusterSettings, IstioSettings
from meshgw.kube.client import KubeSettings, connect
from meshgw.resolve import tables as t
from meshgw.resolve.authorization import WORKLOADS_OF
from tests.cluster.apiserver import ApiServer
from tests.cluster.controllers import GATEWAY_API, Controller, condition
from tests.rig.addresses import free_ports
from tests.rig.waiting import eventually
from tests.unit.poison import poisonous


async def test_an_object_that_no_commit_gets_past_does_not_end_the_controller(
    apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "FEATURES", (poisonous(t.HTTP_ROUTES), *features.FEATURES))
    installation = Controller(apiserver, tmp_path, "poisoned")
    await asyncio.to_thread(installation.prepare)

    def edge(name: str) -> dict[str, Any]:
        listener = {"name": "http", "port": 80, "protocol": "HTTP"}
        spec = {"gatewayClassName": installation.class_(), "listeners": [listener]}
        metadata = {"name": name, "namespace": "poisoned"}
        return {"apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": metadata, "spec": spec}

    def route(name: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "poisoned"}
        return {
            "apiVersion": GATEWAY_API,
            "kind": "HTTPRoute",
            "metadata": metadata,
            "spec": {"parentRefs": [{"name": "edge"}]},
        }

    async def told(name: str) -> str:
        found = await asyncio.to_thread(apiserver.get, "-n", "poisoned", "httproute", name)
        parents = found.get("status", {}).get("parents", ())
        return condition({"status": parents[0]}, "Accepted")[0] if parents else ""

    async def events() -> list[tuple[str, str]]:
        found = await asyncio.to_thread(apiserver.get, "-n", "poisoned", "events.events.k8s.io")
        return [(each["regarding"]["name"], each["reason"]) for each in found["items"] if each["regarding"]["uid"]]

    root = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "poisoned-root"}}
    ref = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": installation.class_()}
    everywhere = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "everywhere", "namespace": "poisoned-root"},
        "spec": {"action": "DENY", "targetRefs": [ref], "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}]},
    }
    await asyncio.to_thread(apiserver.apply, root)
    await asyncio.to_thread(apiserver.apply, edge("edge"), route("poison"), everywhere)
    listens = [f"127.0.0.1:{port}" for port in free_ports(3)]
    settings = ClusterSettings(
        namespaces=("poisoned",),
        home="poisoned",
        controller_name=installation.controller_name,
        istio=IstioSettings(root_namespace="poisoned-root", istiod="127.0.0.1:1"),
        xds_listen=listens[0],
        xds_address=listens[0],
        health_listen=listens[1],
        metrics_listen=listens[2],
        proxies_listen="127.0.0.1:0",
        shutdown_delay=0,
    )
    stop = asyncio.Event()
    async with connect(KubeSettings(kubeconfig=str(apiserver.kubeconfig))) as client, asyncio.TaskGroup() as tasks:
        application = Application(settings, Scope(namespaces=settings.namespaces), client)
        running = tasks.create_task(application.run(stop))
        await eventually(application.ready.is_set, what="it serves, though the first commit met the object", within=30)
        graph = application.control.graph
        authorization = graph.rows(t.AUTHORIZATIONS)[Key("poisoned", "edge"), WORKLOADS_OF]
        assert [policy.key.name for policy in authorization.policies] == ["everywhere"], "it holds from its namespace"
        await asyncio.to_thread(apiserver.apply, route("first"))
        await eventually(functools.partial(_is, told, "first", "True"), what="others are told", within=15)
        assert await told("poison") == ""
        expected = ("poison", "InternalError")
        await eventually(functools.partial(_holds, events, expected), what="an Event says so", within=15)
        assert "HTTPRoute poisoned/poison" in {str(found.object) for found in application.findings()}
        assert not running.done()
        stop.set()


async def _is(ask: Any, name: str, wanted: str) -> bool:
    return bool(await ask(name) == wanted)


async def _holds(ask: Any, wanted: tuple[str, str]) -> bool:
    return wanted in await ask()
