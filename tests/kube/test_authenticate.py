"""Proxies and their tokens before a real API server: who is let in, and to whose configuration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from meshgw.api.meta import Key
from meshgw.cluster.authenticate import REMEMBERED, TokenReviewer, authorize_owners
from meshgw.kube.client import Client, KubeSettings, connect
from meshgw.xds.proxy import Account, Peer, Refused
from meshgw.xds.server import AdsServer
from meshgw.xds.transport import tls_credentials
from tests.cluster.apiserver import ApiServer
from tests.rig.certs import authority
from tests.unit.xds.peers import NAME, connected, names, serving
from tests.unit.xds.playbook import CDS, LDS, cluster, edit, subscribe, want

_SERIAL = count(1)


@dataclass
class Proxy:
    """A pod of a Gateway's proxy, as far as an API server without nodes has one."""

    server: ApiServer
    namespace: str
    account: str
    pod: str
    uid: str

    def token(self, *, audience: str = "meshgw", bound: bool = True) -> str:
        """Return what the kubelet would put into the pod."""
        spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": 3600}
        if bound:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": self.pod, "uid": self.uid}
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{self.account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        status, answer = self.server.request("POST", path, body)
        assert status == 201, answer
        return str(json.loads(answer)["status"]["token"])

    def expired(self) -> str:
        """Return the same token two hours later."""
        claims = jwt.decode(self.token(), options={"verify_signature": False})
        past = {name: claims[name] - 7200 for name in ("exp", "iat", "nbf")}
        return self.sign({**claims, **past})

    def sign(self, claims: dict[str, Any], key: Any = None) -> str:
        """Return a token as the API server signs it, or signed with another key."""
        header = jwt.get_unverified_header(self.token())
        key = key or (self.server.folder / "sa.key").read_bytes()
        return jwt.encode(claims, key, algorithm=header["alg"], headers={"kid": header["kid"]})

    def remove(self, *, account: bool = False) -> None:
        """Delete the pod, or the ServiceAccount it runs as."""
        what = f"serviceaccounts/{self.account}" if account else f"pods/{self.pod}"
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        status, answer = self.server.request("DELETE", f"/api/v1/namespaces/{self.namespace}/{what}", options)
        assert status == 200, answer


def make_proxy(server: ApiServer, namespace: str, gateway: str = "gw") -> Proxy:
    """Create what there is of a Gateway's proxy."""
    name = f"{gateway}-meshgw"
    pod = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "containers": [{"name": "envoy", "image": "example.test/envoy"}],
    }
    create(server, "", "Namespace", namespace)
    create(server, f"namespaces/{namespace}/", "ServiceAccount", name)
    created = create(server, f"namespaces/{namespace}/", "Pod", f"{name}-1", spec=pod)
    return Proxy(server, namespace, name, f"{name}-1", created["metadata"]["uid"])


def create(server: ApiServer, place: str, kind: str, name: str, **fields: Any) -> Any:
    """Create an object, unless it is there (kubectl would take a second)."""
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields}
    status, answer = server.request("POST", f"/api/v1/{place}{kind.lower()}s", body)
    assert status in {201, 409}, answer
    return json.loads(answer)


def bearing(token: str) -> Peer:
    return Peer(address="test", headers={"authorization": f"Bearer {token}"})


@asynccontextmanager
async def client_of(server: ApiServer) -> AsyncIterator[Client]:
    async with connect(KubeSettings(kubeconfig=str(server.kubeconfig))) as client:
        yield client


@pytest.fixture
async def client(apiserver: ApiServer) -> AsyncIterator[Client]:
    async with client_of(apiserver) as client:
        yield client


@pytest.fixture
def proxy(apiserver: ApiServer) -> Proxy:
    return make_proxy(apiserver, f"proxies-{next(_SERIAL)}")


async def reason(review: TokenReviewer, token: str) -> str:
    verdict = await review(bearing(token))
    return f"{verdict.code}: {verdict.reason}" if isinstance(verdict, Refused) else "OK"


async def test_the_token_of_a_pod_proves_which_pod_it_is(client: Client, proxy: Proxy) -> None:
    token = await asyncio.to_thread(proxy.token)
    verdict = await TokenReviewer(client)(bearing(token))
    assert isinstance(verdict, Peer)
    assert verdict.account == Account(
        namespace=proxy.namespace, service_account="gw-meshgw", pod="gw-meshgw-1", pod_uid=proxy.uid
    )
    assert 3500 < verdict.proven_for <= 3600


def signed_by_another(proxy: Proxy) -> str:
    claims = jwt.decode(proxy.token(), options={"verify_signature": False})
    return proxy.sign(claims, rsa.generate_private_key(public_exponent=65537, key_size=2048))


def changed(proxy: Proxy) -> str:
    head, body, signature = proxy.token().split(".")
    return f"{head}.{body}.{'A' * len(signature)}"


def of_a_removed_pod(proxy: Proxy) -> str:
    token = proxy.token()
    proxy.remove()
    return token


def of_a_removed_account(proxy: Proxy) -> str:
    token = proxy.token()
    proxy.remove(account=True)
    return token


NOT_ACCEPTED = "UNAUTHENTICATED: the API server does not accept the token"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda proxy: proxy.token(audience="istio-ca"), NOT_ACCEPTED),
        (lambda proxy: proxy.token(audience="https://kubernetes.default.svc.cluster.local"), NOT_ACCEPTED),
        (lambda proxy: proxy.token(bound=False), "UNAUTHENTICATED: the token belongs to no pod"),
        (lambda proxy: proxy.expired(), NOT_ACCEPTED),
        (signed_by_another, NOT_ACCEPTED),
        (changed, NOT_ACCEPTED),
        (of_a_removed_pod, NOT_ACCEPTED),
        (of_a_removed_account, NOT_ACCEPTED),
    ],
)
async def test_no_other_token_does(client: Client, proxy: Proxy, make: Callable[[Proxy], str], expected: str) -> None:
    token = await asyncio.to_thread(make, proxy)
    assert await reason(TokenReviewer(client), token) == expected


async def test_a_signed_token_is_what_the_expired_one_differs_from(client: Client, proxy: Proxy) -> None:
    """The control of the test above: signed here, but not expired."""
    claims = jwt.decode(await asyncio.to_thread(proxy.token), options={"verify_signature": False})
    assert await reason(TokenReviewer(client), await asyncio.to_thread(proxy.sign, claims)) == "OK"


async def test_nobody_new_is_let_in_while_the_api_server_is_away(start_apiserver: Callable[..., ApiServer]) -> None:
    server = await asyncio.to_thread(start_apiserver)
    proxy = await asyncio.to_thread(make_proxy, server, "shop")
    known, new = [await asyncio.to_thread(proxy.token) for _ in range(2)]
    now = 0.0
    async with client_of(server) as client:
        review = TokenReviewer(client, clock=lambda: now)
        assert await reason(review, known) == "OK"
        await asyncio.to_thread(server.server.kill)
        assert await reason(review, known) == "OK"
        away = "UNAVAILABLE: the API server cannot be asked about the token"
        assert await reason(review, new) == away
        now = REMEMBERED
        assert await reason(review, known) == away
        await asyncio.to_thread(server.start)
        assert [await reason(review, token) for token in (known, new)] == ["OK", "OK"]


# With the xDS server


@dataclass
class Site:
    """Two Gateways of one namespace and one of another, served to those who prove to be their proxies."""

    server: AdsServer
    own: Proxy
    sibling: Proxy
    elsewhere: Proxy


@pytest.fixture
async def site(apiserver: ApiServer, client: Client) -> AsyncIterator[Site]:
    here, there = f"here-{next(_SERIAL)}", f"there-{next(_SERIAL)}"

    def make() -> list[Proxy]:
        places = [(here, "gw"), (here, "sibling"), (there, "gw")]
        return [make_proxy(apiserver, namespace, gateway) for namespace, gateway in places]

    own, sibling, elsewhere = proxies = await asyncio.to_thread(make)
    gateways = {(p.namespace, p.account): Key(p.namespace, p.account.removesuffix("-meshgw")) for p in proxies}
    leaf = authority().issue(NAME)
    async with serving(
        listen="0.0.0.0:0",
        credentials=tls_credentials(lambda: (leaf.key, leaf.chain)),
        authenticate=TokenReviewer(client),
        authorize=authorize_owners(lambda namespace, name: gateways.get((namespace, name))),
    ) as server:
        server.address = f"127.0.0.1:{server.address.rpartition(':')[2]}"
        for gateway in gateways.values():
            server.publish(str(gateway), edit(cluster(f"of {gateway}")).changes, ready=True)
        yield Site(server, own, sibling, elsewhere)


Caller = Callable[[Site], str]

OUTSIDERS: dict[str, tuple[Caller, grpc.StatusCode]] = {
    "no token": (lambda _: "", grpc.StatusCode.UNAUTHENTICATED),
    "no token's shape": (lambda _: "Bearer secret", grpc.StatusCode.UNAUTHENTICATED),
    "wrong": (lambda site: f"Bearer {changed(site.own)}", grpc.StatusCode.UNAUTHENTICATED),
    "expired": (lambda site: f"Bearer {site.own.expired()}", grpc.StatusCode.UNAUTHENTICATED),
    "other audience": (lambda s: f"Bearer {s.own.token(audience='istio-ca')}", grpc.StatusCode.UNAUTHENTICATED),
    "no pod's": (lambda site: f"Bearer {site.own.token(bound=False)}", grpc.StatusCode.UNAUTHENTICATED),
    "another Gateway's": (lambda site: f"Bearer {site.sibling.token()}", grpc.StatusCode.PERMISSION_DENIED),
    "another namespace's": (lambda site: f"Bearer {site.elsewhere.token()}", grpc.StatusCode.PERMISSION_DENIED),
}


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("outsider", OUTSIDERS)
async def test_outsiders_get_nothing(site: Site, outsider: str, *, delta: bool) -> None:
    make, code = OUTSIDERS[outsider]
    credential = await asyncio.to_thread(make, site)
    metadata = [("authorization", credential)] if credential else []
    async with connected(site.server, roots=authority().root, metadata=metadata, delta=delta) as proxy:
        node_id = f"{site.own.namespace}/gw/{site.own.pod}"
        request: Any = subscribe(CDS, node_id=node_id) if delta else want(CDS, node_id=node_id)
        if code is grpc.StatusCode.PERMISSION_DENIED:
            await proxy.send(request)
        assert (await proxy.ending())[0] is code
    assert site.server.proxies() == ()


@pytest.mark.parametrize("delta", [True, False])
async def test_a_proxy_gets_its_own_and_nothing_by_another_name_at_any_time(site: Site, *, delta: bool) -> None:
    token = await asyncio.to_thread(site.own.token)
    metadata = [("authorization", f"Bearer {token}")]
    ask: Any = subscribe if delta else want
    own = f"{site.own.namespace}/gw/{site.own.pod}"
    others = [
        f"{site.sibling.namespace}/sibling/{site.sibling.pod}",
        f"{site.elsewhere.namespace}/gw/{site.elsewhere.pod}",
        f"{site.sibling.namespace}/sibling/{site.own.pod}",
    ]
    for other in others:
        async with connected(site.server, roots=authority().root, metadata=metadata, delta=delta) as proxy:
            await proxy.send(ask(CDS, node_id=other))
            assert (await proxy.ending())[0] is grpc.StatusCode.PERMISSION_DENIED
        async with connected(site.server, roots=authority().root, metadata=metadata, delta=delta) as proxy:
            response = await proxy.ask(ask(CDS, node_id=own))
            if delta:
                assert names(response) == [f"of {site.own.namespace}/gw"]
            assert len(response.resources) == 1
            await proxy.send(ask(LDS, node_id=other))
            assert (await proxy.ending())[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_many_reconnections_are_one_review(site: Site, apiserver: ApiServer) -> None:
    token = await asyncio.to_thread(site.own.token)
    before = reviews(apiserver)
    for _ in range(30):
        async with connected(
            site.server, roots=authority().root, metadata=[("authorization", f"Bearer {token}")]
        ) as proxy:
            await proxy.ask(subscribe(CDS, node_id=f"{site.own.namespace}/gw/{site.own.pod}"))
    # The audit log is written as requests end, and this one came first.
    assert reviews(apiserver) == before + 1


def reviews(server: ApiServer) -> int:
    return sum(event["objectRef"].get("resource") == "tokenreviews" for event in server.audit() if "objectRef" in event)
