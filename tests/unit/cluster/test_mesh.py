"""What Istio says of its mesh is known as a whole, and reaches those who use it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshgw.api.meta import Key
from meshgw.cluster.facts import ClusterFacts
from meshgw.cluster.identity import MeshIdentities
from meshgw.cluster.mesh import Mesh, TrustDomains
from meshgw.config import IstioSettings
from meshgw.identity.observer import SilentObserver
from meshgw.resolve import tables as t
from tests.rig.waiting import eventually
from tests.unit.cluster.world import KINDS
from tests.unit.kube.scripted import HANG, Script, bookmark, event, scripted

SERVED = {"resources": [{"name": "configmaps", "verbs": ["create", "list", "watch"]}]}
ACCOUNT = Key("shop", "gw")
ROOTS = "istio-ca-root-cert"


class World:
    """A mesh, what its API server says, and what is heard of it."""

    def __init__(self) -> None:
        self.facts = ClusterFacts()
        self.heard: list[TrustDomains] = []
        self.script: Script
        self.mesh: Mesh

    def roots(self, *events: Any) -> None:
        self.script.on(f"metadata.name%3D{ROOTS}&", *events, bookmark(6, end=True), HANG)

    def config(self, *events: Any) -> None:
        self.script.on("metadata.name%3Distio&", *events, HANG)


def said(type_: str, version: int, name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "istio-system", "uid": name, "resourceVersion": str(version)}
    return event(type_, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


@contextlib.asynccontextmanager
async def starting(folder: Path) -> AsyncIterator[World]:
    world = World()
    async with scripted(folder) as (script, client), asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        world.script = script
        for _ in range(2):
            script.on("GET /api/v1 ", SERVED)
        world.mesh = Mesh(
            client,
            IstioSettings(istiod="127.0.0.1:1", trust_domain_aliases=("older",)),
            KINDS,
            world.facts,
            on_trust_domains=world.heard.append,
            observer=SilentObserver(),
        )
        running = tasks.create_task(world.mesh.run())
        yield world
        running.cancel()


async def test_it_is_known_once_configuration_and_roots_are(tmp_path: Path) -> None:
    async with starting(tmp_path) as world:
        world.roots(said("ADDED", 5, ROOTS, **{"root-cert.pem": "roots"}))
        end = bookmark(6, end=True)
        cure = said("MODIFIED", 7, "istio", mesh="trustDomain: prod\ntrustDomainAliases: [old]")
        world.config(said("ADDED", 5, "istio", mesh="{"), end)
        assert world.mesh.missing() == ["not seen yet: istio-system/istio", "not seen yet: the roots of the mesh"]
        await eventually(lambda: [each.code for each in world.facts.problems()] == ["MG5007"])
        await eventually(lambda: world.mesh.missing() == ["not seen yet: istio-system/istio"])
        assert not world.mesh.known.is_set()
        assert world.heard == []
    async with starting(tmp_path) as world:
        world.roots()  # which are absent
        world.config(said("ADDED", 5, "istio", mesh="{"), end, cure)
        await world.mesh.known.wait()
        assert world.mesh.missing() == []
        assert world.facts.problems() == []
        assert world.heard == [("prod", "older", "old")]


async def test_new_roots_renew_all_certificates_and_none_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[str] = []
    monkeypatch.setattr(MeshIdentities, "renew", lambda _self: renewed.append("all"))
    async with starting(tmp_path) as world:
        world.config(bookmark(6, end=True))
        world.script.on(
            f"metadata.name%3D{ROOTS}&",
            said("ADDED", 5, ROOTS, **{"root-cert.pem": "one"}),
            bookmark(6, end=True),
            said("MODIFIED", 7, ROOTS, **{"root-cert.pem": "one", "more": ""}),
            said("MODIFIED", 8, ROOTS),
            said("MODIFIED", 9, ROOTS, **{"root-cert.pem": "two"}),
            HANG,
        )
        await eventually(lambda: len(renewed) == 2)
        await world.mesh.known.wait()
    assert len(renewed) == 2


async def test_a_gateway_is_told_that_there_are_no_roots(tmp_path: Path) -> None:
    async with starting(tmp_path) as world:
        world.mesh.want({ACCOUNT}, trust_domain="cluster.local")
        found = await eventually(lambda: world.facts.take().get(t.IDENTITY_PROBLEMS, {}).get(ACCOUNT))
        assert found.code == "ROOTS_UNREADABLE"
        assert f"no ConfigMap {ROOTS} is seen in istio-system" in found.message
        world.mesh.want(set(), trust_domain="cluster.local")
        assert world.facts.take()[t.IDENTITY_PROBLEMS] == {ACCOUNT: None}
