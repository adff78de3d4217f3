"""Certificates from a CA that speaks istiod's protocol, by tokens of an API server that is scripted here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from meshgw.api.core import ConfigMap
from meshgw.api.meta import Key, ObjectMeta
from meshgw.cluster.identity import Istiod, IstiodSettings, MeshIdentities, TokenRequests, find_roots
from meshgw.identity.authority import MeshAuthority
from meshgw.identity.errors import IssueError
from meshgw.identity.observer import SilentObserver
from meshgw.identity.selfsigned import EmbeddedCa
from meshgw.identity.spiffe import SpiffeId
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.gateway import IdentityProblem
from meshgw.kube.client import ApiError, Client
from tests.rig.waiting import eventually

ACCOUNT = Key("shop", "gw")
GATEWAY = SpiffeId(trust_domain="cluster.local", namespace="shop", service_account="gw")
ROOTS = Key("istio-system", "istio-ca-root-cert")


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
    """A CA, an API server, and the ConfigMaps that are seen."""

    def __init__(self, ca: EmbeddedCa) -> None:
        self.ca, self.api = ca, Api(ca)
        self.maps: dict[Key, ConfigMap] = {}
        self.told: list[tuple[Key, IdentityProblem | None]] = []
        self.published: list[tuple[Key, WorkloadCertificate | None]] = []
        self.settings = IstiodSettings(address=ca.address, root_namespace="istio-system", cluster_id="Kubernetes")
        self.istiod = Istiod(
            cast("Client", self.api),
            self.settings,
            self.maps.get,
            lambda account, problem: self.told.append((account, problem)),
        )
        self.trust()

    def trust(self, key: Key = ROOTS) -> None:
        """Publish the roots of the CA as istiod does."""
        data: Mapping[str, str] = {"root-cert.pem": self.ca.authority.roots_pem.decode()}
        self.maps[key] = ConfigMap(metadata=ObjectMeta(name=key.name, namespace=key.namespace), data=data)

    def identities(self) -> MeshIdentities:
        return MeshIdentities(
            self.istiod,
            self.settings,
            self.maps.get,
            lambda account, row: self.published.append((account, row)),
            observer=SilentObserver(),
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
    world.maps.clear()
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
        identities.want({ACCOUNT}, trust_domain="cluster.local")
        await asyncio.sleep(0)
        world.ca.authority.rotate_root()
        world.trust()
        identities.want({ACCOUNT}, trust_domain="cluster.local")
        await eventually(lambda: len(world.published) == 2)
        (_account, first), (_same, second) = world.published
        assert first is not None
        assert second is not None
        assert first.roots != second.roots
        identities.want({ACCOUNT}, trust_domain="other.example")
        assert world.published[2] == (ACCOUNT, None)
        running.cancel()


def test_roots_are_those_of_the_root_namespace_or_else_of_the_own(world: World) -> None:
    everywhere = find_roots(world.maps.get, "istio-system", "shop")
    assert everywhere == world.ca.authority.roots_pem.decode()
    del world.maps[ROOTS]
    assert find_roots(world.maps.get, "istio-system", "shop") == ""
    world.trust(Key("shop", "istio-ca-root-cert"))
    assert find_roots(world.maps.get, "istio-system", "shop") == everywhere


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
