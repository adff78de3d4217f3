from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from meshgw.identity.authority import MeshAuthority
from meshgw.identity.certificate import PrivateKeyPem, WorkloadCertificate
from meshgw.identity.errors import CaUnavailableError, IssueError
from meshgw.identity.istiod import IstiodClient
from meshgw.identity.observer import SilentObserver
from meshgw.identity.rotate import Rotator
from meshgw.identity.selfsigned import EmbeddedCa
from meshgw.identity.spiffe import SpiffeId
from tests.unit.identity.parts import GATEWAY, OTHER, FakeClock, RecordingObserver

HOUR = 3600.0


class Source:
    """Issues certificates of one hour; while `away` it fails, while `gate` is clear it waits."""

    def __init__(self, clock: FakeClock, lifetime: float = HOUR) -> None:
        self.clock = clock
        self.lifetime = lifetime
        self.away = False
        self.fault: Exception | None = None
        self.asked: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()
        self.busy = self.busiest = 0
        self._start = clock.now()

    async def fetch(self, identity: SpiffeId) -> WorkloadCertificate:
        self.asked.append((self.clock.now() - self._start).total_seconds())
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        self.waiting.set()
        try:
            await self.gate.wait()
        finally:
            self.busy -= 1
        if self.fault:
            raise self.fault
        if self.away:
            raise CaUnavailableError("UNAVAILABLE", "away")
        now = self.clock.now()
        return WorkloadCertificate(
            identity=identity,
            private_key=PrivateKeyPem(b"the secret"),
            chain_pem=b"chain %d" % len(self.asked),
            roots_pem=b"roots",
            not_before=now - timedelta(minutes=2),
            not_after=now + timedelta(seconds=self.lifetime),
        )


class Rig:
    """A rotator with everything it touches."""

    def __init__(self, lifetime: float = HOUR, jitter: float = 0.0) -> None:
        self.clock = FakeClock(jitter=jitter)
        self.source = Source(self.clock, lifetime)
        self.observer = RecordingObserver()
        self.published: list[WorkloadCertificate] = []
        self.rotator = Rotator(self.source, self.published.append, clock=self.clock, observer=self.observer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.rotator.run())
            try:
                yield
            finally:
                task.cancel()


async def test_certificate_is_replaced_at_half_of_what_was_left_when_it_came() -> None:
    rig = Rig()
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.advance(3 * HOUR)
    assert rig.source.asked == [0, 1800, 3600, 5400, 7200, 9000, 10800]
    assert [certificate.chain_pem for certificate in rig.published] == [b"chain %d" % n for n in range(1, 8)]


@pytest.mark.parametrize(("jitter", "at"), [(-1.0, 1764.0), (1.0, 1836.0)])
async def test_moment_of_rotation_is_spread_by_a_hundredth_of_the_lifetime(jitter: float, at: float) -> None:
    rig = Rig(jitter=jitter)
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.advance(HOUR)
    assert rig.source.asked[1] == pytest.approx(at)


async def test_lifetimes_of_seconds_rotate_in_seconds() -> None:
    rig = Rig(lifetime=4)
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.advance(8)
    assert rig.source.asked == [0, 2, 4, 6, 8]


async def test_certificate_that_comes_nearly_ended_does_not_make_a_busy_loop() -> None:
    rig = Rig(lifetime=0.001)
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.advance(5)
    assert rig.source.asked == [0, 1, 2, 3, 4, 5]


async def test_no_sleep_outlasts_a_suspended_machine_by_more_than_minutes() -> None:
    rig = Rig(lifetime=24 * HOUR)
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.asleep()
        rig.clock.time += timedelta(hours=13)
        await rig.clock.advance(1)
        assert rig.source.asked == [0, 13 * HOUR]
    assert max(rig.clock.slept) == 300


async def test_ca_that_is_away_is_tried_with_growing_capped_delays_while_the_certificate_stays() -> None:
    rig = Rig()
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.advance(1799)
        rig.source.away = True
        await rig.clock.advance(3000)
        delays = [b - a for a, b in zip(rig.source.asked[1:], rig.source.asked[2:], strict=False)]
        assert delays[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 150]
        assert max(delays) == 150
        assert rig.rotator.certificate(GATEWAY) == rig.published[0]
        assert rig.rotator.remaining(rig.clock.now()) == {GATEWAY: HOUR - 4799}
        rig.source.away = False
        await rig.clock.advance(150)
        assert len(rig.published) == 2
        assert rig.rotator.certificate(GATEWAY) == rig.published[1]


async def test_tries_come_closer_before_the_certificate_ends() -> None:
    rig = Rig(lifetime=100)
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.advance(49)
        rig.source.away = True
        await rig.clock.advance(50)
    assert rig.source.asked[1:] == [50, 51, 53, 57, 65, 81, 90.5, 95.25, 97.625, 98.8125]


async def test_delays_start_over_after_a_success() -> None:
    rig = Rig()
    rig.source.away = True
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.advance(7)
        rig.source.away = False
        await rig.clock.advance(1799)
        assert len(rig.published) == 1
        rig.source.away = True
        await rig.clock.advance(10)
    assert rig.source.asked == [0, 1, 3, 7, 15, 1815, 1816]


@pytest.mark.parametrize(("jitter", "second"), [(-1.0, 0.9), (1.0, 1.1)])
async def test_retries_are_spread(jitter: float, second: float) -> None:
    rig = Rig(jitter=jitter)
    rig.source.away = True
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.advance(2000)
    assert rig.source.asked[1] == pytest.approx(second)
    assert max(rig.clock.slept) <= 150


async def test_observer_sees_expiry_rotations_failures_and_removal() -> None:
    rig = Rig()
    start = rig.clock.now().timestamp()
    rig.source.away = True
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.asleep()
        rig.source.away = False
        await rig.clock.advance(1)
        rig.rotator.remove(GATEWAY)
    assert rig.observer.events == [
        ("failed", GATEWAY, "UNAVAILABLE"),
        ("expires", GATEWAY, start + 1 + HOUR),
        ("rotated", GATEWAY),
        ("removed", GATEWAY),
    ]


async def test_silent_observer_takes_every_event() -> None:
    clock = FakeClock()
    source = Source(clock)
    rotator = Rotator(source, lambda _: None, clock=clock, observer=SilentObserver())
    source.away = True
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rotator.run())
        rotator.add(GATEWAY)
        await clock.asleep()
        source.away = False
        await clock.advance(1)
        assert rotator.certificate(GATEWAY) is not None
        rotator.remove(GATEWAY)
        task.cancel()


async def test_identities_can_be_added_while_it_runs_and_twice_is_once() -> None:
    rig = Rig()
    async with rig.running():
        await asyncio.sleep(0)
        rig.rotator.add(GATEWAY)
        rig.rotator.add(OTHER)
        rig.rotator.add(OTHER)
        await rig.clock.asleep(2)
        assert rig.rotator.identities == {GATEWAY, OTHER}
        assert [certificate.identity for certificate in rig.published] == [GATEWAY, OTHER]


async def test_removed_identity_is_forgotten_and_unknown_ones_do_not_matter() -> None:
    rig = Rig()
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.asleep()
        rig.rotator.remove(GATEWAY)
        rig.rotator.remove(OTHER)
        rig.rotator.renew(OTHER)
        assert rig.rotator.certificate(GATEWAY) is None
        assert rig.rotator.remaining(rig.clock.now()) == {}
        rig.rotator.add(OTHER)
        await rig.clock.asleep()
    assert [certificate.identity for certificate in rig.published] == [GATEWAY, OTHER]


async def test_certificate_under_way_for_a_removed_identity_is_not_published() -> None:
    rig = Rig()
    rig.source.gate.clear()
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.source.waiting.wait()
        rig.source.gate.set()
        rig.rotator.remove(GATEWAY)
        rig.rotator.add(OTHER)
        await rig.clock.asleep()
    assert [certificate.identity for certificate in rig.published] == [OTHER]


async def test_removal_before_it_runs_leaves_nothing_to_do() -> None:
    rig = Rig()
    rig.rotator.add(GATEWAY)
    rig.rotator.remove(GATEWAY)
    async with rig.running():
        await asyncio.sleep(0)
    assert rig.source.asked == []


async def test_renewal_fetches_at_once_and_keeps_the_old_certificate_meanwhile() -> None:
    rig = Rig()
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.asleep()
        rig.source.gate.clear()
        rig.source.waiting.clear()
        rig.rotator.renew(GATEWAY)
        await rig.source.waiting.wait()
        assert rig.rotator.certificate(GATEWAY) == rig.published[0]
        rig.source.gate.set()
        await rig.clock.asleep()
        assert len(rig.published) == 2
        await rig.clock.advance(1800)
    assert rig.source.asked == [0, 0, 1800]


async def test_one_identity_that_fails_does_not_hold_up_another() -> None:
    rig = Rig()
    original = rig.source.fetch

    async def fetch(identity: SpiffeId) -> WorkloadCertificate:
        if identity == OTHER:
            raise IssueError("UNAUTHENTICATED", "not you")
        return await original(identity)

    rig.source.fetch = fetch  # type: ignore[method-assign]  # one identity is refused
    rig.rotator.add(OTHER)
    rig.rotator.add(GATEWAY)
    async with rig.running():
        await rig.clock.asleep(2)
        assert [certificate.identity for certificate in rig.published] == [GATEWAY]
    assert ("failed", OTHER, "UNAUTHENTICATED") in rig.observer.events


async def test_many_identities_do_not_ask_all_at_once() -> None:
    rig = Rig()
    for number in range(40):
        rig.rotator.add(SpiffeId(trust_domain="td", namespace="ns", service_account=f"sa{number}"))
    async with rig.running():
        await rig.clock.asleep(40)
    assert len(rig.published) == 40
    assert rig.source.busiest <= 8


async def test_a_bug_is_one_identitys_failed_try_and_only_its_type_is_told() -> None:
    rig = Rig()
    rig.source.fault = RuntimeError("the secret")
    rig.rotator.add(GATEWAY)
    with capture_logs() as logs:
        async with rig.running():
            await rig.clock.advance(6)
            rig.source.fault = None
            await rig.clock.advance(1)
            assert len(rig.published) == 1
    assert rig.source.asked == [0, 1, 3, 7]
    assert rig.observer.events[:3] == [("failed", GATEWAY, "RuntimeError")] * 3
    assert [(each["log_level"], each["error"]) for each in logs[:3]] == [("error", "RuntimeError")] * 3
    assert "the secret" not in str(logs)


async def test_a_certificate_that_cannot_be_published_is_fetched_anew() -> None:
    rig = Rig()
    published: list[WorkloadCertificate] = []

    def publish(certificate: WorkloadCertificate) -> None:
        if len(rig.source.asked) == 1:
            raise LookupError
        published.append(certificate)

    rotator = Rotator(rig.source, publish, clock=rig.clock, observer=rig.observer)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rotator.run())
        rotator.add(GATEWAY)
        await rig.clock.asleep()
        assert rotator.certificate(GATEWAY) is None
        await rig.clock.advance(1)
        assert [rotator.certificate(GATEWAY)] == published
        task.cancel()
    assert rig.observer.events[0] == ("failed", GATEWAY, "LookupError")


async def test_it_can_run_again_after_it_was_stopped() -> None:
    rig = Rig()
    rig.rotator.add(GATEWAY)
    for _ in range(2):
        async with rig.running():
            await rig.clock.asleep()
    assert len(rig.published) == 2
    rig.rotator.renew(GATEWAY)
    assert rig.rotator.identities == {GATEWAY}


async def test_logs_hold_no_key() -> None:
    rig = Rig()
    rig.rotator.add(GATEWAY)
    with capture_logs() as logs:
        async with rig.running():
            await rig.clock.advance(HOUR)
    assert len(logs) == 3
    assert "secret" not in f"{logs} {rig.published} {vars(rig.rotator)}"


async def test_real_ca_goes_away_and_comes_back_while_the_certificate_stays(short_path: Path) -> None:
    clock = FakeClock()
    observer = RecordingObserver()
    published: list[WorkloadCertificate] = []
    ca = EmbeddedCa(MeshAuthority(clock=clock), address=f"unix:{short_path}/ca.sock")
    client = IstiodClient(
        ca.address, roots=ca.roots, token=ca.tokens, plaintext=True, lifetime=timedelta(seconds=60), clock=clock
    )
    rotator = Rotator(client, published.append, clock=clock, observer=observer)
    rotator.add(GATEWAY)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(rotator.run())
        async with ca:
            await clock.asleep()
            assert len(published) == 1
        await clock.advance(33)
        assert ("failed", GATEWAY, "UNAVAILABLE") in observer.events
        assert rotator.certificate(GATEWAY) == published[0]
        assert published[0].remaining(clock.now()) == 27
        async with ca:
            await clock.advance(20)
            assert len(published) == 2
            assert rotator.certificate(GATEWAY) == published[1]
        running.cancel()
