"""Many kinds at once, with a real API server whose definitions come and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from meshgw.api.core import ConfigMap
from meshgw.api.meta import Key
from meshgw.api.registry import Kind
from meshgw.kube.client import MERGE_PATCH, Client, KubeSettings, connect
from meshgw.kube.discovery import Catalog, Presence
from meshgw.kube.paths import CRD_API, crd_name, resource_path
from meshgw.kube.reflector import NOT_SERVED
from meshgw.kube.watches import WatchSet
from tests.cluster.apiserver import ApiServer
from tests.kube.following import ROUTE, Author, Hasty, Record, definition, kind_of, running
from tests.rig.waiting import eventually

DEFINED = ("GRPCRoute", "HTTPRoute", "AuthorizationPolicy")
GRPC = {"spec": {"hostnames": ["a.example"]}}
POLICY = {"spec": {"action": "DENY", "rules": [{}]}}


async def test_namespaces_come_and_go(apiserver: ApiServer, client: Client, space: str) -> None:
    other = await asyncio.to_thread(apiserver.create_namespace, f"{space}-2")
    await Author(client, space).config_maps("a", "b")
    await Author(client, other).config_maps("c")
    record = Record()
    watches = WatchSet(client, record)
    watches.follow(kind_of("ConfigMap"), [space])
    assert watches.unsynced == (f"ConfigMap in {space}",)
    async with running(watches):
        await asyncio.wait_for(watches.settle(), 30)
        assert watches.unsynced == ()
        assert record.names() == {"a", "b"}

        watches.follow(kind_of("ConfigMap"), [space, other])
        assert watches.unsynced == (f"ConfigMap in {other}",)
        await asyncio.wait_for(watches.settle(), 30)
        assert record.names() == {"a", "b", "c"}
        assert len(watches.reflectors) == 2

        watches.follow(kind_of("ConfigMap"), [other])
        assert record.names() == {"c"}
        await Author(client, space).config_maps("unseen")
        await Author(client, other).config_maps("seen")
        await record.has("c", "seen")

        watches.follow(kind_of("ConfigMap"), [])
        assert record.names() == set()
        await asyncio.wait_for(watches.settle(), 30)


async def test_scope_does_not_change_between_some_and_all(client: Client) -> None:
    watches = WatchSet(client, Record())
    watches.follow(kind_of("ConfigMap"), ["a"])
    with pytest.raises(ValueError, match="for good"):
        watches.follow(kind_of("ConfigMap"))
    watches.follow(kind_of("GatewayClass"), ["a"])  # of no namespace, so of all
    watches.follow(kind_of("GatewayClass"))
    assert watches.unsynced == ("ConfigMap in a", "GatewayClass")


async def test_waiting_ends_when_nobody_wants_it_any_more(client: Client) -> None:
    watches = WatchSet(client, Record())
    watches.follow(kind_of("ConfigMap"), ["a"])
    async with asyncio.TaskGroup() as group:
        settled = group.create_task(watches.settle())
        await asyncio.sleep(0)
        assert not settled.done()
        watches.follow(kind_of("ConfigMap"), [])
        await asyncio.wait_for(settled, 1)


async def test_catalog_tells_versions(client: Client) -> None:
    catalog = Catalog(client)
    assert await catalog.look(kind_of("HTTPRoute")) == Presence(version="v1", defined=True)
    assert await catalog.look(kind_of("Pod")) == Presence(version="v1", defined=True)
    assert not await catalog.is_leaving(kind_of("HTTPRoute"))
    assert not await catalog.is_leaving(kind_of("Pod"))


async def test_catalog_tells_what_is_leaving_even_to_those_who_may_not_read_definitions(
    apiserver: ApiServer, client: Client, tmp_path: Path
) -> None:
    thing = Kind(name="Thing", group="tests.meshgw.dev", versions=("v2", "v1"), plural="things", struct=ConfigMap)
    served = Kind(name="Thing", group="tests.meshgw.dev", versions=("v1",), plural="things", struct=ConfigMap)
    path = await asyncio.to_thread(apiserver.user_kubeconfig, "stranger-to-definitions", tmp_path / "user.conf")
    async with connect(KubeSettings(kubeconfig=str(path))) as stranger:
        catalogs = Catalog(client), Catalog(stranger)
        for catalog in catalogs:
            assert await catalog.look(thing) == Presence()
            assert await catalog.is_leaving(thing)
        await asyncio.to_thread(apiserver._install, [definition(served)])
        for catalog in catalogs:
            await eventually(lambda catalog=catalog: _version(catalog, thing), within=30)
            assert await catalog.look(thing) == Presence(version="v1", defined=True)
            assert not await catalog.is_leaving(thing)

        # An object that cannot go keeps the definition in the state in which its objects are deleted.
        metadata = {"name": "stuck", "finalizers": ["tests.meshgw.dev/wait"]}
        body = {"apiVersion": "tests.meshgw.dev/v1", "kind": "Thing", "metadata": metadata}
        things = resource_path("tests.meshgw.dev/v1", "things", namespace="default")
        await client.request("POST", things, body=json.dumps(body).encode())
        definition_path = resource_path(CRD_API, "customresourcedefinitions", name=crd_name(thing))
        await client.request("DELETE", definition_path)
        for catalog in catalogs:
            await eventually(lambda catalog=catalog: catalog.is_leaving(thing), within=30)
            presence = await catalog.look(thing)
            assert presence.leaving
            assert presence.defined
        free = b'{"metadata": {"finalizers": []}}'
        await client.request("PATCH", f"{things}/stuck", body=free, content_type=MERGE_PATCH)


async def _version(catalog: Catalog, kind: Kind) -> str:
    return (await catalog.look(kind)).version


@pytest.mark.slow
async def test_kinds_that_come_and_go(start_apiserver: Callable[..., ApiServer]) -> None:
    server = await asyncio.to_thread(start_apiserver)
    async with connect(KubeSettings(kubeconfig=str(server.kubeconfig))) as client:
        author = Author(client, "default")
        record = Record()
        watches = WatchSet(client, record, clock=Hasty())
        for name in ("GRPCRoute", "HTTPRoute", "AuthorizationPolicy", "BackendTLSPolicy"):
            watches.follow(kind_of(name))
        async with running(watches):
            # A required kind that is missing keeps all from being published; the others are without objects.
            await eventually(lambda: watches.unsynced == ("HTTPRoute",) and watches.problems, within=30)
            assert _broken(watches) == {"httproutes.gateway.networking.k8s.io"}

            await asyncio.to_thread(_install_definitions, server)
            await asyncio.wait_for(watches.settle(), 30)
            await author.create("HTTPRoute", "http", **ROUTE)
            await author.create("GRPCRoute", "grpc", **GRPC)
            await author.create("AuthorizationPolicy", "deny", **POLICY)
            await record.has("http", "grpc", "deny")
            assert watches.problems == ()

            # The API server deletes all objects of these kinds; those of the optional one go, the others stay.
            await asyncio.to_thread(_remove_definitions, server)
            await record.has("http", "deny")
            required, policies = "httproutes.gateway.networking.k8s.io", "authorizationpolicies.security.istio.io"
            await eventually(lambda: _broken(watches) == {required, policies}, within=30)
            assert all("the 1 last seen stay in force" in problem.message for problem in watches.problems)

            await asyncio.to_thread(_install_definitions, server)
            await record.has(within=30)  # the kinds are back, and say that they have no objects
            assert watches.problems == ()
            await author.create("AuthorizationPolicy", "other", **POLICY)
            await author.create("GRPCRoute", "grpc", **GRPC)
            await record.has("other", "grpc")

            # One deleted by somebody is gone as ever.
            await author.delete("AuthorizationPolicy", "other")
            await record.has("grpc")

            # One that cannot be read denies, until it can be.
            await author.create("AuthorizationPolicy", "broken", spec={"action": 7})
            await record.has("grpc", "broken")
            place = "AuthorizationPolicy", Key("default", "broken")
            assert "spec.action" in str(record.problems[place])
            assert "cannot be read" in str(record.objects[place])
            await author.patch("AuthorizationPolicy", "broken", spec={"action": "DENY"})
            await record.becomes(lambda: "cannot be read" not in str(record.objects[place]))
            assert record.problems == {}
            good = record.objects[place]
            await author.patch("AuthorizationPolicy", "broken", spec={"action": 7})
            await record.becomes(lambda: record.problems)
            assert record.objects[place] is good


def _broken(watches: WatchSet) -> set[str]:
    assert {problem.code for problem in watches.problems} <= {NOT_SERVED}
    return {problem.object.name for problem in watches.problems}


def _install_definitions(server: ApiServer) -> None:
    server._install([definition(kind_of(name)) for name in DEFINED])


def _remove_definitions(server: ApiServer) -> None:
    server.kubectl("delete", "crd", *[crd_name(kind_of(name)) for name in DEFINED])
