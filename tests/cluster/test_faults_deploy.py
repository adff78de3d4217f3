"""Namespaces that forbid the pods of proxies, and classes that two controllers are interested in."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cluster.access import KubectlError
from tests.cluster.apiserver import ApiServer
from tests.cluster.controllers import GATEWAY_API, Controller, condition, run_controller
from tests.cluster.site import Site, accepted, counted, gateway, route, settled
from tests.rig.waiting import eventually

pytestmark = pytest.mark.timeout(300)

DEFINITION = Path(__file__).parents[2] / "manifests" / "crds" / "meshgw.dev_gatewayparameters.yaml"


@pytest.fixture(scope="module")
def deploying(apiserver: ApiServer) -> Iterator[ApiServer]:
    """The API server with controllers that make pods of Deployments, for no node."""
    apiserver.start_controllers()
    yield apiserver
    apiserver.controllers.stop()


class Forbidding(NamedTuple):
    """A namespace that will not have the pods of a Gateway: what makes it so, and what is said of it."""

    name: str
    rule: str
    words: tuple[str, ...]


QUOTA = """
apiVersion: v1
kind: ResourceQuota
metadata: {name: none, namespace: no-quota}
spec: {hard: {pods: "0"}}
"""
POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-envoys}
spec:
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: no-admission}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  validations: [{expression: "false", message: bring your own proxy}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-envoys}
spec: {policyName: no-envoys, validationActions: [Deny]}
"""
PARAMETERS = """
apiVersion: meshgw.dev/v1alpha1
kind: GatewayParameters
metadata: {name: odd, namespace: no-security}
spec: {overlays: {deployment: {spec: {template: {spec: {hostPID: true}}}}}}
"""
FORBIDDING = (
    Forbidding("no-quota", QUOTA, ("exceeded quota: none", "pods=1")),
    Forbidding("no-admission", POLICY, ("ValidatingAdmissionPolicy 'no-envoys'", "bring your own proxy")),
    Forbidding("no-security", PARAMETERS, ('violates PodSecurity "restricted', "hostPID")),
)


async def test_who_forbids_the_pods_is_named_in_the_condition_until_they_are_allowed(
    deploying: ApiServer, tmp_path: Path
) -> None:
    """By quota, by an admission policy, and by the restricted pod security standard, which our own pods keep to."""
    restricted = {"pod-security.kubernetes.io__enforce": "restricted"}
    for each in FORBIDDING:
        await asyncio.to_thread(deploying.create_namespace, each.name, **restricted)
    await asyncio.to_thread(deploying.apply, DEFINITION)
    for each in FORBIDDING:
        await eventually(lambda each=each: applied(deploying, each.rule), what=f"{each.name} forbids", within=30)
    await eventually(lambda: forbids_pods(deploying), what="quota and policy are in force", within=60)
    async with run_controller(deploying, tmp_path, "forbidding", "--no-mesh") as controller:
        for each in FORBIDDING:
            edge = gateway(controller, "edge", 8080)
            edge["metadata"]["namespace"] = each.name
            reference = {"group": "meshgw.dev", "kind": "GatewayParameters", "name": "odd"}
            if each.rule is PARAMETERS:
                edge["spec"]["infrastructure"] = {"parametersRef": reference}
            await asyncio.to_thread(deploying.apply, edge)
        for each in FORBIDDING:
            said = functools.partial(programmed, deploying, each.name, "NoResources", *each.words)
            await eventually(said, what=f"{each.name} says why", within=40)
        await asyncio.to_thread(deploying.kubectl, "-n", "no-quota", "delete", "resourcequota", "none")
        await asyncio.to_thread(deploying.kubectl, "delete", "validatingadmissionpolicybinding", "no-envoys")
        await asyncio.to_thread(
            deploying.kubectl, "-n", "no-security", "patch", "gateway/edge", "--type=merge",
            "-p", '{"spec": {"infrastructure": null}}',
        )  # fmt: skip
        for each in FORBIDDING:
            await eventually(lambda each=each: pods(deploying, each.name), what=f"a pod in {each.name}", within=60)
        for each in FORBIDDING[:2]:  # a Deployment tells of its former pods until one is ready
            said = functools.partial(programmed, deploying, each.name, "AddressNotAssigned", "no address")
            await eventually(said, what=f"{each.name} waits for an address only", within=60)


async def applied(server: ApiServer, text: str) -> bool:
    """Whether the API server takes objects, of a kind that may be new to it."""
    try:
        await asyncio.to_thread(server.apply, text)
    except KubectlError as error:
        raise AssertionError(str(error)) from None
    return True


POD = {
    "metadata": {"name": "any"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "any",
                "image": "none",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}
"""A pod of the restricted standard."""


async def forbids_pods(server: ApiServer) -> bool:
    """Whether both namespaces refuse any pod by now, for their own reasons."""
    for each in FORBIDDING[:2]:
        path = f"/api/v1/namespaces/{each.name}/pods?dryRun=All"
        said = (await asyncio.to_thread(server.request, "POST", path, POD))[1].decode()
        assert each.words[0] in said, said
    return True


async def programmed(server: ApiServer, namespace: str, reason: str, *words: str) -> bool:
    """Whether a Gateway is not programmed for this reason."""
    found = condition(await asyncio.to_thread(server.get, "-n", namespace, "gateway", "edge"), "Programmed")
    assert found[:2] == ("False", reason), found
    assert all(word in found[2] for word in words), found
    return True


async def test_a_pod_that_does_not_end_holds_up_neither_the_end_of_its_gateway_nor_the_next_one(
    deploying: ApiServer, tmp_path: Path
) -> None:
    async with run_controller(deploying, tmp_path, "stuck", "--no-mesh") as controller:
        site = Site(deploying, controller)
        edge = gateway(controller, "edge", 8080)
        await site.apply(edge)
        (stuck,) = await eventually(lambda: pods(deploying, "stuck"), what="a pod is made", within=60)
        path = f"/api/v1/namespaces/{controller.name}/pods/{stuck}"
        await site.send("PATCH", path, {"metadata": {"finalizers": ["tests.meshgw.dev/stuck"]}}, patch=True)
        first = (await site.get("deployment", f"edge-{controller.class_()}"))["metadata"]["uid"]
        await asyncio.to_thread(deploying.kubectl, "-n", controller.name, "delete", "gateway", "edge")
        await eventually(lambda: is_ending(site, stuck), what="the pod is to end", within=60)
        await eventually(lambda: has_nothing(site), what="all else is gone", within=60)
        await site.apply(edge)
        said = functools.partial(programmed, deploying, "stuck", "AddressNotAssigned", "no address")
        await eventually(said, what="the next one is deployed", within=60)
        assert (await site.get("deployment", f"edge-{controller.class_()}"))["metadata"]["uid"] != first
        await eventually(lambda: has_another(deploying, stuck), what="a pod of its own", within=60)
        await site.send("PATCH", path, {"metadata": {"finalizers": None}}, patch=True)


async def pods(server: ApiServer, namespace: str) -> list[str]:
    found = await asyncio.to_thread(server.get, "-n", namespace, "pods")
    return [each["metadata"]["name"] for each in found["items"]]


async def has_another(server: ApiServer, stuck: str) -> bool:
    """Whether there is a pod beside one that does not end."""
    found = await pods(server, "stuck")
    assert stuck in found
    return len(found) == 2


async def is_ending(site: Site, pod: str) -> bool:
    return "deletionTimestamp" in (await site.get("pod", pod))["metadata"]


async def has_nothing(site: Site) -> bool:
    kinds = "configmap,deployment,service,serviceaccount"
    labels = "gateway.networking.k8s.io/gateway-name=edge"
    return not (await asyncio.to_thread(site.access.get, "-n", site.controller.name, kinds, "-l", labels))["items"]


async def test_a_class_that_changes_hands_is_left_by_one_and_taken_by_the_other(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    """Two controllers, one class name: the class says whose it is, and the other one touches nothing of it."""
    async with (
        run_controller(apiserver, tmp_path, "hers", "--no-mesh") as hers,
        run_controller(apiserver, tmp_path, "his", "--no-mesh") as his,
    ):
        site = Site(apiserver, hers)
        edge = gateway(hers, "edge", 8080)
        edge["spec"]["gatewayClassName"] = "shared"
        await site.apply(shared(hers), edge)
        await eventually(lambda: runs(site, hers), what="hers runs it", within=30)
        before = await settled(his)
        written = await counted(hers, "api_writes_total")
        edge["spec"]["listeners"][0]["port"] = 8081
        await site.apply(edge)
        await eventually(lambda: is_observed(site), what="the edit is seen", within=30)
        assert await counted(his, "api_writes_total") == before
        assert await counted(hers, "api_writes_total") > written

        await asyncio.to_thread(apiserver.kubectl, "delete", "gatewayclass", "shared")
        await site.apply(shared(his))
        await eventually(lambda: runs(site, his), what="his runs it", within=40)
        for port in (8082, 8083):  # with the first one all is settled that she has to say of what was hers
            before = await counted(hers, "api_writes_total")
            edge["spec"]["listeners"][0]["port"] = port
            await site.apply(edge)
            await eventually(lambda: is_observed(site), what="the edit is seen", within=30)
        assert await runs(site, his)
        assert await counted(hers, "api_writes_total") == before


async def test_of_two_installations_of_one_name_one_has_the_proxies_and_neither_fights(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    """Each leads by a Lease of its own: who started last has what both would deploy, and the other one says so."""
    async with run_controller(apiserver, tmp_path, "former", "--no-mesh") as former:
        site = Site(apiserver, former)
        metadata = {"name": "echo", "namespace": former.name}
        echo = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}
        await site.apply(gateway(former, "edge", 8080), echo)
        await eventually(lambda: runs(site, former), what="the former runs it", within=30)
        name = ("--controller-name", former.controller_name)
        async with run_controller(apiserver, tmp_path, "latter", "--no-mesh", *name) as latter:
            await eventually(lambda: runs(site, latter), what="the latter runs it", within=30)
            await eventually(lambda: says_so(former), what="the former says so", within=30)
            edited = gateway(former, "edge", 8081)
            await site.apply(edited)
            await eventually(lambda: is_observed(site), what="the edit is seen", within=30)
            before = [await settled(each, 'verb="apply"') for each in (former, latter)]
            for number in range(5):
                await site.apply(route(former, "edited", ["edge"], f"/{number}"))
                await eventually(lambda: accepted(site, "edited"), what="the status of an edit", within=15)
            assert await runs(site, latter)
            assert [await settled(each, 'verb="apply"') for each in (former, latter)] == before


async def says_so(controller: Controller) -> bool:
    return "another installation of this controller's name has taken an object" in controller.log()


def shared(controller: Controller) -> dict[str, Any]:
    metadata = {"name": "shared", "labels": {"meshgw.dev/role": "ingress"}}
    spec = {"controllerName": controller.controller_name}
    return {"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": metadata, "spec": spec}


async def runs(site: Site, controller: Controller) -> bool:
    """Whether the proxies of the Gateway are those of a controller: they dial it."""
    found = await asyncio.to_thread(
        site.access.get, "-n", site.controller.name, "configmap,deployment,service,serviceaccount",
        "-l", "gateway.networking.k8s.io/gateway-name=edge",
    )  # fmt: skip
    assert [each["kind"] for each in found["items"]] == ["ConfigMap", "Deployment", "Service", "ServiceAccount"]
    assert f'"port_value": {controller.xds}' in json.dumps(found["items"][0]["data"]).replace('\\"', '"')
    return True


async def is_observed(site: Site) -> bool:
    found = await site.get("gateway", "edge")
    assert condition(found, "Accepted")[0] == "True", found["status"]
    seen = {each["observedGeneration"] for each in found["status"]["conditions"]}
    assert seen == {found["metadata"]["generation"]}, found["status"]
    return True
