"""What a reflector passes on of a real API server's objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshgw.api.core import ConfigMap
from meshgw.api.http import HTTPRoute
from meshgw.api.meta import Key
from meshgw.kube.client import Client, KubeSettings, connect, path_of
from meshgw.kube.errors import ApiError
from meshgw.kube.reflector import REFUSED, Reflector
from tests.cluster.apiserver import ApiServer
from tests.kube.following import ROUTE, Author, Gate, Hasty, Record, definition, following, kind_of, running
from tests.rig.waiting import eventually


async def test_objects_come_typed_and_go(client: Client, space: str) -> None:
    author = Author(client, space)
    await author.create("HTTPRoute", "first", **ROUTE)
    async with following(client, "HTTPRoute", namespace=space) as (reflector, record):
        ((_, seen),) = record.calls
        assert [each.key for each in seen] == [Key(space, "first")]
        route, observed = seen[0].object, seen[0].observed
        assert isinstance(route, HTTPRoute)
        assert route.spec.hostnames == ("a.example",)
        assert route.spec.parent_refs == ()
        assert observed is not None
        assert (observed.uid, observed.generation, observed.status) == (route.metadata.uid, 1, b"")

        await author.create("HTTPRoute", "second", **ROUTE)
        await record.has("first", "second")
        await author.patch("HTTPRoute", "first", spec={"hostnames": ["b.example"]})
        await record.becomes(lambda: record.calls[-1][1][0].object.spec.hostnames == ("b.example",))
        observed = record.calls[-1][1][0].observed
        assert observed is not None
        assert observed.generation == 2
        await author.delete("HTTPRoute", "second")
        await record.has("first")
        assert len(reflector) == 1
        assert reflector.lists == 1


async def test_status_comes_raw_for_those_who_write_it(client: Client, space: str) -> None:
    author = Author(client, space)
    await author.create("HTTPRoute", "route", **ROUTE)
    condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
    condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    parent = {"parentRef": {"name": "gateway"}, "controllerName": "example.com/other", "conditions": [condition]}
    await author.patch("HTTPRoute", "route", "status", status={"parents": [parent]})
    async with following(client, "HTTPRoute", namespace=space) as (_, record):
        observed = record.calls[0][1][0].observed
        assert observed is not None
        status = msgspec.json.decode(observed.status)
        assert status["parents"][0]["controllerName"] == "example.com/other"


async def test_selectors_choose(client: Client, space: str) -> None:
    author = Author(client, space)
    await author.create("ConfigMap", "chosen", labels={"tier": "edge"})
    await author.create("ConfigMap", "other")
    async with (
        following(client, "ConfigMap", namespace=space, label_selector="tier=edge") as (_, by_label),
        following(client, "ConfigMap", namespace=space, field_selector="metadata.name=other") as (_, by_field),
    ):
        assert by_label.names() == {"chosen"}
        assert by_field.names() == {"other"}
        await author.patch("ConfigMap", "chosen", metadata={"labels": {"tier": "core"}})
        await by_label.has()


async def test_silent_watch_is_opened_again_where_it_was(client: Client, space: str) -> None:
    author = Author(client, space)
    await author.config_maps("a", "b")
    async with following(client, "ConfigMap", namespace=space, idle=0.3) as (reflector, record):
        await asyncio.sleep(1)  # three silences, each of which ends a watch
        await author.config_maps("c")
        await author.delete("ConfigMap", "a")
        await record.has("b", "c")
        assert reflector.lists == 1
        assert [len(seen) for _, seen in record.calls] == [2, 1, 1]


async def test_recreated_object_is_another(client: Client, space: str) -> None:
    author = Author(client, space)
    before = await author.create("ConfigMap", "a", data={"mesh": "1"})
    async with following(client, "ConfigMap", namespace=space) as (reflector, record):
        await author.delete("ConfigMap", "a")
        after = await author.create("ConfigMap", "a", data={"mesh": "2"})
        await record.becomes(lambda: [each.uid for each in _observed(record)][-1:] == [after["metadata"]["uid"]])
        assert before["metadata"]["uid"] != after["metadata"]["uid"]
        found = record.objects["ConfigMap", Key(space, "a")]
        assert isinstance(found, ConfigMap)
        assert found.data == {"mesh": "2"}
        assert len(reflector) == 1


def _observed(record: Record) -> list[Any]:
    return [each.observed for _, seen in record.calls for each in seen if each.observed is not None]


async def test_refusal_is_told_and_ends_when_the_role_comes(
    apiserver: ApiServer, client: Client, space: str, tmp_path: Path
) -> None:
    await Author(client, space).config_maps("a")
    path = await asyncio.to_thread(apiserver.user_kubeconfig, f"user-{space}", tmp_path / "user.conf")
    async with connect(KubeSettings(kubeconfig=str(path))) as nobody:
        record = Record()
        told: list[Any] = []
        reflector = Reflector(
            nobody,
            kind_of("ConfigMap"),
            record,
            namespace=space,
            clock=Hasty(),
            idle=0.3,
            report=lambda kind, namespace, problem: told.append((kind.name, namespace, problem and problem.code)),
        )
        async with running(reflector):
            await eventually(lambda: reflector.problem, within=15)
            assert reflector.problem is not None
            assert reflector.problem.code == REFUSED
            assert f'User "user-{space}" cannot list' in reflector.problem.message.replace("watch", "list")
            assert not reflector.synced.is_set()
            assert record.calls == []

            await asyncio.to_thread(_grant, apiserver, space)
            await asyncio.wait_for(reflector.synced.wait(), 30)
            assert record.names() == {"a"}
            assert reflector.problem is None

            await asyncio.to_thread(apiserver.kubectl, "-n", space, "delete", "rolebinding", "reader")
            await eventually(lambda: reflector.problem, within=15)
            assert "the 1 last seen stay in force" in str(reflector.problem)
            assert record.names() == {"a"}
            await Author(client, space).config_maps("b")
            await asyncio.to_thread(_bind, apiserver, space)
            await record.has("a", "b")
            await eventually(lambda: reflector.problem is None, within=15)
            assert reflector.lists == 1
        assert [code for _, _, code in told] == [REFUSED, None, REFUSED, None]


def _grant(server: ApiServer, space: str) -> None:
    server.kubectl("-n", space, "create", "role", "reader", "--verb=list,watch", "--resource=configmaps")
    _bind(server, space)


def _bind(server: ApiServer, space: str) -> None:
    server.kubectl("-n", space, "create", "rolebinding", "reader", "--role=reader", f"--user=user-{space}")


class Expiring(Client):
    """A client whose lists expire once, between two pages."""

    def __init__(self, client: Client, expire: Callable[[], object]) -> None:
        self.__dict__.update(client.__dict__)
        self._expire: Callable[[], object] | None = expire
        self.pages: list[str] = []

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        query = options.get("query", {})
        if "limit" in query:
            self.pages.append(f"{query['limit']} {'more' if 'continue' in query else 'first'}")
        if "continue" in query and self._expire is not None:
            expire, self._expire = self._expire, None
            await Author(self, "default").config_maps("meanwhile")
            await asyncio.to_thread(expire)
        return await super().request(method, path, **options)


@pytest.mark.slow
async def test_paged_lists_that_expire_and_watches_that_are_too_old(start_apiserver: Callable[..., ApiServer]) -> None:
    """Without a cache and streaming lists: as old servers are, and as etcd tells it."""
    server = await asyncio.to_thread(start_apiserver, "--watch-cache=false", "--feature-gates=WatchList=false")
    names = {f"c{number}" for number in range(1200)}
    async with connect(KubeSettings(kubeconfig=str(server.kubeconfig))) as plain:
        author = Author(plain, "default")
        await author.config_maps(*names)
        client = Expiring(plain, server.compact)
        record = Record()
        reflector = Reflector(client, kind_of("ConfigMap"), record, namespace="default", page=500, clock=Hasty())
        async with running(reflector):
            await asyncio.wait_for(reflector.synced.wait(), 30)
            assert record.names() == {*names, "meanwhile"}
            assert len(record.calls) == 1
            assert client.pages == ["500 first", "500 more", "500 first", "500 more", "500 more"]

        # Nobody watches now.
        await author.delete("ConfigMap", "c1")
        await author.patch("ConfigMap", "c2", data={"changed": "yes"})
        await author.config_maps("new")
        await asyncio.to_thread(server.compact)
        async with running(reflector):
            await record.becomes(lambda: reflector.lists == 2)
            assert record.names() == {*names, "meanwhile", "new"} - {"c1"}
            _, difference = record.calls[1]
            assert {(each.key.name, each.gone) for each in difference} == {("c1", True), ("c2", False), ("new", False)}
            await author.config_maps("newer")
            await record.becomes(lambda: "newer" in record.names())
            assert [len(seen) for _, seen in record.calls] == [1201, 3, 1]


@pytest.mark.slow
async def test_server_that_dies_loses_nothing(start_apiserver: Callable[..., ApiServer]) -> None:
    server = await asyncio.to_thread(start_apiserver)
    async with connect(KubeSettings(kubeconfig=str(server.kubeconfig))) as client:
        author = Author(client, "default")
        await author.config_maps("kept", "changed", "deleted")
        gate = Gate()
        async with following(client, "ConfigMap", namespace="default", clock=gate) as (reflector, record):
            before = len(record.calls)
            gate.open.clear()
            await asyncio.to_thread(server.server.kill)
            await gate.waiting.wait()
            assert record.names() == {"kept", "changed", "deleted"}
            await asyncio.to_thread(server.start)
            await author.delete("ConfigMap", "deleted")
            await author.patch("ConfigMap", "changed", data={"a": "new"})
            await author.config_maps("created")
            assert len(record.calls) == before
            gate.open.set()
            await record.has("kept", "changed", "created")
            told = [each for _, seen in record.calls[before:] for each in seen]
            assert sorted((each.key.name, each.gone) for each in told) == [
                ("changed", False),
                ("created", False),
                ("deleted", True),
            ]
            assert reflector.lists in {1, 2}

            # Frozen is not dead: the connection stays, and says nothing.
            await asyncio.to_thread(server.server.freeze)
            with pytest.raises(ConnectionError):
                await client.request("GET", "/api/v1/namespaces/default/configmaps", timeout=0.5)
            await asyncio.to_thread(server.server.thaw)
            await author.config_maps("thawed")
            await record.has("kept", "changed", "created", "thawed")


async def test_unknown_collection_is_refused(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        await client.request("GET", "/apis/example.com/v1/things")
    assert refused.value.status == 404


async def test_deep_objects_of_one_tenant_cost_nobody_else(apiserver: ApiServer, client: Client, space: str) -> None:
    """The API server stores what a schema leaves open, however deep."""
    kind = msgspec.structs.replace(kind_of("GatewayParameters"), group="deep.example.com")
    await asyncio.to_thread(apiserver._install, [definition(kind)])
    path = path_of(kind, namespace=space)
    depths = (99, 500, 974, 1200)
    for depth in depths:
        document = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": f"deep-{depth}"}}
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        spec = b',"spec":{"overlays":{"deployment":{"spec":' + nested + b"}}}}"
        body = msgspec.json.encode(document).removesuffix(b"}") + spec
        await client.request("POST", path, body=body)
    async with following(client, kind, namespace=space) as (reflector, record):
        assert record.problems.keys() == {(kind.name, Key(space, f"deep-{depth}")) for depth in depths}
        other = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": "other"}}
        await client.request("POST", path, body=msgspec.json.encode(other))
        await record.has("other")
        assert reflector.problem is None
        assert reflector.lists == 1
    async with following(client, kind, namespace=space, page=2) as (_, record):
        assert len(record.problems) == len(depths)
        assert record.names() == {"other"}
