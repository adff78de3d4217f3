"""Certificates of ServiceAccounts, for exactly those that are wanted."""

from __future__ import annotations

import asyncio
import tempfile

from meshgw.api.meta import Key
from meshgw.identity.accounts import Identities
from meshgw.identity.authority import MeshAuthority
from meshgw.identity.certificate import WorkloadCertificate as Issued
from meshgw.identity.errors import CaUnavailableError
from meshgw.identity.istiod import IstiodClient
from meshgw.identity.observer import SilentObserver
from meshgw.identity.selfsigned import EmbeddedCa
from meshgw.identity.spiffe import SpiffeId
from meshgw.ir.backend import WorkloadCertificate
from tests.rig.waiting import eventually


class Nobody:
    """A CA that is away."""

    async def fetch(self, identity: SpiffeId) -> Issued:
        raise CaUnavailableError("UNAVAILABLE", identity.uri)


async def test_wanted_accounts_get_certificates_of_the_embedded_ca_and_lose_them() -> None:
    published: asyncio.Queue[tuple[Key, WorkloadCertificate | None]] = asyncio.Queue()
    with tempfile.TemporaryDirectory(prefix="meshgw-unit-") as scratch:
        async with EmbeddedCa(MeshAuthority(), address=f"unix:{scratch}/ca.sock") as ca:
            source = IstiodClient(ca.address, roots=ca.roots, token=ca.tokens, plaintext=True)
            identities = Identities(
                source,
                lambda key, row: published.put_nowait((key, row)),
                trust_domain="cluster.local",
                observer=SilentObserver(),
            )
            account = Key("shop", "waypoint")
            async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                rotating = tasks.create_task(identities.rotator.run())
                identities.want({account})
                key, first = await published.get()
                identities.renew()
                _key, second = await published.get()
                identities.want(set())
                gone = await published.get()
                rotating.cancel()
    assert key == account
    assert first is not None
    assert second is not None
    assert first.chain != second.chain
    assert first.roots == second.roots
    assert gone == (account, None)


async def test_a_name_that_no_identity_can_have_costs_only_itself() -> None:
    identities = Identities(Nobody(), lambda _key, _row: None, trust_domain="cluster.local", observer=SilentObserver())
    identities.want({Key("shop", "a/b"), Key("shop", "fine")})
    assert list(identities.refused) == [Key("shop", "a/b")]
    assert [identity.service_account for identity in identities.rotator.identities] == ["fine"]
    identities.want({Key("shop", "fine")})
    assert identities.refused == {}


async def test_a_new_trust_domain_takes_nothing_away_before_its_certificate_comes() -> None:
    published: list[tuple[Key, WorkloadCertificate | None]] = []
    with tempfile.TemporaryDirectory(prefix="meshgw-unit-") as scratch:
        async with EmbeddedCa(MeshAuthority(), address=f"unix:{scratch}/ca.sock") as ca:
            source = IstiodClient(ca.address, roots=ca.roots, token=ca.tokens, plaintext=True)
            identities = Identities(
                source, lambda key, row: published.append((key, row)), trust_domain="old", observer=SilentObserver()
            )
            account, other = Key("shop", "waypoint"), Key("shop", "other")
            async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                rotating = tasks.create_task(identities.rotator.run())
                identities.want({account, other})
                identities.trust_domain = "cluster.local"
                identities.want({account})
                assert published == [(other, None)]
                assert [identity.trust_domain for identity in identities.rotator.identities] == ["cluster.local"]
                await eventually(lambda: len(published) == 2)
                identities.want(set())
                rotating.cancel()
    assert published[1][0] == account
    assert published[1][1] is not None
    assert published[2:] == [(account, None)]
