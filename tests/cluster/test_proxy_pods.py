"""The pods of a Gateway on a real node: what a kubelet makes of their security, files, probes and hook."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import msgspec
import pytest

from meshgw.api.meta import Key
from meshgw.emit.tables import PROXY_OBJECTS
from tests.cluster.cluster import Cluster
from tests.cluster.images import ENVOY
from tests.rig.certs import CertificateAuthority, authority
from tests.rig.discovery import Discovery
from tests.rig.waiting import eventually
from tests.unit.emit.deployed import deploy, gateway, parameters

pytestmark = pytest.mark.timeout(300)

DRAIN_SECONDS = 4


class Proxy:
    """The deployed proxy of one Gateway, and the discovery service that it found."""

    def __init__(self, cluster: Cluster, space: str, server: Discovery) -> None:
        self.cluster = cluster
        self.space = space
        self.server = server

    async def pods(self) -> dict[str, str]:
        """Names and addresses of its pods."""
        items = (await asyncio.to_thread(self.cluster.get, "-n", self.space, "pods"))["items"]
        return {item["metadata"]["name"]: item["status"].get("podIP", "") for item in items}

    async def status(self, address: str, path: str, port: int = 15021) -> int:
        """The status of an answer, 0 if nobody answers."""
        return await asyncio.to_thread(self._status, address, path, port)

    def _status(self, address: str, path: str, port: int) -> int:
        host, reached = self.cluster.reach(address, port)
        try:
            with urllib.request.urlopen(f"http://{host}:{reached}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


@contextlib.asynccontextmanager
async def deployed(cluster: Cluster, ca: CertificateAuthority) -> AsyncIterator[Proxy]:
    """Deploy a Gateway's proxy in a namespace that forbids all that the restricted standard does."""
    host = cluster.host
    async with Discovery(ca.issue(ips=[host]), host=host) as server:
        settings = {"xds_address": f"{host}:{server.port}", "xds_roots": ca.root.decode()}
        spec = f"{{service: {{type: ClusterIP}}, envoy: {{drainSeconds: {DRAIN_SECONDS}}}}}"
        world = deploy(gateway(own=True).replace("uid: uid-of-gw, ", ""), parameters(spec), **settings)
        rows = world.graph.by(PROXY_OBJECTS, "gateway", Key("default", "gw"))
        space = "restricted-proxies"
        await asyncio.to_thread(cluster.provide, ENVOY)
        await asyncio.to_thread(
            cluster.create_namespace, space, **{"pod-security.kubernetes.io__enforce": "restricted"}
        )
        objects = [msgspec.json.decode(row.body) for _ref, row in rows]
        for item in objects:
            item["metadata"]["namespace"] = space
        await asyncio.to_thread(cluster.apply, *objects)
        try:
            await asyncio.to_thread(cluster.wait_deployed, space, "gw-meshgw")
            yield Proxy(cluster, space, server)
        finally:
            await asyncio.to_thread(cluster.kubectl, "delete", "namespace", space, "--wait=false")


async def test_a_node_runs_what_is_deployed(cluster: Cluster) -> None:
    async with deployed(cluster, authority("discovery on a node")) as proxy:
        ((name, address),) = (await proxy.pods()).items()
        # who it is
        assert proxy.server.nodes[0] == f"{proxy.space}/gw/{name}"
        token = proxy.server.callers[0].removeprefix("Bearer ")
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": ["meshgw"]},
        }
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        _status, body = await asyncio.to_thread(cluster.request, "POST", path, review)
        answer = json.loads(body)["status"]
        assert answer["authenticated"] is True
        assert answer["user"]["username"] == f"system:serviceaccount:{proxy.space}:gw-meshgw"
        # what it answers
        assert await proxy.status(address, "/healthz/ready") == 200
        assert await proxy.status(address, "/stats/prometheus", port=15020) == 200
        # how it ends
        clock = asyncio.get_running_loop().time
        start = clock()
        await asyncio.to_thread(cluster.kubectl, "-n", proxy.space, "delete", "pod", name, "--wait=false")

        async def leaving() -> bool:
            return await proxy.status(address, "/healthz/ready") == 503

        await eventually(leaving, what="the pod drains", within=DRAIN_SECONDS)
        assert await proxy.status(address, "/healthz/live") == 200

        async def gone() -> bool:
            return name not in await proxy.pods()

        await eventually(gone, what="the pod is gone", within=30, interval=0.1)
        assert DRAIN_SECONDS <= clock() - start < DRAIN_SECONDS + 10
        events = await asyncio.to_thread(cluster.get, "-n", proxy.space, "events")
        assert [event["message"] for event in events["items"] if event["reason"] == "FailedPreStopHook"] == []
