"""The server's certificate and its Secrets; the API server here is a dictionary, the real one has its own tests."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.x509 import verification

from meshgw.api.meta import Key
from meshgw.cluster import roots
from meshgw.cluster.roots import Plan, Served
from meshgw.cluster.serving import (
    PROPAGATION,
    GivenSecret,
    OwnAuthority,
    ServingCertificate,
    ServingError,
    Source,
    server_names,
)
from meshgw.kube.client import ApiError, Client, UnreachableError
from tests.rig.certs import CertificateAuthority, Leaf, bundle

SECRET = Key("meshgw-system", "meshgw-xds")
PATH = "/api/v1/namespaces/meshgw-system/secrets"
NAMES = server_names(Key("meshgw-system", "meshgw"))
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Store:
    """The Secrets of a namespace, with versions, and with what a test puts between reads and writes."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.write_error: Exception | None = None
        self.before_write: Callable[[], None] = lambda: None
        self._version = 0

    async def request(self, method: str, path: str, *, body: bytes = b"") -> bytes:
        await asyncio.sleep(0)
        self.calls.append(method)
        if self.error is not None:
            raise self.error
        name = path.removeprefix(PATH).strip("/")
        if method == "GET":
            if name not in self.objects:
                raise ApiError(404, "NotFound")
            return json.dumps(self.objects[name]).encode()
        self.before_write()
        if self.write_error is not None:
            raise self.write_error
        found = json.loads(body)
        if method == "POST":
            if found["metadata"]["name"] in self.objects:
                raise ApiError(409, "AlreadyExists")
        elif name not in self.objects:
            raise ApiError(404, "NotFound")
        elif found["metadata"]["resourceVersion"] != self.objects[name]["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict")
        self.put(found)
        return body

    def put(self, found: dict[str, Any]) -> None:
        self._version += 1
        metadata = {**found["metadata"], "resourceVersion": str(self._version)}
        self.objects[metadata["name"]] = {**found, "metadata": metadata}

    def put_data(self, **data: bytes) -> None:
        encoded = {name.replace("_", "."): base64.b64encode(value).decode() for name, value in data.items()}
        self.put({"kind": "Secret", "metadata": {"name": SECRET.name}, "data": encoded})

    def put_leaf(self, leaf: Leaf, ca: bytes) -> None:
        self.put_data(tls_crt=leaf.chain, tls_key=leaf.key, ca_crt=ca)


@pytest.fixture
def store() -> Store:
    return Store()


def authority(store: Store, plan: Plan | None = None) -> OwnAuthority:
    return OwnAuthority(cast("Client", store), SECRET, NAMES, plan=plan)


def given(store: Store) -> GivenSecret:
    return GivenSecret(cast("Client", store), SECRET)


async def look(source: Source, now: datetime) -> Served:
    await source.refresh(now)
    served = source.served(now)
    assert served is not None
    return served


def verifies(trust: bytes, served: Served, now: datetime, name: str = NAMES[0]) -> bool:
    anchors = verification.Store(x509.load_pem_x509_certificates(trust))
    verifier = verification.PolicyBuilder().store(anchors).time(now).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(x509.load_pem_x509_certificate(served.chain), [])
    except verification.VerificationError:
        return False
    return True


def test_the_names_are_those_of_a_service() -> None:
    assert NAMES == (
        "meshgw.meshgw-system.svc",
        "meshgw.meshgw-system",
        "meshgw.meshgw-system.svc.cluster.local",
    )


# A CA of its own


async def test_the_secret_is_made_once_and_every_replica_serves_by_it(store: Store) -> None:
    replicas = [authority(store) for _ in range(5)]
    served = await asyncio.gather(*(look(replica, START) for replica in replicas))
    assert len({one.trust for one in served}) == 1
    assert len({one.chain for one in served}) == 5
    assert all(verifies(served[0].trust, one, START, name) for one in served for name in NAMES)
    assert store.calls.count("GET") >= 5
    body = store.objects[SECRET.name]
    assert base64.b64decode(body["data"]["ca.crt"]) == served[0].trust
    assert "PRIVATE" not in repr(served)


async def test_nothing_is_written_or_issued_without_need(store: Store) -> None:
    own = authority(store)
    first = await look(own, START)
    calls = len(store.calls)
    for hour in range(1, 12):
        assert await look(own, START + timedelta(hours=hour)) is first
    assert store.calls[calls:] == ["GET"] * 11


async def test_a_certificate_is_replaced_in_time_even_without_the_api_server(store: Store) -> None:
    own = authority(store)
    first = await look(own, START)
    store.error = UnreachableError("away")
    later = START + timedelta(hours=12)
    with pytest.raises(UnreachableError):
        await own.refresh(later)
    second = own.served(later)
    assert second is not None
    assert second.ends > first.ends
    assert verifies(first.trust, second, later)


async def test_no_root_signs_that_is_not_stored(store: Store) -> None:
    own = authority(store)
    store.write_error = ApiError(403, "Forbidden")
    with pytest.raises(ApiError):
        await own.refresh(START)
    assert own.served(START) is None
    store.write_error = None
    first = await look(own, START)
    store.write_error = ApiError(403, "Forbidden")
    late = START + 200 * DAY
    with pytest.raises(ApiError):
        await own.refresh(late)
    second = own.served(late)
    assert second is not None
    assert second.trust == first.trust


async def test_an_ended_ca_issues_nothing(store: Store) -> None:
    own = authority(store)
    first = await look(own, START)
    store.error = UnreachableError("away")
    assert own.served(START + 400 * DAY) is first


async def test_roots_rotate_with_an_overlap_at_all_replicas(store: Store) -> None:
    plan = Plan(root=timedelta(days=20))
    replicas = [authority(store, plan) for _ in range(2)]
    now = START
    trusts: list[bytes] = []
    bundles = set()
    while now < START + 60 * DAY:
        served = [await look(replica, now) for replica in replicas]
        assert served[0].trust == served[1].trust
        trusts = [*trusts[-2:], served[0].trust]
        assert all(verifies(trust, one, now) for trust in trusts for one in served), now
        bundles.add(served[0].trust)
        now += timedelta(hours=6)
    assert len(bundles) >= 8
    stored = store.objects[SECRET.name]["data"]
    assert len(stored) <= 5, "the keys of roots that are gone are gone"


async def test_who_loses_the_race_takes_what_the_other_wrote(store: Store) -> None:
    one, other = authority(store), authority(store)

    def interfere() -> None:
        store.before_write = lambda: None
        found = roots.renew((), START, Plan())
        encoded = {name: base64.b64encode(value).decode() for name, value in roots.encode(found).items()}
        store.put({"metadata": {"name": SECRET.name}, "data": encoded})

    store.before_write = interfere
    assert (await look(one, START)).trust == (await look(other, START)).trust


async def test_a_secret_that_changes_all_the_time_is_not_fought_for(store: Store) -> None:
    own = authority(store)
    first = await look(own, START)
    store.before_write = lambda: store.put(store.objects[SECRET.name])
    late = START + 200 * DAY
    with pytest.raises(ServingError, match="changes all the time"):
        await own.refresh(late)
    assert store.calls.count("PUT") == 5
    second = own.served(late)
    assert second is not None
    assert second.trust == first.trust


async def test_a_secret_that_vanished_comes_back_with_the_same_roots(store: Store) -> None:
    own = authority(store)
    first = await look(own, START)
    store.objects.clear()
    assert await look(own, START + timedelta(hours=1)) is first
    assert (await look(authority(store), START)).trust == first.trust


async def test_labels_of_others_stay_when_roots_change(store: Store) -> None:
    own = authority(store)
    await look(own, START)
    store.objects[SECRET.name]["metadata"]["labels"] = {"team": "edge"}
    await look(own, START + 183 * DAY)
    assert store.calls[-1] == "PUT"
    assert store.objects[SECRET.name]["metadata"]["labels"] == {"team": "edge"}


@pytest.mark.parametrize("data", [{"tls.crt": "Z2FyYmFnZQ=="}, {"0123.key": "!!"}, {"0123.crt": "Z2FyYmFnZQ=="}])
async def test_a_secret_that_is_not_understood_is_left_alone(store: Store, data: dict[str, str]) -> None:
    store.put({"metadata": {"name": SECRET.name}, "data": data})
    before = store.objects[SECRET.name]
    with pytest.raises(ServingError, match="meshgw-system/meshgw-xds is not understood") as caught:
        await authority(store).refresh(START)
    assert "garbage" not in str(caught.value)
    assert store.objects[SECRET.name] is before


async def test_an_empty_secret_is_filled(store: Store) -> None:
    store.put({"metadata": {"name": SECRET.name}})
    served = await look(authority(store), START)
    assert verifies(served.trust, served, START)


async def test_what_the_api_server_refuses_is_passed_on(store: Store) -> None:
    store.error = ApiError(403, "Forbidden")
    for source in (given(store), authority(store)):
        with pytest.raises(ApiError):
            await source.refresh(START)


async def test_an_answer_that_is_no_secret_is_an_error(store: Store) -> None:
    store.objects[SECRET.name] = {"data": 1}
    with pytest.raises(ServingError, match="is not a Secret"):
        await authority(store).refresh(START)


# A certificate from others


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def issuer() -> CertificateAuthority:
    return CertificateAuthority.create("issuer")


async def test_a_given_certificate_is_served_and_followed(store: Store, issuer: CertificateAuthority) -> None:
    source = given(store)
    leaf = issuer.issue(NAMES[0])
    store.put_leaf(leaf, issuer.root)
    served = await look(source, now())
    assert (served.chain, served.key.reveal(), served.trust) == (leaf.chain, leaf.key, issuer.root)
    renewed = issuer.issue(NAMES[0])
    store.put_leaf(renewed, issuer.root)
    served = await look(source, now())
    assert (served.chain, served.trust) == (renewed.chain, issuer.root)
    assert store.calls == ["GET"] * 2


async def test_an_intermediate_goes_along(store: Store, issuer: CertificateAuthority) -> None:
    leaf = issuer.intermediate().issue(NAMES[0])
    store.put_leaf(leaf, issuer.root)
    assert (await look(given(store), now())).chain == leaf.chain


async def test_a_new_ca_is_trusted_before_it_is_shown_and_the_former_for_a_while_after(
    store: Store, issuer: CertificateAuthority
) -> None:
    source = given(store)
    old = issuer.issue(NAMES[0], lifetime=3 * DAY)
    store.put_leaf(old, issuer.root)
    await look(source, now())
    other = CertificateAuthority.create("other")
    new = other.issue(NAMES[0], lifetime=3 * DAY)
    store.put_leaf(new, other.root)
    at = now()
    both = {*x509.load_pem_x509_certificates(bundle(issuer, other))}
    for moment, chain, trust in (
        (at, old.chain, both),
        (at + PROPAGATION - timedelta(seconds=1), old.chain, both),
        (at + PROPAGATION, new.chain, both),
        (at + PROPAGATION + DAY - timedelta(seconds=1), new.chain, both),
        (at + PROPAGATION + DAY, new.chain, {other.certificate}),
    ):
        served = await look(source, moment)
        assert served.chain == chain
        assert {*x509.load_pem_x509_certificates(served.trust)} == trust


async def test_a_change_of_mind_within_the_wait_is_followed(store: Store, issuer: CertificateAuthority) -> None:
    source = given(store)
    old = issuer.issue(NAMES[0])
    store.put_leaf(old, issuer.root)
    await look(source, now())
    other = CertificateAuthority.create("other")
    store.put_leaf(other.issue(NAMES[0]), other.root)
    await look(source, now())
    store.put_leaf(old, issuer.root)
    assert (await look(source, now() + PROPAGATION)).trust == issuer.root


async def test_a_certificate_that_ended_is_not_waited_with(store: Store, issuer: CertificateAuthority) -> None:
    source = given(store)
    old = issuer.issue(NAMES[0], lifetime=timedelta(minutes=6))  # ends in a minute
    store.put_leaf(old, issuer.root)
    await look(source, now())
    other = CertificateAuthority.create("other")
    new = other.issue(NAMES[0])
    store.put_leaf(new, other.root)
    assert (await look(source, now())).chain == old.chain
    assert (await look(source, now() + timedelta(minutes=1))).chain == new.chain


async def test_what_is_of_no_use_is_said_and_the_certificate_before_serves_on(
    store: Store, issuer: CertificateAuthority
) -> None:
    source = given(store)
    with pytest.raises(ServingError, match="meshgw-system/meshgw-xds does not exist"):
        await source.refresh(now())
    assert source.served(now()) is None
    leaf, other = issuer.issue(NAMES[0]), issuer.issue(NAMES[0])
    store.put_leaf(leaf, issuer.root)
    await look(source, now())
    secret = base64.b64encode(other.key).decode()
    for data, problem in (
        ({}, "tls.crt is missing"),
        ({"tls_crt": other.chain, "ca_crt": issuer.root}, "tls.key is not a private key"),
        ({"tls_crt": other.chain, "tls_key": leaf.key, "ca_crt": issuer.root}, "tls.key is not the key of tls.crt"),
        ({"tls_crt": other.chain, "tls_key": other.key}, "ca.crt is missing"),
        ({"tls_crt": b"garbage", "tls_key": other.key, "ca_crt": issuer.root}, "tls.crt is missing or not"),
    ):
        store.put_data(**data)
        with pytest.raises(ServingError, match=problem) as caught:
            await source.refresh(now())
        assert secret not in str(caught.value)
    store.put_leaf(issuer.expired(NAMES[0]), issuer.root)
    with pytest.raises(ServingError, match="ended at"):
        await source.refresh(now())
    store.put({"metadata": {"name": SECRET.name}, "data": {"tls.key": "!"}})
    with pytest.raises(ServingError, match="base64"):
        await source.refresh(now())
    served = source.served(now())
    assert served is not None
    assert served.chain == leaf.chain


# The loop


class Steps:
    """A clock whose sleeps wait for a test to let them end."""

    def __init__(self) -> None:
        self.time = START
        self.slept: list[float] = []
        self._asleep = asyncio.Event()
        self._go = asyncio.Event()

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._asleep.set()
        await self._go.wait()
        self._go.clear()
        self.time += timedelta(seconds=seconds)

    def jitter(self) -> float:
        return 0.0

    async def step(self) -> None:
        """Let the sleep end, and wait for the next one."""
        await self._asleep.wait()
        self._asleep.clear()
        self._go.set()
        await self._asleep.wait()


async def test_the_server_has_a_certificate_and_proxies_its_roots(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Steps()
    trusted: list[bytes] = []
    ends: list[float] = []

    class Observer:
        def certificate_expires(self, identity: object, at: float) -> None:
            ends.append(at)

    store.error = UnreachableError("the API server is away")
    serving = ServingCertificate(
        authority(store), on_trust=trusted.append, observer=Observer(), clock=clock, look=6 * 3600.0
    )
    with pytest.raises(ServingError, match="no certificate yet"):
        serving.current()
    assert serving.trust == b""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(serving.run())
        for _ in range(3):
            await clock.step()
        assert not serving.ready.is_set()
        assert clock.slept == [2.0, 4.0, 8.0, 16.0]
        store.error = None
        await clock.step()
        assert serving.ready.is_set()
        key, chain = serving.current()
        assert trusted == [serving.trust]
        assert x509.load_pem_x509_certificate(chain).issuer == x509.load_pem_x509_certificate(trusted[0]).subject
        assert b"PRIVATE" in key
        for _ in range(2):
            await clock.step()
        assert serving.current()[1] != chain
        assert trusted == [serving.trust]
        assert len(ends) == 2
        running.cancel()
    printed = "".join(capsys.readouterr())
    assert printed.count("the API server is away") == 1
    assert "PRIVATE" not in printed
