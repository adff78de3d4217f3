"""Statuses at a real API server, with the real definitions: accepted, written once, and never at others' expense."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
import pytest

from meshgw.api.gateway import ParentReference, RouteGroupKind
from meshgw.api.meta import Key, ObjectRef
from meshgw.api.registry import REGISTRY, Kind
from meshgw.ir.status import (
    ClassStatus,
    Condition,
    GatewayStatus,
    ListenerStatus,
    ParentStatus,
    PolicyStatus,
    RouteStatus,
    Status,
    StatusAddress,
)
from meshgw.kube.client import MERGE_PATCH, ApiError, Client, path_of
from meshgw.kube.reflector import Reflector
from meshgw.kube.seen import Seen
from meshgw.write.queue import Outcome
from meshgw.write.status import OURS
from meshgw.write.statuses import StatusWriter
from tests.cluster.apiserver import ApiServer
from tests.kube.following import Author, kind_of, program
from tests.rig.waiting import eventually
from tests.unit.write.parts import hold_while

OURSELVES = "meshgw.dev/gateway-controller"
OTHER = "example.com/other-controller"
LISTENER = {"name": "http", "port": 80, "protocol": "HTTP"}


class Writing:
    """A writer at work with reflectors of some kinds; `outcomes` counts its turns."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.author = Author(client, namespace)
        self.namespace = namespace
        self.leads = True
        self.outcomes: Counter[str] = Counter()
        self.wrote_kinds: Counter[str] = Counter()
        self.shown: dict[ObjectRef, str] = {}
        self.writer = StatusWriter(
            client, registry=REGISTRY, controller=OURSELVES, hold=hold_while(lambda: self.leads), observer=self
        )

    def turn_ended(self, queue: str, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def queue_waits(self, queue: str, keys: int) -> None:
        pass

    def wrote(self, kind: str, verb: str) -> None:
        self.wrote_kinds[kind] += 1

    def want(self, kind: str, name: str, status: Status | None) -> None:
        namespace = self.namespace if kind_of(kind).namespaced else ""
        self.writer.desire({ObjectRef(kind, namespace, name): status})

    async def read(self, kind: str, name: str) -> dict[str, Any]:
        namespace = self.namespace if kind_of(kind).namespaced else ""
        body = await self.client.request("GET", path_of(kind_of(kind), Key(namespace, name)))
        found: dict[str, Any] = msgspec.json.decode(body)
        return found

    def see(self, kind: Kind, seen: Sequence[Seen]) -> None:
        """Take note of the versions that watches show, and pass on what they do."""
        for each in seen:
            self.shown[ObjectRef(kind.name, *each.key)] = each.observed.resource_version if each.observed else ""
        self.writer.observe(kind, seen)

    async def quiet(self) -> None:
        """Wait until nothing waits to be written."""
        await eventually(lambda: not len(self.writer.queue), within=30)

    async def settled(self) -> None:
        """Wait until every object was shown as it was written, and its floor has passed without another write."""

        def echoed() -> bool:
            known = self.writer._objects.items()
            return all(self.shown[ref] == found.observed.resource_version for ref, found in known if found.observed)

        await eventually(lambda: echoed() and not self.writer.queue._slots, within=30)


@contextlib.asynccontextmanager
async def writing(client: Client, namespace: str, kinds: Iterable[str]) -> AsyncIterator[Writing]:
    found = Writing(client, namespace)
    reflectors = [
        Reflector(client, kind, found.see, namespace=namespace if kind.namespaced else "")
        for kind in map(kind_of, kinds)
    ]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(reflector.run()) for reflector in reflectors]
        running.append(tasks.create_task(found.writer.run()))
        try:
            for reflector in reflectors:
                await asyncio.wait_for(reflector.synced.wait(), 10)
            yield found
        finally:
            for task in running:
                task.cancel()


def conditions(generation: int = 1, **statuses: bool) -> tuple[Condition, ...]:
    return tuple(
        Condition(type=kind, status=status, reason=kind, message="é ok", observed_generation=generation)
        for kind, status in (statuses or {"Accepted": True, "ResolvedRefs": False}).items()
    )


def route(*names: str, generation: int = 1) -> RouteStatus:
    return RouteStatus(
        parents=tuple(
            ParentStatus(
                parent_ref=ParentReference(name=name, section_name="http", port=80),
                controller_name=OURSELVES,
                conditions=conditions(generation),
            )
            for name in names
        )
    )


GATEWAY = GatewayStatus(
    addresses=(
        StatusAddress(type="IPAddress", value="2001:db8::1"),
        StatusAddress(type="IPAddress", value="10.0.0.1"),
        StatusAddress(type="Hostname", value="lb.example.com"),
    ),
    conditions=conditions(**dict.fromkeys(OURS, True)),
    listeners=(
        ListenerStatus(
            name="http",
            supported_kinds=(RouteGroupKind(kind="HTTPRoute"), RouteGroupKind(kind="GRPCRoute")),
            attached_routes=3,
            conditions=conditions(),
        ),
    ),
    attached_listener_sets=0,
)
CLASS = ClassStatus(conditions=conditions(), supported_features=tuple(f"Feature{n:02}" for n in range(64)))
SPECS: dict[str, tuple[dict[str, Any], Status]] = {
    "Gateway": ({"gatewayClassName": "c", "listeners": [LISTENER]}, GATEWAY),
    "ListenerSet": (
        {"parentRef": {"name": "gw"}, "listeners": [LISTENER]},
        GatewayStatus(conditions=GATEWAY.conditions, listeners=GATEWAY.listeners),
    ),
    "HTTPRoute": ({"parentRefs": [{"name": "gw"}]}, route("gw", "gw2")),
    "GRPCRoute": ({"parentRefs": [{"name": "gw"}]}, route("gw")),
    "TLSRoute": (
        {
            "parentRefs": [{"name": "gw"}],
            "hostnames": ["a.example"],
            "rules": [{"backendRefs": [{"name": "b", "port": 1}]}],
        },
        route("gw"),
    ),
    "TCPRoute": ({"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": "b", "port": 1}]}]}, route("gw")),
    "UDPRoute": ({"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": "b", "port": 1}]}]}, route("gw")),
    "BackendTLSPolicy": (
        {
            "targetRefs": [{"group": "", "kind": "Service", "name": "s"}],
            "validation": {"hostname": "a.example", "wellKnownCACertificates": "System"},
        },
        PolicyStatus(ancestors=route("gw").parents),
    ),
}


async def patches(apiserver: ApiServer, namespace: str) -> Counter[tuple[str, str]]:
    """The status writes to objects of a namespace that were not refused, by resource and name, from the audit log."""
    events = await asyncio.to_thread(apiserver.audit)
    return Counter(
        (event["objectRef"]["resource"], event["objectRef"]["name"])
        for event in events
        if event["stage"] == "ResponseComplete"
        and event["verb"] == "patch"
        and event.get("objectRef", {}).get("subresource") == "status"
        and event["objectRef"].get("namespace") == namespace
        and event["responseStatus"]["code"] == 200
    )


async def test_statuses_of_every_kind_are_accepted(apiserver: ApiServer, client: Client, space: str) -> None:
    kinds = [kind.name for kind in REGISTRY.kinds if "patch status" in kind.verbs]
    assert set(kinds) == {*SPECS, "GatewayClass"}
    class_spec = {"controllerName": OURSELVES}
    body = {"apiVersion": kind_of("GatewayClass").api_version, "kind": "GatewayClass", "spec": class_spec}
    created = msgspec.json.encode(body | {"metadata": {"name": space}})
    await client.request("POST", path_of(kind_of("GatewayClass")), body=created)
    async with writing(client, space, kinds) as found:
        for kind, (spec, _status) in SPECS.items():
            await found.author.create(kind, "x", spec=spec)
        for kind, (_spec, status) in SPECS.items():
            found.want(kind, "x", status)
        found.want("GatewayClass", space, CLASS)
        await eventually(lambda: found.outcomes["written"] == len(SPECS) + 1, within=20)
        await found.settled()
        assert found.outcomes["written"] == len(SPECS) + 1
        assert found.outcomes["refused"] == found.outcomes["failed"] == 0
        assert found.wrote_kinds == Counter([*SPECS, "GatewayClass"])
        gateway = (await found.read("Gateway", "x"))["status"]
        assert [address["value"] for address in gateway["addresses"]] == ["2001:db8::1", "10.0.0.1", "lb.example.com"]
        assert {c["type"] for c in gateway["conditions"]} == set(OURS)
        assert gateway["listeners"][0]["attachedRoutes"] == 3
        assert len((await found.read("GatewayClass", space))["status"]["supportedFeatures"]) == 64
        for kind in SPECS:
            status = (await found.read(kind, "x"))["status"]
            for entry in [*status.get("parents", ()), *status.get("ancestors", ())]:
                assert entry["controllerName"] == OURSELVES
                assert [c["message"] for c in entry["conditions"]] == ["é ok", "é ok"]
        counted = await patches(apiserver, space)
        assert set(counted.values()) == {1}
        assert len(counted) == len(SPECS)
        for kind in SPECS:
            found.want(kind, "x", None)
        await found.quiet()
        assert (await found.read("HTTPRoute", "x"))["status"] == {"parents": []}
        assert (await found.read("BackendTLSPolicy", "x"))["status"] == {"ancestors": []}
        given_back = (await found.read("Gateway", "x"))["status"]
        assert [c["reason"] for c in given_back["conditions"]] == ["Pending", "Pending"]
        assert "listeners" not in given_back
        assert "addresses" not in given_back
    await client.request("DELETE", path_of(kind_of("GatewayClass"), Key("", space)))


async def test_the_largest_statuses_are_accepted(client: Client, space: str) -> None:
    """What would be refused is cut before it is sent."""
    listeners = [{"name": f"l{n}", "port": 1000 + n, "protocol": "HTTP"} for n in range(64)]
    long = tuple(
        Condition(type=kind, status=False, reason="not a word", message="é" * 40000, observed_generation=1)
        for kind in (*OURS, "example.com/One", "example.com/Two")
    )
    huge = GatewayStatus(
        addresses=(
            StatusAddress(type="Hostname", value="Not_A_Name"),
            *(StatusAddress(type="IPAddress", value=f"10.0.0.{n}") for n in range(20)),
        ),
        conditions=long,
        listeners=tuple(ListenerStatus(name=f"l{n}", conditions=long) for n in range(64)),
        attached_listener_sets=2,
    )
    one_long = GatewayStatus(conditions=long[:1])
    async with writing(client, space, ["Gateway", "BackendTLSPolicy"]) as found:
        await found.author.create("Gateway", "huge", spec={"gatewayClassName": "c", "listeners": listeners})
        await found.author.create("Gateway", "long", spec={"gatewayClassName": "c", "listeners": listeners[:1]})
        await found.author.create("BackendTLSPolicy", "many", spec=SPECS["BackendTLSPolicy"][0])
        found.want("Gateway", "huge", huge)
        found.want("Gateway", "long", one_long)
        found.want("BackendTLSPolicy", "many", PolicyStatus(ancestors=route(*(f"g{n}" for n in range(20))).parents))
        await eventually(lambda: found.outcomes["written"] == 3, within=20)
        assert found.outcomes["refused"] == 0
        written = (await found.read("Gateway", "huge"))["status"]
        assert (len(written["listeners"]), len(written["conditions"]), len(written["addresses"])) == (64, 8, 16)
        assert len((await found.read("Gateway", "long"))["status"]["conditions"][0]["message"]) == 32768
        assert len((await found.read("BackendTLSPolicy", "many"))["status"]["ancestors"]) == 16
        await found.settled()
        assert found.outcomes["written"] == 3


class Rival:
    """Another controller that writes its own entry of a route's status again and again, as a good citizen would."""

    def __init__(self, author: Author, name: str) -> None:
        self.author, self.name = author, name
        self.conflicts = 0

    async def write(self, times: int) -> None:
        for number in range(times):
            while not await self._try(number):
                self.conflicts += 1

    async def _try(self, number: int) -> bool:
        kind = kind_of("HTTPRoute")
        key = Key(self.author.namespace, self.name)
        found = msgspec.json.decode(await self.author._client.request("GET", path_of(kind, key)))
        others = [p for p in found.get("status", {}).get("parents", ()) if p["controllerName"] != OTHER]
        body = {
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "status": {"parents": [self.entry(number), *others]},
        }
        try:
            await self.author._client.request(
                "PATCH",
                path_of(kind, key, subresource="status"),
                body=msgspec.json.encode(body),
                content_type=MERGE_PATCH,
            )
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    def entry(self, number: int) -> dict[str, Any]:
        condition = {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": f"change {number}",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        return {"parentRef": {"name": "theirs"}, "controllerName": OTHER, "conditions": [condition]}


async def test_two_controllers_at_one_route_end_right(apiserver: ApiServer, client: Client, space: str) -> None:
    """Another controller writes 200 times while we change our mind 20 times; both are right in the end, then silent."""
    async with writing(client, space, ["HTTPRoute"]) as found:
        await found.author.create("HTTPRoute", "both", spec={"parentRefs": [{"name": "gw"}]})
        rival = Rival(found.author, "both")

        async def change() -> None:
            for number in range(20):
                found.want("HTTPRoute", "both", route(*(f"gw{n}" for n in range(number + 1))))
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rival.write(200))
            tasks.create_task(change())
        await found.quiet()

        async def is_right() -> bool:
            parents = (await found.read("HTTPRoute", "both"))["status"]["parents"]
            theirs = [p for p in parents if p["controllerName"] == OTHER]
            ours = [p["parentRef"]["name"] for p in parents if p["controllerName"] == OURSELVES]
            assert ours == [f"gw{n}" for n in range(20)]
            assert [c["message"] for p in theirs for c in p["conditions"]] == ["change 199"]
            return True

        await eventually(is_right, within=5)
        writes = sum((await patches(apiserver, space)).values())
        version = (await found.read("HTTPRoute", "both"))["metadata"]["resourceVersion"]
        await found.settled()
        assert sum((await patches(apiserver, space)).values()) == writes
        assert (await found.read("HTTPRoute", "both"))["metadata"]["resourceVersion"] == version
        assert found.outcomes["written"] <= 20


async def test_a_rude_controller_is_not_fought_faster_than_once_a_second(client: Client, space: str) -> None:
    """It replaces the whole list, 50 times a second: we say what we have to say, at our own pace."""
    async with writing(client, space, ["HTTPRoute"]) as found:
        await found.author.create("HTTPRoute", "rude", spec={"parentRefs": [{"name": "gw"}]})
        found.want("HTTPRoute", "rude", route("gw"))
        rival = Rival(found.author, "rude")
        began = asyncio.get_running_loop().time()
        for number in range(100):
            await found.author.patch("HTTPRoute", "rude", "status", status={"parents": [rival.entry(number)]})
            await asyncio.sleep(0.02)
        lasted = asyncio.get_running_loop().time() - began
        assert 1 <= found.outcomes["written"] <= lasted + 1

        async def has_both() -> bool:
            parents = (await found.read("HTTPRoute", "rude"))["status"]["parents"]
            return [p["controllerName"] for p in parents] == [OTHER, OURSELVES]

        await eventually(has_both, within=3)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_thousand_routes_are_written_once_per_generation(
    apiserver: ApiServer, client: Client, space: str
) -> None:
    async with writing(client, space, ["HTTPRoute"]) as found:
        names = [f"r{number}" for number in range(1000)]
        for batch in (names[at : at + 20] for at in range(0, len(names), 20)):
            spec = {"parentRefs": [{"name": "gw"}]}
            await asyncio.gather(*(found.author.create("HTTPRoute", name, spec=spec) for name in batch))
            for name in batch:
                found.want("HTTPRoute", name, route("gw"))
        await eventually(lambda: found.outcomes["written"] == 1000, within=150)
        for batch in (names[at : at + 20] for at in range(0, len(names), 20)):
            await asyncio.gather(
                *(found.author.patch("HTTPRoute", name, spec={"hostnames": ["a.example"]}) for name in batch)
            )
            for name in batch:
                found.want("HTTPRoute", name, route("gw", generation=2))
        await eventually(lambda: found.outcomes["written"] == 2000, within=150)
        await found.settled()
        counted = await patches(apiserver, space)
        assert Counter(counted.values()) == {2: 1000}
        assert found.outcomes["refused"] == found.outcomes["failed"] == 0
        one = await found.read("HTTPRoute", "r999")
        assert one["status"]["parents"][0]["conditions"][0]["observedGeneration"] == one["metadata"]["generation"] == 2


async def test_who_lost_the_lease_writes_nothing(apiserver: ApiServer, client: Client, space: str) -> None:
    async with writing(client, space, ["HTTPRoute"]) as found:
        await found.author.create("HTTPRoute", "r", spec={"parentRefs": [{"name": "gw"}]})
        found.leads = False
        found.want("HTTPRoute", "r", route("gw"))
        await eventually(lambda: found.outcomes[Outcome.FAILED.value] >= 2, within=10)
        assert await patches(apiserver, space) == Counter()
        found.leads = True
        await eventually(lambda: found.outcomes["written"] == 1, within=10)


async def test_an_object_made_anew_gets_its_own_status(client: Client, space: str) -> None:
    async with writing(client, space, ["HTTPRoute"]) as found:
        for _ in range(10):
            await found.author.create("HTTPRoute", "again", spec={"parentRefs": [{"name": "gw"}]})
            found.want("HTTPRoute", "again", route("gw"))

            async def is_written() -> bool:
                return bool((await found.read("HTTPRoute", "again")).get("status", {}).get("parents"))

            await eventually(is_written, within=5)
            await found.author.delete("HTTPRoute", "again")
            found.want("HTTPRoute", "again", None)
        await found.quiet()
        assert found.outcomes["refused"] == 0


@pytest.mark.slow
async def test_a_leader_that_was_frozen_writes_no_status(apiserver: ApiServer, client: Client, space: str) -> None:
    """It is stopped past its lease amid changes, and wakes with a queue full of what it wanted to say."""
    author = Author(client, space)
    names = [f"r{number}" for number in range(20)]
    heard: list[tuple[str, str]] = []

    def hear(kind: Kind, seen: Sequence[Seen]) -> None:
        for each in seen:
            status = msgspec.json.decode(each.observed.status or b"{}") if each.observed else {}
            heard.extend((each.key.name, c["message"]) for p in status.get("parents", ()) for c in p["conditions"])

    async def edit(hostname: str) -> None:
        await asyncio.gather(*(author.patch("HTTPRoute", name, spec={"hostnames": [hostname]}) for name in names))

    def says(message: str) -> bool:
        return {name: text for name, text in heard if name in names} == dict.fromkeys(names, message)

    async with asyncio.TaskGroup() as tasks:
        hearing = tasks.create_task(Reflector(client, kind_of("HTTPRoute"), hear, namespace=space).run())
        async with program("scribe", apiserver, space, "a") as a:
            for name in names:
                await author.create("HTTPRoute", name, spec={"parentRefs": [{"name": "gw"}]})
            await eventually(lambda: says("by a"), within=30)
            async with program("scribe", apiserver, space, "b") as b:
                await edit("one.example")
                a.send_signal(signal.SIGSTOP)
                await edit("two.example")
                await eventually(lambda: says("by b"), within=30)
                heard.clear()
                a.send_signal(signal.SIGCONT)
                await edit("three.example")
                await eventually(lambda: says("by b"), within=30)
                await asyncio.sleep(3)
                assert {message for _name, message in heard} == {"by b"}
                b.kill()
                await eventually(lambda: says("by a"), within=30)
        hearing.cancel()
