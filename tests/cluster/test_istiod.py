from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator

import pytest
from cryptography import x509

from meshgw.identity.errors import CaRefusedError, CaUnavailableError
from meshgw.identity.istiod import IstiodClient
from meshgw.identity.spiffe import SpiffeId
from tests.cluster.images import ECHO
from tests.cluster.istiod import CLUSTER_ID, Istiod
from tests.rig.certs import CertificateAuthority, bundle


def _identity(namespace: str, *, trust_domain: str = "cluster.local") -> SpiffeId:
    return SpiffeId(trust_domain=trust_domain, namespace=namespace, service_account="gateway")


class Gateway:
    """A ServiceAccount that asks istiod for its certificate."""

    def __init__(self, istiod: Istiod, namespace: str) -> None:
        self._istiod = istiod
        self._namespace = namespace
        self.audience = "istio-ca"

    @property
    def identity(self) -> SpiffeId:
        return _identity(self._namespace)

    async def token(self, identity: SpiffeId) -> str:
        mint = functools.partial(
            self._istiod.cluster.token, identity.namespace, identity.service_account, audience=self.audience
        )
        return await asyncio.to_thread(mint)

    async def roots(self) -> bytes:
        return await asyncio.to_thread(self._istiod.roots, self._namespace)

    async def client(self, *, cluster_id: str = CLUSTER_ID, patience: float = 5.0) -> IstiodClient:
        address = await asyncio.to_thread(lambda: self._istiod.address)
        return IstiodClient(address, roots=self.roots, token=self.token, cluster_id=cluster_id, timeout=patience)


@pytest.fixture(scope="module")
def gateway(istiod: Istiod) -> Gateway:
    namespace = istiod.cluster.create_namespace("istiod-tests")
    istiod.cluster.kubectl("-n", namespace, "create", "serviceaccount", "gateway")
    return Gateway(istiod, namespace)


async def test_istiod_signs_for_a_token_of_its_audience(istiod: Istiod, gateway: Gateway) -> None:
    issued = await (await gateway.client()).fetch(gateway.identity)
    leaf = x509.load_pem_x509_certificate(issued.chain_pem)
    (name,) = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert name.value == f"spiffe://cluster.local/ns/{gateway.identity.namespace}/sa/gateway"
    (root,) = x509.load_pem_x509_certificates(istiod.roots())
    leaf.verify_directly_issued_by(root)
    assert x509.load_pem_x509_certificates(issued.roots_pem) == [root]


async def test_istiod_refuses_a_token_of_another_audience_and_a_foreign_cluster(gateway: Gateway) -> None:
    gateway.audience = "meshgw"
    try:
        with pytest.raises(CaRefusedError) as refused:
            await (await gateway.client()).fetch(gateway.identity)
    finally:
        gateway.audience = "istio-ca"
    assert refused.value.code == "UNAUTHENTICATED"
    with pytest.raises(CaRefusedError) as refused:
        await (await gateway.client(cluster_id="elsewhere")).fetch(gateway.identity)
    assert refused.value.code == "UNAUTHENTICATED"


def test_root_is_published_in_new_namespaces(istiod: Istiod) -> None:
    space = istiod.cluster.create_namespace("istiod-tests-new")
    istiod.cluster.kubectl("-n", space, "wait", "--for=create", "configmap/istio-ca-root-cert", "--timeout=10s")
    assert istiod.roots(space) == istiod.roots()


def test_pods_reach_istiod_by_name(istiod: Istiod, gateway: Gateway) -> None:
    url = "http://istiod.istio-system.svc:8080/ready"
    space = gateway.identity.namespace
    command = [f"--image={ECHO}", "--image-pull-policy=Never", "--restart=Never", "--rm", "--attach", "--quiet"]
    said = istiod.cluster.kubectl(
        "-n", space, "run", "caller", *command, "--command", "--", "/usr/local/bin/client", url
    )
    assert "StatusCode=200" in said


@pytest.fixture
def signing(istiod: Istiod) -> Iterator[Istiod]:
    """An istiod whose signing root may be changed."""
    yield istiod
    istiod.sign_with_its_own()


async def test_root_can_be_rotated(signing: Istiod, gateway: Gateway) -> None:
    old, new = CertificateAuthority.create("old mesh root"), CertificateAuthority.create("new mesh root")
    await asyncio.to_thread(signing.sign_with, old, new)
    client = await gateway.client()
    issued = await client.fetch(gateway.identity)
    x509.load_pem_x509_certificate(issued.chain_pem).verify_directly_issued_by(old.certificate)
    assert issued.roots_pem.strip() == bundle(old, new).strip()
    await asyncio.to_thread(signing.sign_with, new)
    issued = await client.fetch(gateway.identity)
    x509.load_pem_x509_certificate(issued.chain_pem).verify_directly_issued_by(new.certificate)
    assert issued.roots_pem.strip() == new.root.strip()


async def test_istiod_can_be_away(istiod: Istiod, gateway: Gateway) -> None:
    client = await gateway.client(patience=0.5)
    await asyncio.to_thread(istiod.stop)
    try:
        with pytest.raises(CaUnavailableError):
            await client.fetch(gateway.identity)
    finally:
        await asyncio.to_thread(istiod.start)
    assert (await client.fetch(gateway.identity)).identity == gateway.identity


async def test_mesh_can_have_another_trust_domain(istiod: Istiod, gateway: Gateway) -> None:
    await asyncio.to_thread(functools.partial(istiod.configure, mesh={"trustDomain": "example.com"}))
    try:
        identity = _identity(gateway.identity.namespace, trust_domain="example.com")
        assert (await (await gateway.client()).fetch(identity)).identity == identity
    finally:
        await asyncio.to_thread(istiod.configure)
