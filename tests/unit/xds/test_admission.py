"""Proof first, then room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from meshgw.xds.admission import Admission
from meshgw.xds.proxy import Account, CloseCode, Limits, Peer, Refused

PEER = Peer(address="ipv4:10.0.0.1:1", headers={"authorization": "Bearer very-secret", "x-other": "kept"})


def account(pod: str = "p", name: str = "gw", namespace: str = "ns") -> Account:
    return Account(namespace=namespace, service_account=name, pod=pod, pod_uid=f"{pod}-uid")


def admission(*accounts: Account, **limits: Any) -> Admission:
    """An admission whose peers prove to be these accounts, one after the other."""
    found = iter(accounts)

    async def authenticate(peer: Peer) -> Peer:
        return replace(peer, account=next(found))

    return Admission(authenticate, Limits(**limits))


async def test_without_authentication_peers_stay_who_they_are() -> None:
    admission = Admission(None, Limits(streams=1))
    assert await admission.enter(PEER) is PEER
    assert await admission.enter(PEER) == Refused("too many streams", "RESOURCE_EXHAUSTED")
    admission.leave(PEER)
    assert await admission.enter(PEER) is PEER


async def test_the_proof_is_dropped_once_it_is_checked() -> None:
    door = admission(account())
    peer = await door.enter(PEER)
    assert isinstance(peer, Peer)
    assert peer.account == account()
    assert peer.headers == {"x-other": "kept"}
    assert "very-secret" not in repr(PEER)


async def test_a_refusal_is_passed_on_and_not_counted() -> None:
    async def authenticate(peer: Peer) -> Refused:
        return Refused("no token", "UNAUTHENTICATED")

    admission = Admission(authenticate, Limits(streams=1))
    for _ in range(3):
        assert await admission.enter(PEER) == Refused("no token", "UNAUTHENTICATED")


async def test_nobody_is_let_in_without_an_account() -> None:
    async def authenticate(peer: Peer) -> Peer:
        return peer

    verdict = await Admission(authenticate, Limits()).enter(PEER)
    assert isinstance(verdict, Refused)
    assert verdict.code == "UNAUTHENTICATED"


async def test_nobody_is_let_in_by_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    async def authenticate(peer: Peer) -> Peer:
        raise KeyError(peer.headers["authorization"])

    verdict = await Admission(authenticate, Limits()).enter(PEER)
    assert verdict == Refused("authentication is not possible now", "UNAVAILABLE")
    printed = capsys.readouterr()
    assert "KeyError" in printed.out + printed.err
    assert "very-secret" not in printed.out + printed.err


async def test_authentication_has_its_time_and_those_who_wait_are_few() -> None:
    reached = asyncio.Event()

    async def authenticate(peer: Peer) -> Peer:
        reached.set()
        await asyncio.Event().wait()
        return peer

    admission = Admission(authenticate, Limits(waiting=1, patience=0.05))
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(admission.enter(PEER))
        await reached.wait()
        second = await admission.enter(PEER)
    assert first.result() == Refused("authentication took too long", "UNAVAILABLE")
    assert second == Refused("too many streams are being authenticated", "RESOURCE_EXHAUSTED")


async def test_an_address_that_fails_often_is_not_heard_for_a_while_and_others_are() -> None:
    heard: list[str] = []
    now = 0.0

    async def authenticate(peer: Peer) -> Peer | Refused:
        heard.append(peer.address)
        if peer.headers:
            return Refused("no", "UNAUTHENTICATED")
        return replace(peer, account=account())

    def at(address: str) -> Peer:
        return replace(PEER, address=address)

    door = Admission(authenticate, Limits(failures=1.0, failure_burst=3.0), clock=lambda: now)
    verdicts = [await door.enter(at(f"ipv4:10.0.0.1:{port}")) for port in range(5)]
    codes = [verdict.code for verdict in verdicts if isinstance(verdict, Refused)]
    assert codes == ["UNAUTHENTICATED"] * 3 + ["RESOURCE_EXHAUSTED"] * 2
    assert len(heard) == 3
    assert isinstance(await door.enter(replace(at("ipv4:10.0.0.2:1"), headers={})), Peer)
    now = 1.0
    assert isinstance(await door.enter(replace(at("ipv4:10.0.0.1:9"), headers={})), Peer)
    assert len(heard) == 5


async def test_an_absent_api_server_is_nobodys_failure_and_addresses_are_bounded() -> None:
    code: CloseCode = "UNAVAILABLE"

    async def authenticate(peer: Peer) -> Refused:
        return Refused("later", code)

    door = Admission(authenticate, Limits())
    for _ in range(300):
        assert await door.enter(PEER) == Refused("later", "UNAVAILABLE")
    code = "UNAUTHENTICATED"
    for number in range(5_000):
        await door.enter(replace(PEER, address=f"ipv4:10.0.{number // 250}.{number % 250}:1"))
    assert len(door._failures) == 4096


async def test_who_goes_away_while_waiting_makes_room() -> None:
    calls = 0

    async def authenticate(peer: Peer) -> Peer:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return replace(peer, account=account())

    admission = Admission(authenticate, Limits(waiting=1, streams=1))
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(admission.enter(PEER))
        while calls == 0:  # noqa: ASYNC110 - the task has no event of ours
            await asyncio.sleep(0)
        first.cancel()
    assert isinstance(await admission.enter(PEER), Peer)


async def test_pods_and_accounts_have_room_of_their_own() -> None:
    accounts = [
        account("a"),
        account("a"),
        account("a"),  # one too many of the pod
        account("b"),
        account("c"),  # one too many of the account
        account("c", name="other"),
        account("a", namespace="elsewhere"),
        account("c"),  # after the first of the pod `a` has left
    ]
    door = admission(*accounts, streams_per_pod=2, streams_per_account=3)
    verdicts = [await door.enter(PEER) for _ in range(7)]
    assert [found.reason if isinstance(found, Refused) else "" for found in verdicts] == [
        "",
        "",
        "too many streams of this pod",
        "",
        "too many streams of this ServiceAccount",
        "",
        "",
    ]
    first = verdicts[0]
    assert isinstance(first, Peer)
    door.leave(first)
    assert isinstance(await door.enter(PEER), Peer)


async def test_no_namespace_has_all_the_room() -> None:
    accounts = [account(str(number), name=str(number)) for number in range(3)]
    door = admission(*accounts, account("elsewhere", namespace="elsewhere"), streams_per_namespace=2)
    verdicts = [await door.enter(PEER) for _ in range(4)]
    assert [found.reason if isinstance(found, Refused) else "" for found in verdicts] == [
        "",
        "",
        "too many streams of this namespace",
        "",
    ]


async def test_nothing_is_remembered_of_those_who_left() -> None:
    door = admission(account(), account())
    for _ in range(2):
        peer = await door.enter(PEER)
        assert isinstance(peer, Peer)
        door.leave(peer)
    assert (door._streams, door._of_account, door._of_pod) == (0, {}, {})
