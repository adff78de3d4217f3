"""A CA through years of its life."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509 import verification

from meshgw.cluster import roots
from meshgw.cluster.roots import Plan, RootsError, Served, choose_signer, decode, encode, is_due, issue, name_of, renew
from meshgw.identity.signer import Signer

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
PLAN = Plan()
NAME = "meshgw.meshgw-system.svc"


def verifies(trust: bytes, served: Served, now: datetime) -> bool:
    store = verification.Store(x509.load_pem_x509_certificates(trust))
    verifier = verification.PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(NAME))
    try:
        verifier.verify(x509.load_pem_x509_certificate(served.chain), [])
    except verification.VerificationError:
        return False
    return True


def test_the_first_root_signs_at_once() -> None:
    (root,) = renew((), START, PLAN)
    served = issue([root], [NAME], START, PLAN)
    assert verifies(served.trust, served, START)
    assert served.ends == START + DAY
    assert renew([root], START + DAY, PLAN) == (root,)


def test_a_second_root_is_known_for_a_day_before_it_signs_and_the_first_for_a_day_after() -> None:
    (old,) = renew((), START, PLAN)
    assert renew([old], START + 182 * DAY, PLAN) == (old,)
    made = START + 183 * DAY
    both = renew([old], made, PLAN)
    assert [root.made for root in both] == [START, made]
    new = both[1]
    assert choose_signer(both, made + DAY - HOUR, PLAN) is old
    assert choose_signer(both, made + DAY, PLAN) is new
    assert renew(both, made + 2 * DAY - HOUR, PLAN) == both
    assert renew(both, made + 2 * DAY, PLAN) == (new,)


def test_servers_and_proxies_that_are_late_understand_each_other_over_many_roots() -> None:
    """Whoever looks once in twelve hours has what it takes, whichever replica it meets."""
    plan = Plan(root=40 * DAY)
    found: tuple[Signer, ...] = ()
    trusts: list[bytes] = []
    server: Served | None = None
    seen = set()
    now = START
    while now < START + 120 * DAY:
        found = renew(found, now, plan)
        seen |= {name_of(root) for root in found}
        if server is None or is_due(server, found, now, plan):
            server = issue(found, [NAME], now, plan)
        trusts = [*trusts[-2:], roots.trust_of(found)]
        assert all(verifies(trust, server, now) for trust in trusts), now
        assert now < server.ends
        now += 6 * HOUR
    assert len(seen) >= 5
    assert len(found) <= 2


def test_a_ca_that_slept_for_years_starts_anew() -> None:
    found = renew(renew((), START, PLAN), START + 400 * DAY, PLAN)
    assert [root.made for root in found] == [START + 400 * DAY]


def test_a_root_about_to_end_is_succeeded_even_if_the_next_is_not_known_yet() -> None:
    (old,) = renew((), START, PLAN)
    late = START + 365 * DAY - HOUR
    both = renew([old], late, PLAN)
    assert choose_signer(both, late, PLAN) is old
    assert issue(both, [NAME], late, PLAN).ends == old.ends
    assert choose_signer(renew(both, late + HOUR, PLAN), late + HOUR, PLAN) is both[1]


def test_a_certificate_is_due_at_half_its_life_or_when_what_signs_or_is_trusted_changes() -> None:
    (old,) = renew((), START, PLAN)
    served = issue([old], [NAME], START, PLAN)
    assert not is_due(served, [old], START, PLAN)
    assert not is_due(served, [old], START + 11 * HOUR, PLAN)
    assert is_due(served, [old], START + 12 * HOUR, PLAN)
    assert is_due(served, renew((), START, PLAN), START, PLAN)
    assert is_due(served, [old, *renew((), START + HOUR, PLAN)], START + HOUR, PLAN)


def test_roots_come_back_from_a_secret() -> None:
    found = (*renew((), START, PLAN), *renew((), START + DAY, PLAN))
    again = decode(encode(found))
    assert [root.certificate for root in again] == [root.certificate for root in found]
    assert verifies(roots.trust_of(found), issue(again, [NAME], START, PLAN), START)
    assert decode({}) == ()


def garbled(**changes: bytes | None) -> dict[str, bytes]:
    """A Secret of one root whose certificate, key or other entries are something else."""
    (root,) = renew((), START, PLAN)
    data = {**encode([root]), **{name: value for name, value in changes.items() if value and name == "other"}}
    for suffix in ("crt", "key"):
        if suffix in changes:
            data[f"{name_of(root)}.{suffix}"] = changes[suffix] or b""
    return data


@pytest.mark.parametrize(
    "data",
    [
        garbled(crt=b"garbage"),
        garbled(key=b"garbage"),
        garbled(key=b""),
        garbled(other=b"x"),
        garbled(key=next(value for name, value in garbled().items() if name.endswith(".key"))),
        {"tls.crt": b"", "tls.key": b""},
        {**garbled(), "0123456789abcdef.txt": b""},
        {**(first := garbled()), next(iter(first.keys() - {"ca.crt"})).rpartition(".")[0] + ".txt": b""},
    ],
)
def test_what_is_not_roots_is_said_without_showing_it(data: dict[str, bytes]) -> None:
    with pytest.raises(RootsError) as caught:
        decode(data)
    assert "PRIVATE" not in str(caught.value)
    assert "garbage" not in str(caught.value)


def test_the_bundle_alone_is_no_root() -> None:
    assert decode({"ca.crt": b"anything"}) == ()
