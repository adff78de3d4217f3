"""Mesh certificates of an instance: where they come from, and for whom."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from meshgw.api.meta import Key
from meshgw.config import MeshSettings
from meshgw.identity.observer import SilentObserver
from meshgw.ir.backend import WorkloadCertificate
from meshgw.standalone.mesh import Identities, MeshSettingsError, certificate_source

NOWHERE = "unix:/nowhere/ca.sock"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (MeshSettings(trust_domain="NO SUCH"), "is not a trust domain"),
        (MeshSettings(ca_address="127.0.0.1:15012"), "--mesh-ca-roots and --mesh-token"),
        (MeshSettings(ca_address="what?", ca_roots=Path("r"), token=Path("t")), "is not host:port"),
    ],
)
async def test_settings_that_cannot_work_are_one_line(settings: MeshSettings, said: str) -> None:
    with pytest.raises(MeshSettingsError, match=said):
        async with certificate_source(settings, socket=NOWHERE):
            pass


async def test_wanted_accounts_get_certificates_of_the_embedded_ca_and_lose_them() -> None:
    published: asyncio.Queue[tuple[Key, WorkloadCertificate | None]] = asyncio.Queue()
    with tempfile.TemporaryDirectory(prefix="meshgw-unit-") as scratch:
        async with certificate_source(MeshSettings(), socket=f"unix:{scratch}/ca.sock") as source:
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
    async with certificate_source(
        MeshSettings(ca_address="127.0.0.1:1", ca_roots=Path("r"), token=Path("t")), socket=NOWHERE
    ) as source:
        identities = Identities(
            source, lambda _key, _row: None, trust_domain="cluster.local", observer=SilentObserver()
        )
        identities.want({Key("shop", "a/b"), Key("shop", "fine")})
    assert list(identities.refused) == [Key("shop", "a/b")]
    assert [identity.service_account for identity in identities.rotator.identities] == ["fine"]
    identities.want({Key("shop", "fine")})
    assert identities.refused == {}
