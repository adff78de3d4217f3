"""Certificates from a CA that speaks istiod's protocol, by tokens of an API server that is scripted here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from meshgw.api.meta import Key
from meshgw.cluster.identity import Istiod, IstiodSettings, MeshIdentities, MeshRoots, TokenRequests
from meshgw.identity.authority import MeshAuthority
from meshgw.identity.errors import IssueError
from meshgw.identity.istiod import IstiodClient
from meshgw.identity.observer import SilentObserver
from meshgw.identity.selfsigned import EmbeddedCa
from meshgw.identity.spiffe import SpiffeId
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import IdentityProblem
from meshgw.kube.client import ApiError, Client
from tests.rig.waiting import eventually
from tests.unit.cluster.world import kind
from tests.unit.kube.scripted import HANG, bookmark, event, failure, scripted

ACCOUNT = Key("shop", "gw")
GATEWAY = SpiffeId(trust_domain="cluster.local", namespace="shop", service_account="gw")
SERVED = {"resources": [{"name": "configmaps", "verbs": ["create", "list", "watch"]}]}


class Api:
    """Gives tokens of a CA's own, and notes what was asked."""

    def __init__(self, ca: EmbeddedCa) -> None:
        self.ca = ca
        self.asked: list[tuple[str, str, Any]] = []
        self.answer: bytes | ApiError | None = None

    async def request(self, method: str, path: str, *, body: bytes, **_: Any) -> bytes:
        self.asked.append((method, path, json.loads(body)))
        if isinstance(self.answer, ApiError):
            raise self.answer
        if self.answer is not None:
            return self.answer
        _api, _v1, _namespaces, namespace, _accounts, account, _token = path.strip("/").split("/")
        return json.dumps({"status": {"token": self.ca.mint_token(namespace, account)}}).encode()


class World:
    """A CA, an API server, and the roots that are seen."""

    def __init__(self, ca: EmbeddedCa) -> None:
        self.ca, self.api = ca, Api(ca)
        self.bundle = ca.authority.roots_pem.decode()
        self.told: list[tuple[Key, IdentityProblem | None]] = []
        self.published: list[tuple[Key, WorkloadCertificate | None]] = []
        self.settings = IstiodSettings(address=ca.address, root_namespace="istio-system", cluster_id="Kubernetes")
        self.istiod = Istiod(
            cast("Client", self.api),
            self.settings,
            lambda: self.bundle,
            lambda account, problem: self.told.append((account, problem)),
        )

    def identities(self) -> MeshIdentities:
        return MeshIdentities(
            self.istiod, lambda account, row: self.published.append((account, row)), observer=SilentObserver()
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with EmbeddedCa(MeshAuthority(), tls=True) as ca:
        yield World(ca)


async def test_a_gateways_account_proves_itself_by_a_token_for_istiod_alone(world: World) -> None:
    certificate = await world.istiod.fetch(GATEWAY)
    assert certificate.identity == GATEWAY
    ((method, path, body),) = world.api.asked
    assert (method, path) == ("POST", "/api/v1/namespaces/shop/serviceaccounts/gw/token")
    assert body["spec"] == {"audiences": ["istio-ca"], "expirationSeconds": 3600}
    assert world.told == [(ACCOUNT, None)]


async def test_what_keeps_a_certificate_away_is_told_with_the_end_of_the_one_in_use(world: World) -> None:
    world.api.answer = ApiError(404, "NotFound", "no such account")
    with pytest.raises(IssueError):
        await world.istiod.fetch(GATEWAY)
    (_account, problem) = world.told.pop()
    assert problem is not None
    assert (problem.code, problem.ends) == ("TOKEN_UNREADABLE", "")
    assert "no such account" in problem.message
    world.api.answer = None
    certificate = await world.istiod.fetch(GATEWAY)
    world.bundle = ""
    with pytest.raises(IssueError):
        await world.istiod.fetch(GATEWAY)
    (_account, problem) = world.told.pop()
    assert problem is not None
    assert (problem.code, problem.ends) == ("ROOTS_UNREADABLE", f"{certificate.not_after:%Y-%m-%dT%H:%M:%SZ}")


@pytest.mark.parametrize("answer", [b"{}", b"no json", b'{"status": {"token": 3}}'])
async def test_an_answer_without_a_token_is_none(world: World, answer: bytes) -> None:
    world.api.answer = answer
    with pytest.raises(OSError, match="no token"):
        await TokenRequests(cast("Client", world.api))(GATEWAY)


async def test_changed_roots_and_trust_domains_renew_certificates(world: World) -> None:
    identities = world.identities()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(identities.run())
        identities.want({ACCOUNT}, trust_domain="cluster.local")
        await eventually(lambda: len(world.published) == 1)
        world.ca.authority.rotate_root()
        world.bundle = world.ca.authority.roots_pem.decode()
        identities.renew()
        await eventually(lambda: len(world.published) == 2)
        (_account, first), (_same, second) = world.published
        assert first is not None
        assert second is not None
        assert first.roots != second.roots
        identities.want({ACCOUNT}, trust_domain="other.example")  # of which the CA knows nothing
        problem = await eventually(lambda: world.told[-1][1])
        assert problem is not None
        assert problem.code == "IDENTITY_MISMATCH"
        assert problem.ends
        assert len(world.published) == 2  # proxies serve on with what they have
        identities.want({ACCOUNT}, trust_domain="cluster.local")
        await eventually(lambda: len(world.published) == 3)
        assert world.published[2][1] is not None
        assert world.told[-1] == (ACCOUNT, None)
        identities.want(set(), trust_domain="cluster.local")
        assert world.published[3:] == [(ACCOUNT, None)]
        running.cancel()


async def test_a_bug_is_told_of_the_gateway_by_its_type_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_self: IstiodClient, _identity: SpiffeId) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr(IstiodClient, "fetch", fail)
    with pytest.raises(RuntimeError):
        await world.istiod.fetch(GATEWAY)
    ((_account, problem),) = world.told
    assert problem == IdentityProblem(code="INTERNAL", message="INTERNAL: RuntimeError")


def roots_map(bundle: str, namespace: str = "istio-system") -> dict[str, Any]:
    metadata = {"name": "istio-ca-root-cert", "namespace": namespace, "uid": "u", "resourceVersion": "5"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"root-cert.pem": bundle}}


def modified(document: dict[str, Any], version: int, **changes: Any) -> dict[str, Any]:
    metadata = {**document["metadata"], "resourceVersion": str(version)}
    return event("MODIFIED", {**document, "metadata": metadata, **changes})


async def test_roots_are_those_of_the_root_namespace_and_of_no_other(tmp_path: Path) -> None:
    changes: list[str] = []
    told: list[Sequence[Finding]] = []
    async with scripted(tmp_path) as (script, client), asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        roots = MeshRoots(
            client,
            kind("ConfigMap"),
            namespace="istio-system",
            on_change=lambda: changes.append(roots.bundle),
            tell=told.append,
        )
        first = roots_map("one")
        script.on("GET /api/v1 ", SERVED)
        script.on(
            "sendInitialEvents",
            event("ADDED", first),
            bookmark(6, end=True),
            modified(first, 7, data={"root-cert.pem": 3}),
            modified(first, 8, data={"root-cert.pem": "two"}),
            modified(first, 9, data={"root-cert.pem": "two", "more": ""}),
            event("DELETED", modified(first, 10)["object"]),
            HANG,
        )
        running = tasks.create_task(roots.run())
        await roots.known.wait()
        await eventually(lambda: len(changes) == 3, what=str(changes))
        running.cancel()
    assert changes == ["one", "two", ""]
    assert [len(each) for each in told] == [0, 1, 0, 0, 0]
    watches = [line for line in script.requests if "watch=true" in line]
    assert all(
        line.startswith("GET /api/v1/namespaces/istio-system/configmaps?")
        and "fieldSelector=metadata.name%3Distio-ca-root-cert" in line
        for line in watches
    ), watches


async def test_roots_that_may_not_be_read_keep_nothing_waiting(tmp_path: Path) -> None:
    told: list[Sequence[Finding]] = []
    async with scripted(tmp_path) as (script, client), asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        roots = MeshRoots(client, kind("ConfigMap"), namespace="mesh", on_change=lambda: None, tell=told.append)
        script.on("GET /api/v1 ", SERVED)
        script.on("sendInitialEvents", failure(403, "Forbidden", "not for you"), status=403)
        running = tasks.create_task(roots.run())
        await roots.known.wait()
        running.cancel()
    assert roots.bundle == ""
    ((finding,),) = told
    assert finding.code == "MG9108"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("istiod-canary.mesh.svc:15012", None),
        ("127.0.0.1:15012", "istiod.mesh.svc"),
        ("[::1]:15012", "istiod.mesh.svc"),
        ("localhost:15012", "istiod.mesh.svc"),
    ],
)
def test_the_name_in_istiods_certificate_is_its_host_where_that_is_one(address: str, name: str | None) -> None:
    assert IstiodSettings(address=address, root_namespace="mesh").server_name == name


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        IstiodSettings(address="nowhere", root_namespace="mesh")
