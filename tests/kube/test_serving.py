"""The Secrets of the xDS server's certificate at a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from cryptography import x509

from meshgw.api.meta import Key
from meshgw.cluster.serving import GivenSecret, OwnAuthority, ServingCertificate, server_names
from meshgw.kube.client import ApiError, Client, KubeSettings, connect
from meshgw.xds.cache import Cache
from meshgw.xds.proxy import Account, Peer
from meshgw.xds.transport import tls_credentials
from tests.cluster.apiserver import ApiServer
from tests.rig.certs import CertificateAuthority
from tests.rig.waiting import eventually
from tests.unit.xds.peers import NAME, connected, names, serving
from tests.unit.xds.playbook import CDS, GROUP, cluster, edit, subscribe

_SERIAL = count(1)


@pytest.fixture
async def client(apiserver: ApiServer) -> AsyncIterator[Client]:
    async with connect(KubeSettings(kubeconfig=str(apiserver.kubeconfig))) as client:
        yield client


@pytest.fixture
def secret(apiserver: ApiServer) -> Key:
    """The key of a Secret that does not exist, in a namespace of its own."""
    namespace = f"serving-{next(_SERIAL)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    assert apiserver.request("POST", "/api/v1/namespaces", body)[0] == 201
    return Key(namespace, "meshgw-xds")


def now() -> datetime:
    return datetime.now(UTC)


async def test_replicas_that_start_together_have_one_ca_and_rotate_it_together(client: Client, secret: Key) -> None:
    replicas = [OwnAuthority(client, secret, server_names(secret)) for _ in range(6)]
    for at, roots in ((now(), 1), (now() + timedelta(days=183), 2), (now() + timedelta(days=186), 1)):
        for _ in range(2):  # whoever looked before the last write sees it the next time
            await asyncio.gather(*(replica.refresh(at) for replica in replicas))
        served = [replica.served(at) for replica in replicas]
        (trust,) = {one.trust for one in served if one}
        assert len(x509.load_pem_x509_certificates(trust)) == roots


async def test_what_is_stored_is_taken_over_after_a_restart_and_vanishing(
    client: Client, secret: Key, apiserver: ApiServer
) -> None:
    async def trust(own: OwnAuthority) -> bytes:
        await own.refresh(now())
        served = own.served(now())
        assert served is not None
        return served.trust

    own = OwnAuthority(client, secret, server_names(secret))
    first = await trust(own)
    assert await trust(OwnAuthority(client, secret, server_names(secret))) == first
    path = f"/api/v1/namespaces/{secret.namespace}/secrets/{secret.name}"
    status, _ = await asyncio.to_thread(apiserver.request, "DELETE", path)
    assert status == 200
    assert await trust(own) == first
    assert await trust(OwnAuthority(client, secret, server_names(secret))) == first


async def test_an_account_that_may_not_write_says_so(
    client: Client, secret: Key, apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kubeconfig = tmp_path_factory.mktemp("user") / "kubeconfig"
    await asyncio.to_thread(apiserver.user_kubeconfig, "nobody", kubeconfig)
    async with connect(KubeSettings(kubeconfig=str(kubeconfig))) as nobody:
        with pytest.raises(ApiError) as refused:
            await OwnAuthority(nobody, secret, server_names(secret)).refresh(now())
    assert refused.value.status == 403


async def test_a_server_shows_what_others_put_into_the_secret_while_streams_live(
    client: Client, secret: Key, apiserver: ApiServer
) -> None:
    """As cert-manager does it: the Secret changes, handshakes show it, streams and their proxies notice nothing."""
    ca = CertificateAuthority.create("cert-manager")
    path = f"/api/v1/namespaces/{secret.namespace}/secrets"

    def put(*, create: bool = False) -> int:
        leaf = ca.issue(NAME)
        body = leaf.secret(secret.name, secret.namespace, ca_crt=ca.root)
        call = ("POST", path) if create else ("PUT", f"{path}/{secret.name}")
        status, answer = apiserver.request(*call, body)
        assert status in {200, 201}, answer
        return leaf.serial

    async def authenticate(peer: Peer) -> Peer:
        account = Account(namespace="shop", service_account="gw", pod="gw-1", pod_uid="1")
        return Peer(address=peer.address, account=account)

    trusted: list[bytes] = []
    certificate = ServingCertificate(GivenSecret(client, secret), on_trust=trusted.append, look=0.05)

    def shown() -> int:
        return x509.load_pem_x509_certificate(certificate.current()[1]).serial_number

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(certificate.run())
        await asyncio.to_thread(put, create=True)
        await certificate.ready.wait()
        async with serving(
            cache=Cache(),
            listen="0.0.0.0:0",
            credentials=tls_credentials(certificate.current),
            authenticate=authenticate,
        ) as server:
            server.address = f"127.0.0.1:{server.address.rpartition(':')[2]}"
            server.publish(GROUP, edit(cluster("a")).changes, ready=True)
            async with connected(server, roots=ca.root) as proxy:
                await proxy.answer(await proxy.ask(subscribe(CDS, node_id="n")))
                serial = await asyncio.to_thread(put)
                await eventually(lambda: shown() == serial, what="the new certificate")
                async with connected(server, roots=ca.root) as second:
                    assert names(await second.ask(subscribe(CDS, node_id="m"))) == ["a"]
                server.publish(GROUP, edit(cluster("b")).changes)
                assert names(await proxy.receive()) == ["b"]
        running.cancel()
    assert trusted == [ca.root]
