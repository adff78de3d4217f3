"""A mesh that gives no certificates: the Gateway says why, serves what needs none, and has one once it is cured."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest

from meshgw.identity.authority import MeshAuthority
from meshgw.identity.clock import SystemClock
from meshgw.identity.selfsigned import EmbeddedCa
from meshgw.identity.spiffe import SpiffeId
from meshgw.identity.tokens import AUDIENCE, TokenError
from tests.cluster.apiserver import ISSUER, ApiServer
from tests.cluster.controllers import condition, run_controller
from tests.cluster.site import Site, answers, backend, gateway, route
from tests.rig.addresses import free_ports, own_address
from tests.rig.backends import Backends
from tests.rig.waiting import eventually

pytestmark = pytest.mark.timeout(300)


class Yesterday(SystemClock):
    """A day behind."""

    def now(self) -> datetime:
        return super().now() - timedelta(days=1)


class AccountTokens:
    """Believes tokens that the API server signed for istiod, as istiod does."""

    def __init__(self, server: ApiServer, trust_domain: str) -> None:
        self.key = (server.folder / "sa.pub").read_bytes()
        self.trust_domain = trust_domain

    def verify(self, token: str) -> SpiffeId:
        try:
            claims = jwt.decode(token, self.key, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)
        except jwt.InvalidTokenError as error:
            raise TokenError(type(error).__name__) from None
        return SpiffeId.of_account(self.trust_domain, claims["sub"])


class ClusterCa(EmbeddedCa):
    """A CA of a mesh in the root namespace `space`, which believes the tokens of a cluster, or only its own."""

    def __init__(self, server: ApiServer, space: str, trust_domain: str = "cluster.local") -> None:
        super().__init__(MeshAuthority(trust_domain), tls=True)
        self.space, self.accounts = space, AccountTokens(server, trust_domain)

    def believe_accounts(self) -> None:
        """Take tokens of the cluster's ServiceAccounts from now on."""
        self._tokens: Any = self.accounts

    def be(self, authority: MeshAuthority) -> None:
        """Sign with another root from now on."""
        self._authority = authority

    def _server_certificate(self) -> grpc.ServerCertificateConfiguration:
        key, chain = self.authority.issue_server((f"istiod.{self.space}.svc",))
        return grpc.ssl_server_certificate_configuration([(key.reveal(), chain)])


class Mesh:
    """A site whose mesh is wrong in some way."""

    def __init__(self, site: Site, ca: ClusterCa) -> None:
        self.site, self.ca = site, ca

    async def publish(self, name: str, key: str, text: str) -> None:
        """Publish a ConfigMap of istiod's."""
        metadata = {"name": name, "namespace": self.site.controller.name}
        await self.site.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: text}})

    async def trust(self, roots: bytes) -> None:
        await self.publish("istio-ca-root-cert", "root-cert.pem", roots.decode())

    async def identity(self, status: str, reason: str, *words: str) -> bool:
        """Whether the Gateway says this of its identity."""
        found = condition(await self.site.get("gateway", "edge"), "meshgw.dev/MeshIdentity")
        assert found[:2] == (status, reason), found
        assert all(word in found[2] for word in words), found
        return True


@asynccontextmanager
async def run_mesh(
    server: ApiServer, folder: Path, name: str, *, trust_domain: str = "cluster.local"
) -> AsyncIterator[Mesh]:
    async with ClusterCa(server, name, trust_domain) as ca:
        options = ("--istiod-address", ca.address, "--root-namespace", name)
        async with run_controller(server, folder, name, *options) as controller:
            yield Mesh(Site(server, controller), ca)


async def refuse_tokens(mesh: Mesh) -> None:
    await mesh.trust(mesh.ca.authority.roots_pem)


async def accept_tokens(mesh: Mesh) -> None:
    mesh.ca.believe_accounts()


async def be_elsewhere(mesh: Mesh) -> None:
    mesh.ca.believe_accounts()
    await mesh.trust(mesh.ca.authority.roots_pem)


async def tell_trust_domain(mesh: Mesh) -> None:
    await mesh.publish("istio", "mesh", "trustDomain: elsewhere")


async def expire(mesh: Mesh) -> None:
    mesh.ca.believe_accounts()
    mesh.ca.be(MeshAuthority(root_lifetime=timedelta(hours=1), clock=Yesterday()))
    await mesh.trust(mesh.ca.authority.roots_pem)


async def renew_root(mesh: Mesh) -> None:
    mesh.ca.be(MeshAuthority())
    await mesh.trust(mesh.ca.authority.roots_pem)


Step = Callable[[Mesh], Any]


@pytest.mark.parametrize(
    ("name", "trust_domain", "spoil", "expected", "cure"),
    [
        ("token-refused", "cluster.local", refuse_tokens, ("Unauthenticated", "no service account"), accept_tokens),
        ("elsewhere", "elsewhere", be_elsewhere, ("IdentityMismatch", "elsewhere"), tell_trust_domain),
        ("expired-root", "cluster.local", expire, ("Unavailable", "certificate has expired"), renew_root),
    ],
    ids=["token refused", "another trust domain", "expired root"],
)
async def test_a_gateway_without_an_identity_says_why_and_serves(  # noqa: PLR0917 - one column each
    apiserver: ApiServer,
    backends: Backends,
    tmp_path: Path,
    name: str,
    trust_domain: str,
    spoil: Step,
    expected: tuple[str, str],
    cure: Step,
) -> None:
    echo = await backends.echo("echo", host=own_address())
    (port,) = free_ports(1)
    async with run_mesh(apiserver, tmp_path, name, trust_domain=trust_domain) as mesh:
        site, controller = mesh.site, mesh.site.controller
        await spoil(mesh)
        await site.apply(gateway(controller, "edge", port), *backend(controller, echo))
        await site.apply(route(controller, "plain", ["edge"]))
        said = functools.partial(mesh.identity, "False", expected[0], "there is none in use", expected[1])
        await eventually(said, what="the condition", within=40)
        async with site.envoy("edge") as log:
            await eventually(lambda: _serves(port), what=f"it serves: {log}", within=20)
            await cure(mesh)
            await eventually(lambda: mesh.identity("True", "Issued"), what="it is cured", within=40)
            assert await _serves(port)
        assert "BEGIN" not in controller.log()


async def _serves(port: int) -> bool:
    return await answers(port) == 200


async def test_roots_that_end_leave_what_was_issued_in_use(apiserver: ApiServer, tmp_path: Path) -> None:
    """What was issued is valid for hours: that the next one cannot be had is told with the end of this one."""
    async with run_mesh(apiserver, tmp_path, "ending-root") as mesh:
        await renew_root(mesh)
        mesh.ca.believe_accounts()
        await mesh.site.apply(gateway(mesh.site.controller, "edge", 8080))
        await eventually(lambda: mesh.identity("True", "Issued"), what="a certificate", within=40)
        await expire(mesh)
        said = functools.partial(mesh.identity, "False", "Unavailable", "the certificate in use ends at 2")
        await eventually(said, what="the condition", within=40)
