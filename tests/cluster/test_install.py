"""An installation as users make it: the image, the manifests, a waypoint, and what the commands say of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from meshgw.install.rules import WRITTEN, Reach, rules
from meshgw.pipeline import list_kinds
from tests.cluster import controller_image
from tests.cluster.access import KubectlError
from tests.cluster.audit import read_audit
from tests.cluster.cluster import Cluster
from tests.cluster.istiod import Istiod
from tests.cluster.local import LocalCluster
from tests.cluster.processes import wait_until
from tests.unit.xds.peers import Proxy, open_channel
from tests.unit.xds.playbook import CDS, subscribe

MANIFESTS = Path(__file__).parents[2] / "manifests"
WALK = MANIFESTS / "examples" / "walk"
HOME = "meshgw-system"
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def installed(cluster: Cluster, istiod: Istiod) -> Iterator[Cluster]:
    """The cluster with meshgw in it, and the walk's application behind a waypoint."""
    del istiod
    _forget_others(cluster)
    cluster.provide(controller_image.NAME)
    try:
        cluster.apply(cluster.kubectl("kustomize", MANIFESTS / "overlays" / "kind"))
        cluster.wait_deployed(HOME, "meshgw", within=120)
        cluster.apply(WALK / "shop.yaml", WALK / "waypoint.yaml")
        cluster.kubectl(
            "-n", "shop", "wait", "gateway/waypoint", "--for=condition=Programmed", "--timeout=90s", within=100
        )
        cluster.kubectl("-n", "shop", "label", "service", "shop", "istio.io/use-waypoint=waypoint")
        yield cluster
    except KubectlError as error:
        pytest.fail(f"{error}\n{_account(cluster)}")
    finally:
        cluster.kubectl("delete", "namespace", "shop", "--ignore-not-found", "--wait=false")
        # Nobody calls any more for whom a proxy would have to linger.
        cluster.kubectl("-n", "shop", "delete", "pods", "--all", "--force", "--grace-period=0")
        cluster.kubectl("delete", "namespace", "shop", "--ignore-not-found", within=120)
        cluster.kubectl("delete", "-k", MANIFESTS / "overlays" / "kind", "--ignore-not-found", within=120)


def _forget_others(cluster: Cluster) -> None:
    """Remove the Gateways of controllers that ended with other tests: the check tells of every proxy without one."""
    selector = ("--all-namespaces", "-l", GATEWAY_NAME)
    cluster.kubectl("delete", "gateways", "--all", "--all-namespaces")
    wait_until(lambda: not cluster.get(*selector, "replicasets")["items"], what="their proxies go", within=60)
    cluster.kubectl("delete", "pods", *selector, "--force", "--grace-period=0")


def _account(cluster: Cluster) -> str:
    """What people would look at when it does not come up."""
    parts = []
    for command in (
        ["-n", HOME, "get", "pods", "-o", "wide"],
        ["-n", HOME, "logs", "deployment/meshgw", "--tail=40"],
        ["-n", "shop", "get", "pods,gateways,events"],
    ):
        try:
            parts.append(cluster.kubectl(*command))
        except KubectlError as error:
            parts.append(str(error))
    return "\n".join(parts)


def meshgw(cluster: Cluster, *arguments: str) -> tuple[int, Any]:
    """Exit code and document of a command, as a person runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "meshgw", *arguments, "--kubeconfig", cluster.kubeconfig, "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KUBECONFIG": ""},
        timeout=100,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def waypoint_pod(cluster: Cluster) -> str:
    selector = f"{GATEWAY_NAME}=waypoint"
    (pod,) = cluster.get("-n", "shop", "pods", "-l", selector, "--field-selector=status.phase=Running")["items"]
    return str(pod["metadata"]["name"])


@pytest.mark.smoke
def test_the_check_finds_nothing_wrong(installed: Cluster) -> None:
    try:
        wait_until(lambda: meshgw(installed, "check")[0] == 0, what="the check finds nothing wrong", within=60)
    except TimeoutError:
        assert [row for row in meshgw(installed, "check")[1] if row["state"] != "ok"] == []
    code, rows = meshgw(installed, "check", "--cluster-wide-secrets")
    assert (code, {row["name"]: row["state"] for row in rows if row["state"] != "ok"}) == (0, {})
    (leader,) = (row["message"] for row in rows if row["name"] == "leader")
    assert leader.startswith("meshgw-")


def test_every_replica_tells_of_its_proxies(installed: Cluster) -> None:
    pod = waypoint_pod(installed)

    def synced() -> bool:
        code, rows = meshgw(installed, "proxy", "list")
        return code == 0 and [row["name"] for row in rows if row["cds"].startswith("synced")] == [pod]

    wait_until(synced, what="the waypoint's proxy is in sync", within=30)
    _code, (row,) = meshgw(installed, "proxy", "list")
    assert (row["gateway"], row["complaint"]) == ("shop/waypoint", "-")


@pytest.mark.smoke
def test_what_the_proxy_runs_is_shown_with_its_origin(installed: Cluster) -> None:
    pod = waypoint_pod(installed)

    def served() -> bool:
        rows = meshgw(installed, "proxy", "config", pod, "listeners", "-n", "shop")[1]
        return any(row["origin"] == "Service shop/shop" for row in rows)

    wait_until(served, what="the Service is behind the waypoint", within=30)
    for section in ("routes", "clusters", "endpoints"):
        code, rows = meshgw(installed, "proxy", "config", pod, section, "-n", "shop")
        assert (code, any(row["origin"] == "Service shop/shop" for row in rows)) == (0, True), section
    code, secrets = meshgw(installed, "proxy", "config", pod, "secrets", "-n", "shop")
    assert code == 0
    (own,) = (row for row in secrets if row["name"] == "default")
    assert own["state"] == "active"
    assert own["subject"].startswith("spiffe://cluster.local/ns/shop/sa/waypoint")
    assert "PRIVATE" not in json.dumps(secrets)


def test_who_asks_for_what_is_not_there_is_told_so(installed: Cluster) -> None:
    rows = meshgw(installed, "proxy", "config", waypoint_pod(installed), "listeners", "-n", "shop")[1]
    assert {row["origin"] for row in rows} >= {"Gateway shop/waypoint", "Service shop/shop"}
    missing = "error: there is no pod shop/gone; see -n, and `meshgw proxy list`\n"
    assert meshgw(installed, "proxy", "config", "gone", "routes", "-n", "shop") == (3, missing)
    (shop, *_) = installed.get("-n", "shop", "pods", "-l", "app=shop")["items"]
    code, said = meshgw(installed, "proxy", "config", shop["metadata"]["name"], "routes", "-n", "shop")
    assert (code, "is it a running proxy of a Gateway?" in said) == (3, True), said
    installed.kubectl("-n", "shop", "run", "waiting", "--image=registry.invalid/none:1", "--image-pull-policy=Never")
    code, said = meshgw(installed, "proxy", "config", "waiting", "routes", "-n", "shop")
    assert (code, said.count("\n"), "Traceback" in said) == (3, 1, False), said


def used(cluster: LocalCluster) -> dict[tuple[str, str, str], set[int]]:
    """What the controller asked the API server for: group, resource and verb, with the statuses of the answers."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for event in read_audit(cluster.folder / "audit.log"):
        if event["user"]["username"] == f"system:serviceaccount:{HOME}:meshgw" and "objectRef" in event:
            ref = event["objectRef"]
            resource = "/".join(part for part in (ref.get("resource", ""), ref.get("subresource", "")) if part)
            key = (ref.get("apiGroup", ""), resource, event["verb"])
            found.setdefault(key, set()).add(event.get("responseStatus", {}).get("code", 0))
    return found


def test_permissions_are_those_that_are_used(installed: Cluster) -> None:
    """By the audit log: nothing was refused, the rules say all that was used, and what was not used has a reason."""
    if not isinstance(installed, LocalCluster):
        pytest.skip("only a local cluster lets its audit log be read")
    asked = used(installed)
    refused = {key for key, codes in asked.items() if 403 in codes}
    assert refused == set()
    granted = {
        (rule.group, resource, verb)
        for reach in Reach
        for rule in rules(reach, list_kinds().kinds)
        for resource in rule.resources
        for verb in rule.verbs
    }
    assert set(asked) - granted == set()
    unused = granted - set(asked)
    assert sorted(need for need in unused if not may_be_unused(*need)) == []


def may_be_unused(group: str, resource: str, verb: str) -> bool:
    """Whether this installation has no need of it, and another one has."""
    if verb == "list":
        return True  # an API server that streams lists is asked to watch; others are asked to list
    if verb == "create" and (group, resource) in WRITTEN:
        return True  # of what an apply makes the log says "patch", but only who may create may do so
    if verb == "delete":
        return True  # nothing has been taken away yet
    if resource.partition("/")[0] in {"daemonsets", "horizontalpodautoscalers", "poddisruptionbudgets"}:
        return verb != "watch"  # a proxy of one replica has none
    if resource.endswith("/status"):
        return resource not in {"gateways/status", "gatewayclasses/status"}  # there are no routes
    return (resource, verb) in {
        ("events", "create"),  # nothing has gone wrong
        ("events", "patch"),
        ("secrets", "update"),  # no root is old enough to be followed by another
        ("customresourcedefinitions", "get"),
        ("configmaps", "get"),
        ("serviceaccounts", "get"),
    }


def test_the_controller_runs_as_the_image_says(installed: Cluster) -> None:
    said = installed.kubectl("-n", HOME, "exec", "deployment/meshgw", "--", "/usr/bin/meshgw", "version", "-o", "json")
    assert json.loads(said)["meshgw"] == controller_image.NAME.rpartition(":")[2]
    (pod,) = installed.get("-n", HOME, "pods", "-l", "app.kubernetes.io/component=controller")["items"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


@pytest.mark.smoke
async def test_the_controller_configures_the_pods_of_a_gateway_and_nobody_else(installed: Cluster) -> None:
    """By what is served at the controller's Service to who dials it with a token of a pod, or with none of one."""
    pod = await asyncio.to_thread(waypoint_pod, installed)
    document = await asyncio.to_thread(installed.get, "-n", "shop", "pod", pod)
    account, uid = document["spec"]["serviceAccountName"], document["metadata"]["uid"]
    config = await asyncio.to_thread(installed.get, "-n", "shop", "configmap", account)
    service = await asyncio.to_thread(installed.get, "-n", HOME, "service", "meshgw")
    host, port = installed.reach(service["spec"]["clusterIP"], 18000)

    async def token(audience: str, *, bound: bool) -> str:
        spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": 3600}
        if bound:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/shop/serviceaccounts/{account}/token"
        status, answer = await asyncio.to_thread(installed.request, "POST", path, body)
        assert status == 201, answer
        return str(json.loads(answer)["status"]["token"])

    async def outcome(bearer: str | None, gateway: str = "waypoint") -> object:
        metadata = [("authorization", f"Bearer {bearer}")] if bearer else []
        async with open_channel(f"{host}:{port}", config["data"]["ca.crt"].encode()) as channel:
            proxy = Proxy(channel, metadata=metadata)
            try:
                await proxy.call.write(subscribe(CDS, node_id=f"shop/{gateway}/{pod}").SerializeToString())
                async with asyncio.timeout(20):
                    answer = await proxy.call.read()
                return grpc.StatusCode.OK if isinstance(answer, bytes) else await proxy.call.code()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return await proxy.call.code()
            finally:
                proxy.call.cancel()

    own = await token("meshgw", bound=True)
    assert await outcome(own) is grpc.StatusCode.OK
    assert await outcome(own, "another") is grpc.StatusCode.PERMISSION_DENIED
    for other in (None, "garbage", await token("istio-ca", bound=True)):
        assert await outcome(other) is grpc.StatusCode.UNAUTHENTICATED
    assert await outcome(await token("meshgw", bound=False)) in {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
