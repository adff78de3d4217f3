"""Events: one for what happens again and again, few for much, and none that holds anything up."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from meshgw.api.meta import ObjectRef
from meshgw.api.registry import REGISTRY
from meshgw.kube.errors import AccessError, UnreachableError
from meshgw.write.events import EventWriter
from tests.unit.write.parts import FakeClient, FakeTimer, Request, refusal, running, settle

ROUTE = ObjectRef("HTTPRoute", "shop", "cart")
EVENTS = "/apis/events.k8s.io/v1/namespaces/shop/events"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Told:
    def __init__(self) -> None:
        self.timer = FakeTimer()
        self.problem: Exception | None = None
        self.client = FakeClient(self.answer)
        self.counted: Counter[str] = Counter()
        self.writer = EventWriter(
            self.client,  # type: ignore[arg-type] - it stands for one
            registry=REGISTRY,
            instance="meshgw-1",
            now=lambda: START + timedelta(seconds=self.timer.now - 100),
            observer=self,
            timer=self.timer,
        )

    def answer(self, request: Request) -> Any:
        return self.problem or {}

    def turn_ended(self, queue: str, outcome: str) -> None:
        pass

    def queue_waits(self, queue: str, keys: int) -> None:
        pass

    def event_told(self, reason: str) -> None:
        self.counted["told"] += 1

    def event_dropped(self, reason: str) -> None:
        self.counted["dropped"] += 1

    @property
    def notes(self) -> list[str]:
        return [request.body["note"] for request in self.client.requests if request.method == "POST"]


async def test_an_event_says_what_happened_to_which_object() -> None:
    told = Told()
    async with running(told.writer.run):
        told.writer.publish(ROUTE, "Refused", "Envoy says no", uid="u1")
        await settle()
    (request,) = told.client.requests
    assert (request.method, request.path) == ("POST", EVENTS)
    assert request.body.pop("metadata")["name"].startswith("cart.")
    assert request.body == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "meshgw.dev/gateway-controller",
        "reportingInstance": "meshgw-1",
        "action": "Reconcile",
        "reason": "Refused",
        "note": "Envoy says no",
        "type": "Warning",
        "regarding": {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "namespace": "shop",
            "name": "cart",
            "uid": "u1",
        },
    }


async def test_what_happens_again_is_counted_and_not_too_often() -> None:
    told = Told()
    async with running(told.writer.run):
        for _ in range(100):
            told.writer.publish(ROUTE, "Refused", "no")
            await told.timer.advance(1)
        await told.timer.advance(30)
    created, *counted = told.client.requests
    name = created.body["metadata"]["name"]
    assert {repr(request) for request in counted} == {f"PATCH {EVENTS}/{name}"}
    assert [request.body["series"]["count"] for request in counted][-1] == 100
    assert len(counted) == 4
    assert counted[-1].body["series"]["lastObservedTime"] == "2026-01-01T00:01:39.000000Z"


async def test_what_happens_much_later_is_news() -> None:
    told = Told()
    async with running(told.writer.run):
        told.writer.publish(ROUTE, "Refused", "no")
        await told.timer.advance(599)
        told.writer.publish(ROUTE, "Refused", "no")
        await told.timer.advance(601)
        told.writer.publish(ROUTE, "Refused", "no")
        await settle()
    assert [request.method for request in told.client.requests] == ["POST", "PATCH", "POST"]


async def test_many_texts_of_one_matter_become_few_events() -> None:
    told = Told()
    async with running(told.writer.run):
        for number in range(10):
            told.writer.publish(ROUTE, "Refused", f"no {number}")
        told.writer.publish(ROUTE, "Other", "yes", warning=False)
        await told.timer.advance(31)
    assert told.notes == ["no 0", "no 1", "no 2", "yes"]
    assert told.client.requests[-1].body["series"]["count"] == 8
    assert told.client.requests[3].body["type"] == "Normal"


async def test_a_flood_is_cut_and_what_is_lost_is_counted() -> None:
    told = Told()
    async with running(told.writer.run):
        for number in range(200):
            told.writer.publish(ObjectRef("HTTPRoute", "shop", f"r{number}"), "Refused", "no")
        await settle()
        assert told.counted == {"told": 25, "dropped": 175}
        await told.timer.advance(10)
        for number in range(200):
            told.writer.publish(ObjectRef("HTTPRoute", "shop", f"s{number}"), "Refused", "no")
        await settle()
        assert told.counted == {"told": 35, "dropped": 365}


async def test_a_tenant_with_much_to_be_told_does_not_keep_others_from_being_told() -> None:
    told = Told()
    async with running(told.writer.run):
        for number in range(200):
            told.writer.publish(ObjectRef("HTTPRoute", "noisy", f"r{number}"), "Refused", "no")
        told.writer.publish(ROUTE, "Refused", "the other tenant's")
        told.writer.publish(ObjectRef("GatewayClass", "", "meshgw"), "Refused", "nobody's")
        await settle()
    assert told.notes[-2:] == ["the other tenant's", "nobody's"]
    assert told.counted == {"told": 27, "dropped": 175}


async def test_an_event_that_is_refused_is_dropped() -> None:
    told = Told()
    told.problem = refusal(403, "Forbidden")
    async with running(told.writer.run):
        told.writer.publish(ROUTE, "Refused", "no")
        await told.timer.advance(3600)
    assert len(told.client.requests) == 1
    assert told.counted == {"dropped": 1}


async def test_an_api_server_that_is_away_is_asked_three_times() -> None:
    for problem in (UnreachableError("away"), AccessError("no token"), refusal(503)):
        told = Told()
        told.problem = problem
        async with running(told.writer.run):
            told.writer.publish(ROUTE, "Refused", "no")
            await told.timer.advance(3600)
        assert len(told.client.requests) == 3
        assert told.counted == {"dropped": 1}


async def test_an_event_that_the_server_has_forgotten_is_made_anew() -> None:
    told = Told()
    async with running(told.writer.run):
        told.writer.publish(ROUTE, "Refused", "no")
        await settle()
        told.client.answer = lambda request: refusal(404) if request.method == "PATCH" else {}
        told.writer.publish(ROUTE, "Refused", "no")
        await told.timer.advance(120)
    assert [request.method for request in told.client.requests][:3] == ["POST", "PATCH", "POST"]
    assert len(set(told.notes)) == 1


async def test_what_happens_before_the_writer_runs_is_told() -> None:
    told = Told()
    told.writer.publish(ROUTE, "Refused", "no")
    async with running(told.writer.run):
        await settle()
    assert told.notes == ["no"]


async def test_events_fit_into_the_api() -> None:
    told = Told()
    async with running(told.writer.run):
        told.writer.publish(ObjectRef("Gateway", "shop", "g" * 253), "R" * 200, "é" * 2000)
        told.writer.publish(ObjectRef("GatewayClass", "", "meshgw"), "Accepted", "yes")
        told.writer.publish(ObjectRef("Deployment", "shop", "x"), "FailedCreate", "no")
        await settle()
    long, cluster, deployment = told.client.requests
    assert len(long.body["note"].encode()) <= 1024
    assert long.body["note"].endswith("é…")
    assert len(long.body["reason"]) == 128
    assert len(long.body["metadata"]["name"]) <= 253
    assert cluster.path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert "namespace" not in cluster.body["regarding"]
    assert deployment.body["regarding"]["apiVersion"] == "apps/v1"


async def test_memory_is_bounded() -> None:
    told = Told()
    for number in range(5000):
        told.writer.publish(ObjectRef("HTTPRoute", "shop", f"r{number}"), "Refused", "no")
        told.writer.publish(ObjectRef("HTTPRoute", f"n{number}", "r"), "Refused", "no")
        told.timer.now += 0.2
    assert len(told.writer._series) <= 1000
    assert len(told.writer._tokens) <= 4096
