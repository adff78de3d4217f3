"""Candidates for one lease of a real API server: one leads, whatever happens to the others' time."""

from __future__ import annotations

import asyncio
import itertools
import signal
from typing import Any

import msgspec
import pytest

from meshgw.kube.client import MERGE_PATCH, Client
from meshgw.kube.clock import SystemClock
from meshgw.kube.errors import UnreachableError
from meshgw.kube.lease import Elector, NotLeaderError
from meshgw.kube.paths import LEASE_API, resource_path
from meshgw.write.workload import PROXY_KINDS, OwnedObject
from tests.cluster.apiserver import ApiServer
from tests.kube.following import Author, following, program, running
from tests.rig.waiting import eventually


def elector(client: Client, space: str, identity: str, **options: Any) -> Elector:
    return Elector(client, namespace=space, name="writer", identity=identity, **{"duration": 6, **options})


async def _spec(client: Client, space: str) -> dict[str, Any]:
    path = resource_path(LEASE_API, "leases", namespace=space, name="writer")
    spec: dict[str, Any] = msgspec.json.decode(await client.request("GET", path))["spec"]
    return spec


async def test_one_leads_and_gives_the_lease_back(client: Client, space: str) -> None:
    told: list[tuple[str, bool]] = []
    first = elector(client, space, "first", changed=lambda leads: told.append(("first", leads)), duration=30)
    second = elector(client, space, "second", changed=lambda leads: told.append(("second", leads)))
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(first.run())
        await eventually(lambda: first.is_leader, within=15)
        assert 10 < first.check() <= 20
        following_ = group.create_task(second.run())
        await eventually(lambda: second.holder == "first", within=15)
        with pytest.raises(NotLeaderError, match="first holds the lease"):
            second.check()
        with pytest.raises(NotLeaderError):
            async with second.hold():
                pytest.fail("a follower must not write")

        leading.cancel()
        await eventually(lambda: second.is_leader, within=15)  # long before the 30 seconds are over
        assert not first.is_leader
        following_.cancel()
    assert told == [("first", True), ("first", False), ("second", True), ("second", False)]
    spec = await _spec(client, space)
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("", 1)
    assert (first.transitions, second.transitions) == (2, 2)


async def test_renewal_changes_only_what_is_its_own(client: Client, space: str) -> None:
    leader = elector(client, space, "leader")
    async with running(leader):
        await eventually(lambda: leader.is_leader, within=15)
        path = resource_path(LEASE_API, "leases", namespace=space, name="writer")
        body = b'{"metadata": {"labels": {"team": "edge"}}}'
        await client.request("PATCH", path, body=body, content_type=MERGE_PATCH)  # a conflict for the next renewal
        before = await _spec(client, space)

        async def is_renewed() -> bool:
            return (await _spec(client, space))["renewTime"] != before["renewTime"]

        await eventually(is_renewed, within=15)
        after = await _spec(client, space)
        assert after["acquireTime"] == before["acquireTime"]
        lease = msgspec.json.decode(await client.request("GET", path))
        assert lease["metadata"]["labels"] == {"team": "edge"}
        assert leader.transitions == 1


async def test_leader_whose_time_is_over_knows_it_before_anything_happens(client: Client, space: str) -> None:
    clock = Ahead()
    leader = elector(client, space, "leader", clock=clock)
    async with running(leader):
        await eventually(lambda: leader.is_leader, within=15)
        clock.ahead = 4.01
        assert not leader.is_leader
        with pytest.raises(NotLeaderError):
            leader.check()
        await eventually(lambda: leader.is_leader, within=15)  # nobody took it, so it may go on


async def test_write_that_was_allowed_is_not_sent_too_late(client: Client, space: str) -> None:
    """As for one who is stopped between the permission and the first byte."""
    clock = Ahead()
    leader = elector(client, space, "leader", clock=clock)
    author = Author(client, space)

    async def write(name: str, stopped: float) -> None:
        async with leader.hold():
            clock.ahead += stopped
            await author.config_maps(name)

    async def remove(name: str, stopped: float) -> None:
        async with leader.hold():
            clock.ahead += stopped
            await author.delete("ConfigMap", name)

    async with running(leader):
        await eventually(lambda: leader.is_leader, within=15)
        await write("timely", 0)
        with pytest.raises(NotLeaderError, match="too long ago"):
            await write("late", 4.01)
        await eventually(lambda: leader.is_leader, within=15)
        with pytest.raises(NotLeaderError, match="too long ago"):
            await remove("timely", 4.01)
        await author.config_maps("unguarded")
        await eventually(lambda: leader.is_leader, within=15)
        await remove("unguarded", 0)
    async with following(client, "ConfigMap", namespace=space) as (_, record):
        assert record.names() == {"timely"}


async def test_leader_that_cannot_renew_stops_its_write(client: Client, space: str) -> None:
    cut = Cut(client)
    told: list[bool] = []
    leader = elector(cut, space, "leader", changed=told.append)
    async with running(leader):
        await eventually(lambda: leader.is_leader, within=15)
        cut.off = True
        with pytest.raises(NotLeaderError, match="ended during the write"):
            async with leader.hold():
                await asyncio.sleep(30)
        assert not leader.is_leader
        await eventually(lambda: told == [True, False], within=15)
        cut.off = False
        await eventually(lambda: leader.is_leader, within=15)
        with pytest.raises(TimeoutError):  # a time limit of the writer's own stays one
            async with leader.hold(), asyncio.timeout(0):
                await asyncio.sleep(30)
    assert told == [True, False, True, False]


@pytest.mark.slow
async def test_frozen_leader_never_writes_again(apiserver: ApiServer, client: Client, space: str) -> None:
    """Two processes write as often as they may. Each in turn is stopped until the other leads, and then goes on."""
    await Author(client, space).create("ConfigMap", "log", data={})
    writes: list[str] = []
    # As the writer of proxies reads it: with all data.
    kind = next(kind for kind in PROXY_KINDS if kind.name == "ConfigMap")
    async with following(client, kind, namespace=space, field_selector="metadata.name=log") as (_, record):

        def note() -> list[str]:
            for _, seen in record.calls:
                for each in seen:
                    data = bytes(each.object.data) if isinstance(each.object, OwnedObject) else b""
                    new = (msgspec.json.decode(data) if data else {}).keys() - set(writes)
                    writes.extend(sorted(new))
            record.calls.clear()
            return [key.partition("-")[0] for key in writes]

        async with program("candidate", apiserver, space, "a") as a:
            await eventually(note, within=40)
            async with program("candidate", apiserver, space, "b") as b:
                await asyncio.sleep(1)
                assert set(note()) == {"a"}
                leader, other = (a, "a"), (b, "b")
                for _ in range(3):
                    leader[0].send_signal(signal.SIGSTOP)
                    await eventually(lambda name=other[1]: note()[-1] == name, within=40)
                    leader[0].send_signal(signal.SIGCONT)
                    count = len(note())
                    await eventually(lambda count=count: len(note()) > count + 20, within=40)
                    leader, other = other, leader
                # One killed is followed too, after its time.
                leader[0].kill()
                await eventually(lambda name=other[1]: note()[-1] == name, within=40)
                transitions = (await _spec(client, space))["leaseTransitions"]
        order = note()
        changes = sum(one != other for one, other in itertools.pairwise(order))
        assert 4 <= changes <= transitions


class Ahead(SystemClock):
    """A clock that can be set forward, as for one who was stopped."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


class Cut(Client):
    """A client whose wire can be cut."""

    def __init__(self, client: Client) -> None:
        self.__dict__.update(client.__dict__)
        self.off = False

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        if self.off:
            raise UnreachableError("the wire is cut")
        return await super().request(method, path, **options)
