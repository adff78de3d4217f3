"""What becomes of tokens; the API server here says what a test wants, the real one has its own tests."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import pytest

from meshgw.api.meta import Key
from meshgw.cluster.authenticate import FORGIVEN, TokenReviewer, authorize_owners
from meshgw.kube.client import ApiError, Client, UnreachableError
from meshgw.xds.proxy import Account, Peer, Refused

NOW = 1_800_000_000.0
ACCOUNT = Account(namespace="shop", service_account="gw-meshgw", pod="gw-1", pod_uid="uid-1")
EXTRA = {
    "authentication.kubernetes.io/pod-name": ["gw-1"],
    "authentication.kubernetes.io/pod-uid": ["uid-1"],
}
ACCEPTED = {
    "authenticated": True,
    "user": {"username": "system:serviceaccount:shop:gw-meshgw", "uid": "1", "extra": EXTRA},
    "audiences": ["meshgw"],
}


def token(name: str = "a", **claims: Any) -> str:
    """Something of a token's shape, signed by nobody."""
    body = base64.urlsafe_b64encode(json.dumps({"exp": NOW + 3600, "jti": name, **claims}).encode()).decode()
    return f"e30.{body.rstrip('=')}.c2lnbmVk"


def bearing(text: str) -> Peer:
    return Peer(address="ipv4:10.0.0.1:1", headers={"authorization": f"Bearer {text}"})


class Api:
    """An API server's tokenreviews: `status` is answered, or raised, once `open` is set."""

    def __init__(self, status: Any = ACCEPTED) -> None:
        self.status = status
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.open = asyncio.Event()
        self.open.set()
        self.reached = asyncio.Event()

    async def request(self, method: str, path: str, *, body: bytes, timeout: float) -> bytes:  # noqa: ASYNC109
        assert (method, path) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
        spec = json.loads(body)["spec"]
        assert spec["audiences"] == ["meshgw"]
        self.asked.append(spec["token"])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.reached.set()
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        if isinstance(self.status, Exception):
            raise self.status
        return self.status if isinstance(self.status, bytes) else json.dumps({"status": self.status}).encode()


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Outcomes(Counter[str]):
    def token_reviewed(self, outcome: str) -> None:
        self[outcome] += 1


class Rig:
    """A reviewer with its surroundings."""

    def __init__(self, status: Any = ACCEPTED, **options: Any) -> None:
        self.api = Api(status)
        self.clock = Clock(0.0)
        self.outcomes = Outcomes()
        self.review = TokenReviewer(
            cast("Client", self.api),
            observer=self.outcomes,
            clock=self.clock,
            wall_clock=lambda: NOW + self.clock.now,
            **options,
        )


async def code_of(rig: Rig, text: str) -> str:
    verdict = await rig.review(bearing(text))
    return verdict.code if isinstance(verdict, Refused) else "OK"


async def test_a_token_of_a_pod_proves_its_account() -> None:
    rig = Rig()
    verdict = await rig.review(bearing(token()))
    assert isinstance(verdict, Peer)
    assert (verdict.account, verdict.address, verdict.proven_for) == (ACCOUNT, "ipv4:10.0.0.1:1", 3600.0)
    assert rig.outcomes == {"accepted": 1}


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer ",
        "Bearer",
        "Basic dXNlcjpwYXNz",
        "Bearer opaque",
        "Bearer a.b",
        "Bearer a.!!.c",
        "Bearer a.e30.c",
        "Bearer a.eyJleHAiOiJzb29uIn0.c",
        f"Bearer {token(fill='x' * 20_000)}",
    ],
)
async def test_what_is_no_token_is_refused_without_asking(credential: str) -> None:
    rig = Rig()
    headers = {"authorization": credential} if credential else {}
    verdict = await rig.review(Peer(address="", headers=headers))
    assert isinstance(verdict, Refused)
    assert verdict.code == "UNAUTHENTICATED"
    assert rig.api.asked == []


async def test_the_scheme_is_read_in_any_case() -> None:
    rig = Rig()
    assert isinstance(await rig.review(Peer(address="", headers={"authorization": f"bearer {token()}"})), Peer)


def changed(**fields: Any) -> dict[str, Any]:
    return {**ACCEPTED, **fields}


def user(name: str = "system:serviceaccount:shop:gw-meshgw", **extra: list[str]) -> dict[str, Any]:
    named = {f"authentication.kubernetes.io/{key.replace('_', '-')}": value for key, value in extra.items()}
    return {"username": name, "extra": {**EXTRA, **named}}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False, "error": "expired"},
        changed(authenticated=False),
        changed(audiences=[]),
        changed(audiences=["https://kubernetes.default.svc"]),
        changed(user=user("system:node:a")),
        changed(user=user("system:admin")),
        changed(user=user("system:serviceaccount:shop")),
        changed(user=user("system:serviceaccount::gw")),
        changed(user={"username": "system:serviceaccount:shop:gw-meshgw"}),
        changed(user=user(pod_name=[])),
        changed(user=user(pod_uid=["a", "b"])),
    ],
)
async def test_only_an_accepted_token_of_a_pod_for_this_audience_counts(status: Any) -> None:
    rig = Rig(status)
    assert await code_of(rig, token()) == "UNAUTHENTICATED"
    assert rig.outcomes == {"refused": 1}


@pytest.mark.parametrize(
    "failure",
    [
        ApiError(500, "InternalError", "etcd"),
        ApiError(403, "Forbidden", "no"),
        UnreachableError("away"),
        TimeoutError(),
        b"<html>",
        b'{"status": {"authenticated": "yes"}}',
        b"{}",
    ],
)
async def test_nobody_is_let_in_while_the_api_server_says_nothing(failure: Any) -> None:
    rig = Rig(failure)
    assert await code_of(rig, token()) == "UNAVAILABLE"
    rig.api.status = ACCEPTED
    assert await code_of(rig, token()) == "OK"
    assert rig.outcomes == {"unavailable": 1, "accepted": 1}


async def test_an_accepted_token_is_remembered_for_a_minute_even_without_the_api_server() -> None:
    rig = Rig()
    assert await code_of(rig, token()) == "OK"
    rig.api.status = UnreachableError("away")
    rig.clock.now = 59.9
    verdict = await rig.review(bearing(token()))
    assert isinstance(verdict, Peer)
    assert verdict.account == ACCOUNT
    assert verdict.proven_for == pytest.approx(3540.1)
    assert await code_of(rig, token("another")) == "UNAVAILABLE"
    rig.clock.now = 60.0
    assert await code_of(rig, token()) == "UNAVAILABLE"
    assert rig.outcomes == {"accepted": 1, "remembered": 1, "unavailable": 2}


async def test_a_token_is_not_remembered_beyond_its_end() -> None:
    rig = Rig()
    short = token(exp=NOW + 10)
    verdict = await rig.review(bearing(short))
    assert isinstance(verdict, Peer)
    assert verdict.proven_for == FORGIVEN
    rig.api.status = {"authenticated": False, "error": "expired"}
    rig.clock.now = 9.9
    assert await code_of(rig, short) == "OK"
    rig.clock.now = 10.0
    assert await code_of(rig, short) == "UNAUTHENTICATED"
    assert len(rig.api.asked) == 2


async def test_a_refused_token_is_remembered_for_a_moment() -> None:
    rig = Rig({"authenticated": False})
    for _ in range(3):
        assert await code_of(rig, token()) == "UNAUTHENTICATED"
    assert len(rig.api.asked) == 1
    rig.api.status = ACCEPTED
    rig.clock.now = 5.0
    assert await code_of(rig, token()) == "OK"


async def test_memory_is_bounded_and_made_up_tokens_drive_no_real_ones_out() -> None:
    rig = Rig(capacity=2)
    for name in ("a", "b"):
        await code_of(rig, token(name))
    await code_of(rig, token("a"))  # asked for again: `b` is now the oldest
    await code_of(rig, token("c"))
    rig.api.status = {"authenticated": False}
    for number in range(10):
        assert await code_of(rig, token(f"made-up-{number}")) == "UNAUTHENTICATED"
    asked = len(rig.api.asked)
    assert [await code_of(rig, token(name)) for name in ("a", "c", "b")] == ["OK", "OK", "UNAUTHENTICATED"]
    assert len(rig.api.asked) == asked + 1
    assert max(len(rig.review._accepted._verdicts), len(rig.review._refused._verdicts)) <= 2


async def test_reviews_of_one_token_at_a_time_are_one_review() -> None:
    rig = Rig()
    rig.api.open.clear()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(code_of(rig, token())) for _ in range(20)]
        await rig.api.reached.wait()
        await asyncio.sleep(0)
        rig.api.open.set()
    assert [task.result() for task in running] == ["OK"] * 20
    assert len(rig.api.asked) == 1


async def test_a_failure_is_shared_by_those_who_waited_and_by_nobody_else() -> None:
    rig = Rig(UnreachableError("away"))
    rig.api.open.clear()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(code_of(rig, token())) for _ in range(5)]
        await rig.api.reached.wait()
        await asyncio.sleep(0)
        rig.api.open.set()
    assert [task.result() for task in running] == ["UNAVAILABLE"] * 5
    assert len(rig.api.asked) == 1
    assert await code_of(rig, token()) == "UNAVAILABLE"
    assert len(rig.api.asked) == 2


async def test_if_the_one_that_asks_goes_away_another_asks() -> None:
    rig = Rig()
    rig.api.open.clear()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(code_of(rig, token()))
        await rig.api.reached.wait()
        others = [tasks.create_task(code_of(rig, token())) for _ in range(3)]
        await asyncio.sleep(0)
        others[0].cancel()
        first.cancel()
        await asyncio.sleep(0)
        rig.api.open.set()
    assert [task.result() for task in others[1:]] == ["OK", "OK"]
    assert len(rig.api.asked) == 2
    assert rig.review._under_way == {}


async def test_few_reviews_go_at_once() -> None:
    rig = Rig(at_once=3)
    rig.api.open.clear()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(code_of(rig, token(str(number)))) for number in range(10)]
        await rig.api.reached.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        rig.api.open.set()
    assert [task.result() for task in running] == ["OK"] * 10
    assert rig.api.most_at_once == 3


async def test_tokens_are_neither_logged_nor_kept(capsys: pytest.CaptureFixture[str]) -> None:
    secret = token("secret")
    for status in (
        {"authenticated": False, "error": f"[invalid bearer token: {secret}]"},
        UnreachableError(f"cannot send {secret}"),
        ACCEPTED,
    ):
        rig = Rig(status)
        verdict = await rig.review(bearing(secret))
        kept = [rig.review._accepted._verdicts, rig.review._refused._verdicts, verdict]
        assert secret not in repr(kept)
    printed = "".join(capsys.readouterr())
    assert "invalid bearer token" in printed
    assert "cannot send" in printed
    assert secret not in printed


async def test_a_flood_of_made_up_tokens_does_not_flood_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    review = TokenReviewer(cast("Client", Api({"authenticated": False, "error": "nonsense"})))
    for number in range(100):
        assert isinstance(await review(bearing(token(str(number)))), Refused)
    assert "".join(capsys.readouterr()).count("nonsense") < 25


# Whose configuration

GATEWAYS = {("shop", "gw-meshgw"): Key("shop", "gw"), ("other", "gw-meshgw"): Key("other", "gw")}


def gateway_of(namespace: str, service_account: str) -> Key | None:
    return GATEWAYS.get((namespace, service_account))


def decide(node_id: str, account: Account | None = ACCOUNT, metadata: Mapping[str, object] | None = None) -> Any:
    return authorize_owners(gateway_of)(Peer(address="", account=account), node_id, metadata or {})


def test_a_pod_gets_the_configuration_of_its_own_gateway() -> None:
    assert decide("shop/gw/gw-1") == "shop/gw"


@pytest.mark.parametrize(
    "node_id",
    ["", "shop/gw", "shop/gw/", "shop/gw/gw-2", "shop/other/gw-1", "other/gw/gw-1", "shop/gw/gw-1/x", "SHOP/gw/gw-1"],
)
def test_no_other_node_id_will_do(node_id: str) -> None:
    refused = decide(node_id, metadata={"gateway": "shop/gw"})
    assert isinstance(refused, Refused)
    assert refused.code == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    "account",
    [
        Account(namespace="shop", service_account="default", pod="gw-1", pod_uid="u"),
        Account(namespace="elsewhere", service_account="gw-meshgw", pod="gw-1", pod_uid="u"),
        Account(namespace="other", service_account="gw-meshgw", pod="gw-1", pod_uid="u"),
    ],
)
def test_no_other_account_will_do(account: Account) -> None:
    refused = decide("shop/gw/gw-1", account)
    assert isinstance(refused, Refused)
    assert refused.code == "PERMISSION_DENIED"


def test_an_account_never_has_a_gateway_of_another_namespace() -> None:
    refused = authorize_owners(lambda *_: Key("other", "gw"))(Peer(address="", account=ACCOUNT), "other/gw/gw-1", {})
    assert isinstance(refused, Refused)


def test_without_an_account_there_is_nothing() -> None:
    refused = decide("shop/gw/gw-1", None)
    assert isinstance(refused, Refused)
    assert refused.code == "UNAUTHENTICATED"
