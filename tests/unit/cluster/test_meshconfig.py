"""What Istio's own configuration says, and what is made of one that cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from meshgw.api.core import ConfigMap
from meshgw.api.meta import ObjectMeta
from meshgw.cluster.meshconfig import (
    MeshConfig,
    MeshConfigError,
    MeshConfigWatch,
    mesh_config_name,
    read_mesh_config,
)
from meshgw.ir.finding import Finding
from tests.rig.waiting import eventually
from tests.unit.cluster.world import kind
from tests.unit.kube.scripted import HANG, Script, bookmark, event, failure, scripted

GOOD = "trustDomain: new.example\ntrustDomainAliases: [old.example]\nenableTracing: true\n"
CONFIG = MeshConfig(trust_domain="new.example", trust_domain_aliases=("old.example",))
SERVED = {"resources": [{"name": "configmaps", "verbs": ["create", "list", "watch"]}]}
BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10 if n else ['x'] * 10)}]" for n in range(12))


def config_map(**data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name="istio", namespace="istio-system"), data=data)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, CONFIG),
        ("{}", MeshConfig(trust_domain="cluster.local")),
        ("trustDomain: prod\ntrustDomainAliases: null", MeshConfig(trust_domain="prod")),
        ("trustDomain:\ntrustDomainAliases: [old]", MeshConfig(trust_domain_aliases=("old",))),
        (
            "trust_domain: prod\ntrust_domain_aliases: [old]",
            MeshConfig(trust_domain="prod", trust_domain_aliases=("old",)),
        ),
        ("trustDomain: prod\nfoo: 2024-02-30", MeshConfig(trust_domain="prod")),
        (f"trustDomain: prod\nfoo: {'9' * 5000}", MeshConfig(trust_domain="prod")),
    ],
)
def test_the_trust_domain_and_its_former_names_are_read(text: str, found: MeshConfig) -> None:
    assert read_mesh_config(config_map(mesh=text)) == found


@pytest.mark.parametrize("data", [{}, {"mesh": ""}, {"mesh": "# nothing\n"}, {"other": "x"}])
def test_nothing_said_is_no_configuration(data: dict[str, str]) -> None:
    assert read_mesh_config(config_map(**data)) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "trustDomain: prod\ntrustDomainAliases: [old\n",
        "[1]",
        "trustDomain: 3",
        "trustDomain: ''",
        "trustDomain: Upper/Case",
        "trustDomainAliases: ['', x]",
        "trustDomainAliases: old",
        "trustDomain: a\ntrustDomain: b",
        "trustDomain: a\ntrust_domain: b",
        "trustDomain: 2024-02-30\ntrustDomainAliases: [3]",
        "trustDomain: \x07",
        "trustDomain: !!timestamp 2024-02-30",
        "trustDomain: !!int " + "9" * 5000,
        "a: " + "[" * 50000,
        BOMB,
    ],
)
def test_what_is_not_readable_is_an_error_and_never_a_guess(text: str) -> None:
    with pytest.raises(MeshConfigError):
        read_mesh_config(config_map(mesh=text))


@pytest.mark.parametrize(("revision", "name"), [("", "istio"), ("default", "istio"), ("canary", "istio-canary")])
def test_every_revision_has_a_configuration_of_its_own(revision: str, name: str) -> None:
    assert mesh_config_name(revision) == name


class World:
    """A watch, what its API server says, and what it said itself."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.changes: list[MeshConfig] = []
        self.findings: list[Finding] = []
        self.told = 0
        self.watch: MeshConfigWatch

    def tell(self, findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        self.told += 1

    async def hears(self, message: str) -> None:
        """Return when what is wrong is this, and nothing else."""
        await eventually(
            lambda: bool(self.findings) and all(message in each.message for each in self.findings),
            what=f"{message}: {self.findings}",
        )


@contextlib.asynccontextmanager
async def following(folder: Path, *events: Any, status: int = 200) -> AsyncIterator[World]:
    async with scripted(folder) as (script, client), asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        world = World(script)
        script.on("GET /api/v1 ", SERVED)
        script.on("sendInitialEvents", *events, *([HANG] if status == 200 else []), status=status)
        world.watch = MeshConfigWatch(
            client,
            kind("ConfigMap"),
            namespace="istio-system",
            revision="",
            on_change=world.changes.append,
            tell=world.tell,
        )
        running = tasks.create_task(world.watch.run())
        yield world
        running.cancel()


def said(type_: str, version: int, **data: Any) -> dict[str, Any]:
    metadata = {"name": "istio", "namespace": "istio-system", "uid": "u", "resourceVersion": str(version)}
    return event(type_, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


END = bookmark(6, end=True)


async def test_what_is_there_is_known_and_only_this_config_map_is_asked_for(tmp_path: Path) -> None:
    async with following(tmp_path, said("ADDED", 5, mesh=GOOD), END) as world:
        await world.watch.known.wait()
        assert (world.changes, world.findings) == ([CONFIG], [])
    (asked,) = (line for line in world.script.requests if "watch=true" in line)
    assert asked.startswith("GET /api/v1/namespaces/istio-system/configmaps?")
    assert "fieldSelector=metadata.name%3Distio&" in f"{asked}&"


@pytest.mark.parametrize("events", [(END,), (said("ADDED", 5), END), (said("ADDED", 5, mesh=""), END)])
async def test_what_is_absent_leaves_istios_defaults(tmp_path: Path, events: tuple[Any, ...]) -> None:
    async with following(tmp_path, *events) as world:
        await world.watch.known.wait()
        assert (world.changes, world.findings) == ([], [])


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (said("MODIFIED", 7, mesh="trustDomainAliases: [old"), "cannot be read: line 2 of `mesh`"),
        (said("MODIFIED", 7, mesh=3), "cannot be read"),
        (said("MODIFIED", 7, mesh=f"trustDomain: {'x' * 9000}"), "xxx...; "),
        (said("MODIFIED", 7), "there is no `mesh` in it"),
        (said("DELETED", 7, mesh=GOOD), "the ConfigMap is gone"),
    ],
)
async def test_what_was_known_stays_when_it_cannot_be_read_any_more(
    tmp_path: Path, later: dict[str, Any], message: str
) -> None:
    async with following(tmp_path, said("ADDED", 5, mesh=GOOD), END, later) as world:
        await world.hears(message)
        (finding,) = world.findings
        assert (finding.code, str(finding.object)) == ("MG5007", "ConfigMap istio-system/istio")
        assert finding.message.endswith("what was known of it stays in force")
        assert len(finding.message) < 500
        assert world.changes == [CONFIG]


async def test_it_is_cured_by_a_readable_one(tmp_path: Path) -> None:
    cure = said("ADDED", 8, mesh="trustDomain: other")
    async with following(tmp_path, said("ADDED", 5, mesh=GOOD), END, said("DELETED", 7, mesh=GOOD), cure) as world:
        await eventually(lambda: world.changes == [CONFIG, MeshConfig(trust_domain="other")])
        await eventually(lambda: not world.findings)


@pytest.mark.parametrize("data", [{"mesh": "{"}, {"mesh": 3}, {"mesh": BOMB}])
async def test_one_that_cannot_be_read_at_first_is_not_known(tmp_path: Path, data: dict[str, Any]) -> None:
    async with following(tmp_path, said("ADDED", 5, **data), END) as world:
        await eventually(lambda: world.told > 1)  # once seen, and once all was seen
        assert not world.watch.known.is_set()
        await world.hears("nothing is served before it is")
        assert world.changes == []


@pytest.mark.parametrize("cure", [said("MODIFIED", 7, mesh=GOOD), said("DELETED", 7)])
async def test_one_that_could_not_be_read_at_first_is_known_when_it_is_cured_or_gone(
    tmp_path: Path, cure: dict[str, Any]
) -> None:
    async with following(tmp_path, said("ADDED", 5, mesh="{"), END, cure) as world:
        await world.watch.known.wait()
        assert world.findings == []
        assert world.changes == ([CONFIG] if cure["type"] == "MODIFIED" else [])


async def test_one_that_is_forbidden_leaves_istios_defaults_and_is_told(tmp_path: Path) -> None:
    async with following(tmp_path, failure(403, "Forbidden", "not for you"), status=403) as world:
        await world.watch.known.wait()
        assert world.changes == []
        assert [each.code for each in world.findings] == ["MG9108"]


async def test_who_is_not_recognized_knows_nothing(tmp_path: Path) -> None:
    async with following(tmp_path, failure(401, "Unauthorized", "who are you"), status=401) as world:
        await world.hears("who are you")
        assert not world.watch.known.is_set()
