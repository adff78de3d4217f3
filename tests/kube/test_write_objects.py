"""Objects of proxies at a real API server: applied, corrected, removed, and never anybody else's."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest

from meshgw.api.meta import Key, ObjectRef
from meshgw.emit.tables import ProxyObject
from meshgw.ir.proxy import Deploying, ProxyPlan
from meshgw.kube.client import MERGE_PATCH, ApiError, Client, KubeSettings, connect, path_of
from meshgw.kube.reflector import Reflector
from meshgw.write.objects import ObjectWriter
from meshgw.write.workload import PROXY_KINDS, SELECTOR, Problem
from tests.cluster.apiserver import ApiServer
from tests.kube.following import kind_of
from tests.rig.waiting import eventually
from tests.unit.write.parts import hold_while

KINDS = {kind.name: kind for kind in PROXY_KINDS}
NAME = "gw-meshgw"
POD = {"app": "gw"}


class Deployed:
    """A Gateway and a writer of its objects."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.gateway = Key(namespace, "gw")
        self.uid = ""
        self.outcomes: Counter[str] = Counter()
        self.verbs: Counter[tuple[str, str]] = Counter()
        self.problems: list[Problem] = []
        self.writer = ObjectWriter(
            client,
            controller="meshgw.dev/this",
            home="meshgw-system",
            hold=hold_while(lambda: True),
            report=self.report,
            observer=self,
        )

    def report(self, gateway: Key, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)

    def turn_ended(self, queue: str, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def queue_waits(self, queue: str, keys: int) -> None:
        pass

    def wrote(self, kind: str, verb: str) -> None:
        self.verbs[kind, verb] += 1

    async def make_gateway(self) -> None:
        kind = kind_of("Gateway")
        listener = {"name": "http", "port": 80, "protocol": "HTTP"}
        body = {
            "apiVersion": kind.api_version,
            "kind": "Gateway",
            "metadata": {"name": "gw", "namespace": self.namespace},
            "spec": {"gatewayClassName": "meshgw", "listeners": [listener]},
        }
        answer = await self.client.request("POST", path_of(kind, namespace=self.namespace), body=encode(body))
        self.uid = msgspec.json.decode(answer)["metadata"]["uid"]
        self.plan(Deploying.MANAGED)

    def plan(self, deploying: Deploying | None) -> None:
        plan = deploying and ProxyPlan(gateway=self.gateway, name=NAME, deploying=deploying, uid=self.uid)
        self.writer.desire({}, {self.gateway: plan})

    def ref(self, kind: str) -> ObjectRef:
        return ObjectRef(kind, self.namespace, NAME)

    def want(self, kind: str, **fields: Any) -> None:
        api_version = KINDS[kind].api_version
        body = {"apiVersion": api_version, "kind": kind, "metadata": self.metadata(), **fields}
        row = ProxyObject(gateway=self.gateway, api_version=api_version, body=encode(body))
        self.writer.desire({self.ref(kind): row}, {})

    async def want_account(self) -> None:
        """Make what workloads run as, and wait until it is seen."""
        self.want("ServiceAccount", **SPECS["ServiceAccount"])
        await eventually(lambda: self.outcomes["written"] == 1, within=10)

    def metadata(self) -> dict[str, Any]:
        owner = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "gw", "uid": self.uid}
        return {
            "name": NAME,
            "namespace": self.namespace,
            "labels": {"app.kubernetes.io/managed-by": "meshgw", "team": "edge"},
            "ownerReferences": [owner | {"controller": True}],
        }

    def want_nothing(self, kind: str) -> None:
        self.writer.desire({self.ref(kind): None}, {})

    def path(self, kind: str, subresource: str = "") -> str:
        return path_of(KINDS[kind], Key(self.namespace, NAME), subresource=subresource)

    async def read(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(await self.client.request("GET", self.path(kind)))
        return found

    async def look(self, kind: str) -> dict[str, Any] | None:
        try:
            return await self.read(kind)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    async def exists(self, kind: str) -> bool:
        return await self.look(kind) is not None

    async def patch(self, kind: str, subresource: str = "", **fields: Any) -> None:
        path = self.path(kind, subresource)
        await self.client.request("PATCH", path, body=encode(fields), content_type=MERGE_PATCH)

    async def delete(self, kind: str) -> None:
        await self.client.request("DELETE", self.path(kind))

    async def becomes(self, check: Callable[[dict[str, Any]], Any], kind: str = "Deployment") -> None:
        async def holds() -> bool:
            there = await self.look(kind)
            return there is not None and bool(check(there))

        await eventually(holds, within=10)

    async def has_problem(self, reason: str, *words: str) -> None:
        await eventually(lambda: [problem.reason for problem in self.problems] == [reason], within=10)
        assert all(word in self.problems[0].message for word in words), self.problems

    async def is_quiet(self) -> None:
        """Wait until for more than a second nothing is written: each change may be heard of twice, and no more."""
        for _ in range(5):
            await eventually(lambda: not len(self.writer.queue), within=10)
            before = self.verbs.total()
            await asyncio.sleep(1.5)
            if self.verbs.total() == before:
                return
        pytest.fail(f"it goes on: {self.verbs}")


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def deployment(**more: Any) -> dict[str, Any]:
    container = {"name": "proxy", "image": "envoy", "ports": [{"containerPort": 8080}]}
    template = {"metadata": {"labels": POD}, "spec": {"containers": [container]}}
    return {"replicas": 2, "selector": {"matchLabels": POD}, "template": template} | more


SPECS: dict[str, dict[str, Any]] = {
    "ServiceAccount": {"automountServiceAccountToken": False},
    "ConfigMap": {"data": {"bootstrap.yaml": "a: b"}},
    "Service": {"spec": {"selector": POD, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}},
    "Deployment": {"spec": deployment()},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": POD}}},
    "HorizontalPodAutoscaler": {
        "spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                }
            ],
        }
    },
    "DaemonSet": {"spec": {name: value for name, value in deployment().items() if name != "replicas"}},
}


@contextlib.asynccontextmanager
async def deploying(client: Client, namespace: str) -> AsyncIterator[Deployed]:
    found = Deployed(client, namespace)
    await found.make_gateway()
    async with asyncio.TaskGroup() as tasks:
        reflectors = [
            Reflector(client, kind, found.writer.observe, namespace=namespace, label_selector=SELECTOR)
            for kind in PROXY_KINDS
        ]
        running = [tasks.create_task(reflector.run()) for reflector in reflectors]
        for reflector in reflectors:
            await asyncio.wait_for(reflector.synced.wait(), 10)
        running.append(tasks.create_task(found.writer.run()))
        try:
            yield found
        finally:
            for task in running:
                task.cancel()


async def test_objects_of_every_kind_are_made_kept_and_removed(client: Client, space: str) -> None:
    assert set(SPECS) == set(KINDS)
    async with deploying(client, space) as found:
        for kind, fields in SPECS.items():
            found.want(kind, **fields)
        await eventually(lambda: found.outcomes["written"] == len(SPECS), within=10)
        await found.is_quiet()
        assert found.problems == []
        assert found.verbs == Counter({(kind, "apply"): 1 for kind in KINDS})
        for kind in KINDS:
            metadata = (await found.read(kind))["metadata"]
            assert metadata["ownerReferences"][0]["uid"] == found.uid
            assert [entry["manager"] for entry in metadata["managedFields"]] == ["meshgw"]
        for kind in KINDS:
            found.want_nothing(kind)
        for kind in KINDS:
            await eventually(lambda kind=kind: _gone(found, kind), within=10)
        assert {verb for _kind, verb in found.verbs} == {"apply", "delete"}
        await eventually(lambda: not found.writer._objects, within=10)


async def _gone(found: Deployed, kind: str) -> bool:
    return not await found.exists(kind)


async def test_drift_is_corrected_and_the_rest_is_left(client: Client, space: str) -> None:
    async with deploying(client, space) as found:
        await found.want_account()
        found.want("Deployment", **SPECS["Deployment"])
        found.want("ConfigMap", **SPECS["ConfigMap"])
        found.want("Service", **SPECS["Service"])
        await eventually(lambda: found.outcomes["written"] == 4, within=10)

        await found.patch("Deployment", spec={"replicas": 0})
        await found.becomes(lambda it: it["spec"]["replicas"] == 2)
        await found.patch("Deployment", metadata={"labels": {"team": "evil"}})
        await found.becomes(lambda it: it["metadata"]["labels"]["team"] == "edge")
        await found.patch("ConfigMap", data={"bootstrap.yaml": "evil"})
        await found.becomes(lambda it: it["data"]["bootstrap.yaml"] == "a: b", "ConfigMap")
        await found.patch("Service", spec={"selector": {"app": "evil"}})
        await found.becomes(lambda it: it["spec"]["selector"] == POD, "Service")
        await found.delete("ConfigMap")
        await found.becomes(lambda it: it["data"], "ConfigMap")
        # Without our label it is not seen any more, and yet it is ours.
        await found.patch("Deployment", metadata={"labels": {"app.kubernetes.io/managed-by": None}})
        await found.becomes(lambda it: it["metadata"]["labels"].get("app.kubernetes.io/managed-by") == "meshgw")
        await found.is_quiet()

        # What we say nothing about is anybody's.
        await found.patch("Deployment", metadata={"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}})
        await found.is_quiet()
        assert (await found.read("Deployment"))["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] == "now"
        before = found.verbs.total()
        for ready in range(1, 20):
            await found.patch("Deployment", "status", status={"replicas": 20, "readyReplicas": ready})
        await found.is_quiet()
        assert found.verbs.total() == before, "a status is no drift"


async def test_what_somebody_else_made_is_neither_taken_nor_deleted(client: Client, space: str) -> None:
    async with deploying(client, space) as found:
        theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {"mine": "yes"}}
        path = path_of(KINDS["ConfigMap"], namespace=space)
        await client.request("POST", path, body=encode(theirs))
        version = (await found.read("ConfigMap"))["metadata"]["resourceVersion"]
        found.want("ConfigMap", **SPECS["ConfigMap"])
        await found.has_problem("NameTaken", f"ConfigMap {space}/{NAME} exists")
        found.want_nothing("ConfigMap")
        await eventually(lambda: found.problems == [], within=5)
        assert (await found.read("ConfigMap"))["metadata"]["resourceVersion"] == version

        # It bears our label, but another Gateway's uid: perhaps another installation's.
        metadata = found.metadata()
        metadata["name"] = "lookalike"
        metadata["ownerReferences"][0]["uid"] = "00000000-0000-0000-0000-000000000000"
        await client.request("POST", path, body=encode(theirs | {"metadata": metadata}))
        await eventually(lambda: ObjectRef("ConfigMap", space, "lookalike") in found.writer._objects, within=5)
        found.plan(Deploying.SELF_MANAGED)
        await found.is_quiet()
        await client.request("GET", path_of(KINDS["ConfigMap"], Key(space, "lookalike")))
        assert found.verbs.total() == 0


async def test_what_somebody_makes_meanwhile_is_not_taken(client: Client, space: str) -> None:
    """The API server itself refuses: what was seen is not there any more, or what was not there is."""
    found = Deployed(client, space)
    await found.make_gateway()
    for kind, fields in SPECS.items():
        api_version = KINDS[kind].api_version
        ref = found.ref(kind)
        body = {"apiVersion": api_version, "kind": kind, "metadata": found.metadata(), **fields}
        row = ProxyObject(gateway=found.gateway, api_version=api_version, body=encode(body))
        seen = await found.writer._send(ref, row, None)
        assert (await found.writer._send(ref, row, seen)).uid == seen.uid
        await found.delete(kind)
        await eventually(lambda kind=kind: _gone(found, kind), within=10)
        with pytest.raises(ApiError) as refused:
            await found.writer._send(ref, row, seen)
        assert refused.value.status == 409
        theirs = body | {"metadata": {"name": NAME}}
        await client.request("POST", path_of(KINDS[kind], namespace=space), body=encode(theirs))
        for stale in (seen, None):
            with pytest.raises(ApiError) as refused:
                await found.writer._send(ref, row, stale)
            assert refused.value.status == 409, (kind, stale)
        assert "ownerReferences" not in (await found.read(kind))["metadata"]


async def test_a_gateway_that_is_self_managed_or_given_away_loses_its_objects(client: Client, space: str) -> None:
    async with deploying(client, space) as found:
        await found.want_account()
        for kind in ("Deployment", "ConfigMap"):
            found.want(kind, **SPECS[kind])
        await eventually(lambda: found.outcomes["written"] == 3, within=10)
        found.plan(Deploying.HELD)
        found.want_nothing("Deployment")
        found.want_nothing("ConfigMap")
        await found.is_quiet()
        assert await found.exists("Deployment"), "held"
        found.plan(None)
        await found.is_quiet()
        assert await found.exists("Deployment"), "left to the garbage collector"
        found.plan(Deploying.RELEASED)
        for kind in ("Deployment", "ConfigMap"):
            await eventually(lambda kind=kind: _gone(found, kind), within=10)


async def test_leftovers_are_found_after_a_restart(client: Client, space: str) -> None:
    async with deploying(client, space) as found:
        await found.want_account()
        for kind, fields in SPECS.items():
            found.want(kind, **fields)
        await eventually(lambda: found.outcomes["written"] == len(SPECS), within=10)
        await found.patch("Deployment", metadata={"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}})
        uid = found.uid
    await found.patch("DaemonSet", spec={"template": {"spec": {"terminationGracePeriodSeconds": 5}}})
    await found.patch("ConfigMap", data={"bootstrap.yaml": "evil"})
    again = Deployed(client, space)
    again.uid = uid
    again.plan(Deploying.MANAGED)
    for kind in SPECS.keys() - {"HorizontalPodAutoscaler"}:
        again.want(kind, **SPECS[kind])
    async with asyncio.TaskGroup() as tasks:
        reflectors = [
            Reflector(client, kind, again.writer.observe, namespace=space, label_selector=SELECTOR)
            for kind in PROXY_KINDS
        ]
        running = [tasks.create_task(reflector.run()) for reflector in reflectors]
        for reflector in reflectors:
            await asyncio.wait_for(reflector.synced.wait(), 10)
        running.append(tasks.create_task(again.writer.run()))
        await eventually(lambda: _gone(again, "HorizontalPodAutoscaler"), within=10)
        await again.is_quiet()
        # What says all that was applied last is left alone, whatever others added.
        assert again.verbs == {("ConfigMap", "apply"): 1, ("HorizontalPodAutoscaler", "delete"): 1}
        assert (await again.read("ConfigMap"))["data"] == SPECS["ConfigMap"]["data"]
        for task in running:
            task.cancel()


async def test_what_cannot_be_changed_is_made_anew_or_named(client: Client, space: str) -> None:
    async with deploying(client, space) as found:
        await found.want_account()
        found.want("Deployment", **SPECS["Deployment"])
        found.want("Service", **SPECS["Service"])
        await eventually(lambda: found.outcomes["written"] == 3, within=10)
        uid = (await found.read("Deployment"))["metadata"]["uid"]
        other = {"app": "other"}
        template = {**deployment()["template"], "metadata": {"labels": other}}
        found.want("Deployment", spec=deployment(selector={"matchLabels": other}, template=template))
        await found.becomes(lambda it: it["metadata"]["uid"] != uid)
        await found.is_quiet()
        assert found.problems == []
        await found.patch("Deployment", "status", status={"replicas": 1, "readyReplicas": 1})
        known = found.writer._objects[found.ref("Deployment")]
        await eventually(lambda: known.found and not known.found.replaceable)
        uid = (await found.read("Deployment"))["metadata"]["uid"]
        found.want("Deployment", **SPECS["Deployment"])
        await found.has_problem("Immutable", f"Deployment {space}/{NAME}", "Delete it")
        assert (await found.read("Deployment"))["metadata"]["uid"] == uid, "it serves"
        await found.delete("Deployment")
        await found.becomes(lambda it: it["spec"]["selector"]["matchLabels"] == POD)
        await eventually(lambda: found.problems == [], within=5)

        spec = SPECS["Service"]["spec"]
        address = (await found.read("Service"))["spec"]["clusterIP"]
        found.want("Service", spec=spec | {"clusterIP": "None"})
        await found.has_problem("Immutable", f"Service {space}/{NAME}", "clusterIP")
        assert (await found.read("Service"))["spec"]["clusterIP"] == address
        found.want("Service", spec=spec | {"type": "NodePort"})
        await found.becomes(lambda it: it["spec"]["type"] == "NodePort", "Service")
        await eventually(lambda: found.problems == [], within=5)


async def test_what_the_api_server_does_not_know_is_named(client: Client, space: str) -> None:
    async with deploying(client, space) as found:
        await found.want_account()
        found.want("Deployment", spec=deployment(replicaz=2))
        await eventually(lambda: found.problems, within=10)
        assert "replicaz" in found.problems[0].message
        assert found.problems[0].reason in {"BadRequest", "Invalid"}
        found.want("Deployment", spec=deployment(replicas="many"))
        await eventually(lambda: found.problems and "replicas" in found.problems[0].message, within=10)
        found.want("Deployment", spec=deployment())
        await eventually(lambda: not found.problems, within=10)
        assert found.outcomes["failed"] == 0


async def test_a_namespace_that_is_not_there_is_named(client: Client, space: str) -> None:
    async with deploying(client, space) as found:
        found.namespace = "not-there"
        found.want("ConfigMap", **SPECS["ConfigMap"])
        await found.has_problem("NotFound", "not-there")


async def test_an_account_that_may_not_write_is_told(
    apiserver: ApiServer, client: Client, space: str, tmp_path: Any
) -> None:
    await asyncio.to_thread(apiserver.kubectl, "-n", space, "create", "serviceaccount", "weak")
    weak = await asyncio.to_thread(apiserver.account_kubeconfig, space, "weak", tmp_path / "weak.conf")
    async with connect(KubeSettings(kubeconfig=str(weak))) as poor:
        found = Deployed(poor, space)
        found.uid = "x"
        found.plan(Deploying.MANAGED)
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(found.writer.run())
            await asyncio.sleep(0)
            found.want("ConfigMap", **SPECS["ConfigMap"])
            await found.has_problem("Forbidden", "configmaps", "weak")
            writing.cancel()


@pytest.mark.slow
async def test_quota_forbids_and_the_garbage_goes_with_the_gateway(start_apiserver: Callable[..., ApiServer]) -> None:
    """With the controllers of Kubernetes: what is forbidden is told until it is allowed; a Gateway takes all along."""
    server = await asyncio.to_thread(start_apiserver)
    await asyncio.to_thread(server.install_gateway_api)
    await asyncio.to_thread(server.start_controllers)
    await asyncio.to_thread(server.create_namespace, "few")
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": "few"},
        "spec": {"hard": {"count/deployments.apps": "0"}},
    }
    await asyncio.to_thread(server.apply, quota)
    await eventually(lambda: "hard" in server.get("-n", "few", "resourcequota", "few").get("status", {}), within=20)
    async with connect(KubeSettings(kubeconfig=str(server.kubeconfig))) as client, deploying(client, "few") as found:
        for kind, fields in SPECS.items():
            if kind != "DaemonSet":
                found.want(kind, **fields)
        await found.has_problem("Forbidden", "exceeded quota: few")
        quota["spec"]["hard"]["count/deployments.apps"] = "1"
        await asyncio.to_thread(server.apply, quota)
        await eventually(lambda: not found.problems, within=20)
        assert await found.exists("Deployment")
        await client.request("DELETE", path_of(kind_of("Gateway"), found.gateway))
        found.plan(None)
        for kind in SPECS:
            found.want_nothing(kind)
        for kind in SPECS:
            await eventually(lambda kind=kind: _gone(found, kind), within=20)
        await eventually(lambda: not found.writer._objects, within=10)
        assert found.outcomes["failed"] == 0
