"""The writer of statuses against an API server that keeps versions as a real one does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from meshgw.api.meta import Key, ObjectRef
from meshgw.api.registry import REGISTRY
from meshgw.ir.status import ClassStatus, Condition, GatewayStatus, Status
from meshgw.kube.errors import ApiError, UnreachableError
from meshgw.kube.seen import Observed, Seen
from meshgw.write.queue import Pace
from meshgw.write.statuses import StatusWriter
from tests.unit.write.parts import FakeClient, FakeTimer, Request, hold_while, refusal, running, settle
from tests.unit.write.test_status import OTHER, OURSELVES, condition, entry, route

REF = ObjectRef("HTTPRoute", "shop", "cart")
PATH = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart/status"


class Server:
    """Objects of one API server: versions count up, a patch of an old one is refused; `prunes` are fields it drops."""

    def __init__(self) -> None:
        self.objects: dict[ObjectRef, dict[str, Any]] = {}
        self.versions = 10
        self.prunes: set[str] = set()
        self.client = FakeClient(self.answer)
        self.leads = True
        self.timer = FakeTimer()
        self.writer = StatusWriter(
            self.client,  # type: ignore[arg-type] - it stands for one
            registry=REGISTRY,
            controller=OURSELVES,
            hold=hold_while(lambda: self.leads),
            now=lambda: datetime(2026, 2, 2, tzinfo=UTC),
            pace=Pace(floor=1.0, at_once=2),
            timer=self.timer,
        )

    def put(self, ref: ObjectRef = REF, status: Any = None) -> None:
        """Somebody else writes an object; nothing is shown yet."""
        self.versions += 1
        known = self.objects.get(ref, {"generation": 1, "uid": f"u{self.versions}"})
        self.objects[ref] = known | {"resourceVersion": str(self.versions), "status": status or {}}

    def show(self, ref: ObjectRef = REF) -> None:
        """The watch shows an object as it is."""
        kind = REGISTRY.by_name(ref.kind)
        assert kind is not None
        found = self.objects.get(ref)
        observed = found and Observed(
            uid=found["uid"],
            resource_version=found["resourceVersion"],
            generation=found["generation"],
            status=json.dumps(found["status"]).encode(),
        )
        self.writer.observe(kind, [Seen(Key(ref.namespace, ref.name), None, observed or None)])

    def want(self, status: Status | None, ref: ObjectRef = REF) -> None:
        self.writer.desire({ref: status})

    def answer(self, request: Request) -> Any:
        name = request.path.split("/")[-2]
        ref = next((ref for ref in self.objects if ref.name == name), None)
        if ref is None:
            return refusal(404, "NotFound")
        found = self.objects[ref]
        wanted = request.body["metadata"]
        if (wanted["resourceVersion"], wanted["uid"]) != (found["resourceVersion"], found["uid"]):
            return refusal(409, "Conflict")
        status = found["status"] | request.body["status"]
        status = {name: value for name, value in status.items() if value is not None and name not in self.prunes}
        if status != found["status"]:
            self.put(ref, status)
        metadata = {name: self.objects[ref][name] for name in ("uid", "resourceVersion", "generation")}
        return {"metadata": metadata, "status": self.objects[ref]["status"]}

    @property
    def parents(self) -> list[tuple[str, str]]:
        entries = self.objects[REF]["status"]["parents"]
        return [(item["controllerName"], item["parentRef"]["name"]) for item in entries]


@asynccontextmanager
async def following(status: Any = None, *, ref: ObjectRef = REF) -> AsyncIterator[Server]:
    """Yield a server of one object, which the running writer has been shown."""
    server = Server()
    server.put(ref, status)
    async with running(server.writer.run):
        server.show(ref)
        yield server


async def test_what_should_be_said_is_written_once() -> None:
    async with following() as server:
        server.want(route("gw"))
        await server.timer.advance(1)
        assert server.client.made == [f"PATCH {PATH}"]
        assert server.client.requests[0].content_type == "application/merge-patch+json"
        server.show()
        server.want(route("gw"))
        await server.timer.advance(60)
        assert len(server.client.made) == 1
        assert server.parents == [(OURSELVES, "gw")]


async def test_a_change_before_the_echo_builds_on_the_answer() -> None:
    async with following() as server:
        server.want(route("gw"))
        await settle()
        server.want(route("gw", "other"))
        await server.timer.advance(1)
        assert server.parents == [(OURSELVES, "gw"), (OURSELVES, "other")]
        assert len(server.client.made) == 2, "no conflict"


async def test_a_conflict_waits_for_what_the_watch_shows() -> None:
    async with following() as server:
        server.put(status={"parents": [entry("x", controller=OTHER)]})
        server.want(route("gw"))
        await server.timer.advance(60)
        assert len(server.client.made) == 1
        server.show()
        await settle()
        assert server.parents == [(OTHER, "x"), (OURSELVES, "gw")]
        assert len(server.client.made) == 2


async def test_an_object_made_anew_is_not_written_for_the_old_one() -> None:
    async with following() as server:
        server.objects.clear()
        server.versions -= 1
        server.put()
        server.objects[REF]["uid"] = "another"
        server.want(route("gw"))
        await settle()
        assert server.objects[REF]["status"] == {}


async def test_a_route_that_detaches_loses_our_entries_only() -> None:
    async with following({"parents": [entry("x", controller=OTHER), entry("gw")]}) as server:
        await settle()
        assert server.client.made == [], "the commit may still say something about it"
        server.writer.desire({})
        await settle()
        assert server.parents == [(OTHER, "x")]


async def test_a_route_that_appears_with_our_status_keeps_it() -> None:
    """As when a kind is served again: nothing is cleared before it is known what there is to say."""
    accepted = [condition(message="", reason="Accepted"), condition("ResolvedRefs")]
    async with following({"parents": [entry("gw", *accepted)]}) as server:
        await settle()
        server.want(route("gw"))
        await server.timer.advance(5)
        assert server.client.made == []


async def test_a_change_is_not_answered_with_what_was_said_before_it() -> None:
    """A write is due when a new generation is seen: it waits for the commit, and is the only one."""
    newer = tuple(msgspec.structs.replace(c, observed_generation=2) for c in route("gw").parents[0].conditions)
    async with following() as server:
        server.want(route("gw"))
        await server.timer.advance(0.5)
        server.want(route("gw", "other"))
        server.objects[REF]["generation"] = 2
        server.put(status=server.objects[REF]["status"])
        server.show()
        await server.timer.advance(5)
        assert len(server.client.made) == 1
        server.want(route("gw", "other", conditions=newer))
        await server.timer.advance(5)
        assert len(server.client.made) == 2
        server.objects[REF]["generation"] = 3
        server.put(status={})
        server.show()
        server.writer.desire({})
        await server.timer.advance(5)
        assert len(server.parents) == 2, "it cannot be read any more, so what is said is about its past"


async def test_an_object_that_is_gone_is_forgotten() -> None:
    async with following() as server:
        server.want(route("gw"))
        await settle()
        server.objects.clear()
        server.show()
        server.want(None)
        await server.timer.advance(60)
        assert len(server.client.made) == 1
        assert server.writer._objects == {}
        server.want(route("gw"))
        await server.timer.advance(60)
        assert len(server.client.made) == 1


async def test_an_object_that_vanishes_under_the_write_is_no_trouble() -> None:
    async with following() as server:
        server.objects.clear()
        server.want(route("gw"))
        await server.timer.advance(60)
        assert len(server.client.made) == 1


async def test_a_gateway_is_given_back_as_it_was() -> None:
    ref = ObjectRef("Gateway", "shop", "gw")
    accepted = Condition(type="Accepted", status=True, reason="Accepted", observed_generation=1)
    async with following(ref=ref) as server:
        server.want(GatewayStatus(conditions=(accepted,)), ref)
        await server.timer.advance(2)
        assert server.objects[ref]["status"]["conditions"][0]["reason"] == "Accepted"
        server.want(None, ref)
        await server.timer.advance(2)
        assert server.objects[ref]["status"] == {}


async def test_who_does_not_lead_writes_nothing() -> None:
    server = Server()
    server.put()
    server.show()
    server.want(route("gw"))
    await server.timer.advance(60)
    assert server.client.made == []
    server.leads = False
    async with running(server.writer.run):
        await server.timer.advance(60)
        assert server.client.made == []
        server.leads = True
        await server.timer.advance(31)
        assert server.parents == [(OURSELVES, "gw")]


async def test_who_begins_to_lead_compares_everything_again() -> None:
    server = Server()
    server.put()
    server.show()
    server.want(route("gw"))
    for _ in range(2):
        async with running(server.writer.run):
            await server.timer.advance(2)
        assert len(server.client.made) == 1
    server.put(status={"parents": []})
    server.show()
    async with running(server.writer.run):
        await server.timer.advance(2)
    assert server.parents == [(OURSELVES, "gw")]


async def test_a_busy_object_is_written_once_a_second() -> None:
    async with following() as server:
        for number in range(100):
            server.want(route(f"gw{number}"))
            await server.timer.advance(0.1)
        await server.timer.advance(5)
        assert len(server.client.made) == 11
        assert server.parents == [(OURSELVES, "gw99")]


async def test_fields_that_the_server_does_not_know_are_not_sent_for_ever() -> None:
    ref = ObjectRef("GatewayClass", "", "meshgw")
    accepted = Condition(type="Accepted", status=True, reason="Accepted", observed_generation=1)
    async with following(ref=ref) as server:
        server.prunes = {"supportedFeatures"}
        server.want(ClassStatus(conditions=(accepted,), supported_features=("Gateway",)), ref)
        await server.timer.advance(2)
        for _ in range(5):
            server.show(ref)
            await server.timer.advance(2)
        assert len(server.client.made) == 1
        server.want(ClassStatus(conditions=(accepted,), supported_features=("Gateway", "HTTPRoute")), ref)
        await server.timer.advance(2)
        assert len(server.client.made) == 2


async def test_what_others_break_under_our_write_is_put_right() -> None:
    """The watch shows a later version before our answer is here; it lacks our entry, and must not be taken as kept."""
    server = Server()
    server.put()
    gate = asyncio.Event()
    plain = server.answer

    async def slow(request: Request) -> Any:
        found = plain(request)
        server.put(status={"parents": [entry("x", controller=OTHER)]})
        server.show()
        await gate.wait()
        server.client.answer = plain
        return found

    server.client.answer = slow
    async with running(server.writer.run):
        server.show()
        server.want(route("gw"))
        await settle()
        gate.set()
        await server.timer.advance(2)
        assert server.parents == [(OTHER, "x"), (OURSELVES, "gw")]


async def test_an_api_server_that_is_away_costs_time_only() -> None:
    async with following() as server:
        plain = server.answer
        server.client.answer = lambda _request: UnreachableError("away")
        server.want(route("gw"))
        await server.timer.advance(60)
        assert 4 < len(server.client.made) < 10
        server.want(route("newest"))
        server.client.answer = plain
        await server.timer.advance(31)
        assert server.parents == [(OURSELVES, "newest")]


async def test_kinds_without_a_status_of_ours_are_passed_over() -> None:
    server = Server()
    service = ObjectRef("Service", "shop", "cart")
    server.put(service)
    server.show(service)
    assert server.writer._objects == {}


async def test_the_end_writes_what_waits() -> None:
    async with following() as server:
        server.want(route("gw"))
        assert await server.writer.drain(5) == 0
    assert server.parents == [(OURSELVES, "gw")]


async def test_a_refused_status_is_sent_again_when_it_is_another() -> None:
    async with following() as server:
        plain = server.answer
        server.client.answer = lambda _request: ApiError(422, "Invalid", "no")
        server.want(route("gw"))
        await settle()
        server.client.answer = plain
        server.show()
        await settle()
        assert len(server.client.made) == 1
        server.want(route("b"))
        await settle()
        assert server.parents == [(OURSELVES, "b")]


def test_condition_values_are_not_shared_with_the_server() -> None:
    """Raw parts of an answer would keep the whole answer in memory."""
    from meshgw.write.statuses import _observed

    body = json.dumps({"metadata": {"uid": "u"}, "spec": "x" * 9999, "status": {"a": 1}}).encode()
    assert msgspec.json.decode(_observed(body).status) == {"a": 1}
    assert type(_observed(body).status) is bytes
