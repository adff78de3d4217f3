"""A waypoint beside a real istiod: what istiod makes of it, what it serves, and a mesh that changes its root."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from meshgw.names import HBONE_PORT, LABEL_ISTIO_MANAGED
from tests.cluster.controllers import condition
from tests.cluster.discovery import ask_workloads
from tests.cluster.istiod import NAMESPACE, Istiod
from tests.cluster.mesh import Mesh, gateway, route, run_mesh
from tests.cluster.workloads import Echo, lines_of
from tests.rig.certs import CertificateAuthority, Leaf, PrivateKey
from tests.rig.clients import Response, Target, request
from tests.rig.hbone import HboneClient
from tests.rig.load import Load
from tests.rig.waiting import eventually

pytestmark = [pytest.mark.timeout(420), pytest.mark.asyncio(loop_scope="module")]

SPACE = "mesh-behind"
OBJECTS = "waypoint-mesh-waypoint-meshgw-waypoint"
"""The name of the waypoint's objects."""
ISTIO = "istio.io/gateway-controller"


class Waypoint:
    """A waypoint in a namespace that is behind it as a whole, and Services there."""

    def __init__(self, mesh: Mesh, target: Target, address: str) -> None:
        self.mesh, self.target, self.address = mesh, target, address
        self.reviews = ""
        """The virtual address of the Service, with its port."""

    async def request(self, path: str, identity: Leaf) -> Response:
        """Send one request through a connection and a tunnel of its own."""
        async with HboneClient(self.target, ca=identity.root, identity=identity) as client:
            return await client.request(self.reviews, path, within=10.0)

    async def answer(self, path: str, identity: Leaf, *, pod: str = "", status: int = 200) -> None:
        """Wait until requests are answered so, by a pod of that Deployment."""

        async def is_answered() -> bool:
            answer = await self.request(path, identity)
            assert answer.status == status, answer
            assert (lines_of(answer.body.decode(), "Hostname") or [""])[0].startswith(pod), answer.body
            return True

        await eventually(is_answered, what=f"{path}: {status} by {pod or 'anybody'}", within=30, interval=0.2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def waypoint(istiod: Istiod) -> AsyncIterator[Waypoint]:
    async with run_mesh(istiod, "mesh-waypoint") as mesh:
        await mesh.namespace(SPACE, {"istio.io/use-waypoint": "waypoint"})
        listener = {"name": "mesh", "port": HBONE_PORT, "protocol": "HBONE"}
        copied = {LABEL_ISTIO_MANAGED: "istio.io-mesh-controller", "team": "mesh"}
        made = gateway(SPACE, "waypoint", mesh.controller.class_("meshgw-waypoint"), listener, labels=copied)
        await mesh.apply(made)
        for name in ("reviews", "reviews-v2", "friend"):
            await mesh.echo(SPACE, name)
        await mesh.programmed(SPACE, "waypoint")
        address = (await mesh.get(SPACE, "service", OBJECTS))["spec"]["clusterIP"]
        started = Waypoint(mesh, mesh.cluster.reach(address, HBONE_PORT), address)
        started.reviews = f"{(await mesh.get(SPACE, 'service', 'reviews'))['spec']['clusterIP']}:80"
        yield started


async def test_istiod_takes_the_gateway_for_the_waypoint_of_labelled_services(waypoint: Waypoint) -> None:
    mesh = waypoint.mesh

    async def is_bound() -> bool:
        found = condition(await mesh.get(SPACE, "service", "reviews"), "istio.io/WaypointBound")
        assert found[0] == "True", found
        return True

    await eventually(is_bound, what="istiod says that the Service is bound", within=60, interval=0.5)
    told = await ask_workloads(mesh.istiod, SPACE, "friend")
    place = f"{SPACE}/{OBJECTS}.{SPACE}.svc.cluster.local:{HBONE_PORT}"
    assert told["service", "reviews"].waypoint == place
    (pod,) = Echo(mesh.cluster, SPACE, "reviews").pods()
    assert told["workload", pod].hbone


async def test_waypoint_in_a_labelled_namespace_is_not_behind_itself(waypoint: Waypoint) -> None:
    mesh = waypoint.mesh
    told = await ask_workloads(mesh.istiod, SPACE, "friend")
    (pod,) = await mesh.proxy_pods(SPACE, "waypoint")
    assert told["service", "friend"].waypoint != ""  # by the namespace's label, as the waypoint's own would be
    assert told["service", OBJECTS].waypoint == ""
    assert told["workload", pod["metadata"]["name"]].waypoint == ""
    assert not told["workload", pod["metadata"]["name"]].hbone
    assert condition(await mesh.get(SPACE, "service", OBJECTS), "istio.io/WaypointBound")[0] != "True"
    dump = str(await mesh.ask_proxy(SPACE, "waypoint", "/config_dump?resource=dynamic_listeners"))
    assert waypoint.reviews.removesuffix(":80") in dump
    assert waypoint.address not in dump


async def test_label_of_what_istiod_deploys_is_not_copied(waypoint: Waypoint) -> None:
    selector = ("-l", "gateway.networking.k8s.io/gateway-name=waypoint")
    kinds = "deployment,replicaset,pod,service,serviceaccount,configmap"
    found = (await waypoint.mesh.get(SPACE, kinds, *selector))["items"]
    assert {item["kind"] for item in found} == {
        "Deployment",
        "ReplicaSet",
        "Pod",
        "Service",
        "ServiceAccount",
        "ConfigMap",
    }
    assert {item["metadata"]["labels"]["team"] for item in found} == {"mesh"}
    assert [item["metadata"]["name"] for item in found if LABEL_ISTIO_MANAGED in item["metadata"]["labels"]] == []


POLICY = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "friends", "namespace": SPACE},
    "spec": {
        "targetRefs": [{"group": "", "kind": "Service", "name": "reviews"}],
        "action": "ALLOW",
        "rules": [{"from": [{"source": {"principals": [f"cluster.local/ns/{SPACE}/sa/friend"]}}]}],
    },
}


def reviews_route(backends: dict[str, str]) -> dict[str, Any]:
    return route(SPACE, "reviews", {"group": "", "kind": "Service", "name": "reviews", "port": 80}, backends)


async def test_mesh_route_and_policy_decide_about_requests_by_hbone(waypoint: Waypoint) -> None:
    mesh = waypoint.mesh
    friend, stranger = await mesh.identity(SPACE, "friend"), await mesh.identity(SPACE, "stranger")
    await mesh.apply(reviews_route({"/new": "reviews-v2", "/": "reviews"}))
    await waypoint.answer("/new", stranger, pod="reviews-v2-")
    await mesh.apply(POLICY)
    await waypoint.answer("/new", stranger, status=403)
    await waypoint.answer("/", stranger, status=403)
    await waypoint.answer("/new", friend, pod="reviews-v2-")
    # Istio's own client says the same, from a pod of the mesh.
    caller = Echo(mesh.cluster, SPACE, "friend", identity=(friend.chain, friend.key))
    hbone = f"{waypoint.address}:{HBONE_PORT}"
    url = f"http://{waypoint.reviews}/new"
    said = await asyncio.to_thread(caller.call_through_tunnel, hbone, waypoint.reviews, url)
    assert lines_of(said, "StatusCode") == ["200"]
    assert lines_of(said, "Hostname") == [*Echo(mesh.cluster, SPACE, "reviews-v2").pods()]


async def test_istiods_parent_status_of_a_mesh_route_stays(waypoint: Waypoint) -> None:
    """Of a route with two parents: one behind our waypoint, which istiod leaves to us, and one that is istiod's."""
    mesh = waypoint.mesh
    ours = mesh.controller.controller_name
    metadata = {"name": "plain", "namespace": SPACE, "labels": {"istio.io/use-waypoint": "none"}}
    ports = [{"name": "http", "port": 80}]
    await mesh.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}})

    async def apply(backends: dict[str, str]) -> dict[str, Any]:
        """Change the route, and return who says what of which parent, once all have seen the change."""
        changed = reviews_route(backends)
        changed["spec"]["parentRefs"].append({"group": "", "kind": "Service", "name": "plain", "port": 80})
        await mesh.apply(changed)
        found: dict[str, Any] = {}

        async def is_told_by_both() -> bool:
            document = await mesh.get(SPACE, "httproute", "reviews")
            entries = document.get("status", {}).get("parents", [])
            found.clear()
            found.update({f"{entry['controllerName']} {entry['parentRef']['name']}": entry for entry in entries})
            assert found.keys() == {f"{ISTIO} plain", f"{ours} reviews"}, found
            seen = {c["observedGeneration"] for entry in entries for c in entry["conditions"]}
            assert seen == {document["metadata"]["generation"]}, found
            return True

        await eventually(is_told_by_both, what="both tell of the route", within=30, interval=0.5)
        return found

    for backend, expected in (("reviews-v2", "True"), ("nowhere", "False"), ("reviews", "True")):
        told = await apply({"/new": backend, "/": "reviews"})
        assert condition({"status": told[f"{ours} reviews"]}, "ResolvedRefs")[0] == expected
        assert condition({"status": told[f"{ISTIO} plain"]}, "Accepted")[0] == "True"


class Traffic:
    """Requests one after the other, each on a connection of its own; `identity` is the client's, and may change."""

    def __init__(self, waypoint: Waypoint, identity: Leaf) -> None:
        self._waypoint, self.identity = waypoint, identity
        self.done = 0
        self.failed: list[str] = []
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        while True:
            try:
                answer = await self._waypoint.request("/", self.identity)
                if answer.status != 200:
                    self.failed.append(f"{answer.status} {answer.body!r}")
            except Exception as error:  # noqa: BLE001 - whatever it is, the request failed
                self.failed.append(repr(error))
            async with self._changed:
                self.done += 1
                self._changed.notify_all()

    async def more(self, number: int = 20) -> None:
        """Wait for so many requests, none of which may fail."""
        goal = self.done + number
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: self.done >= goal)
        assert self.failed == []


@contextlib.asynccontextmanager
async def running(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:

        async def run() -> None:
            await work()

        task = tasks.create_task(run())
        try:
            yield
        finally:
            task.cancel()


async def own_root(mesh: Mesh) -> CertificateAuthority:
    """Return the authority that istiod made for itself."""
    data = (await mesh.get(NAMESPACE, "secret", "istio-ca-secret"))["data"]
    pem, key = (base64.b64decode(data[name]) for name in ("ca-cert.pem", "ca-key.pem"))
    private = load_pem_private_key(key, None)
    assert isinstance(private, PrivateKey)
    return CertificateAuthority(x509.load_pem_x509_certificate(pem), private, pem)


async def accepts(waypoint: Waypoint, identity: Leaf) -> bool:
    """Whether the waypoint takes a client with this certificate, and shows one that the client trusts."""
    try:
        return (await waypoint.request("/", identity)).status == 200
    except OSError:
        return False


class Edge:
    """An ingress Gateway in the same namespace, in front of the same Service."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.target: Target = ("", 0)

    async def deploy(self) -> None:
        """Make it, with its route, and wait until it serves."""
        listener = {"name": "http", "port": 80, "protocol": "HTTP"}
        await self.mesh.apply(gateway(SPACE, "edge", self.mesh.controller.class_(), listener))
        found = await self.mesh.programmed(SPACE, "edge")
        self.target = self.mesh.cluster.reach(found["status"]["addresses"][0]["value"], 80)
        await self.send_to("reviews")

    async def send_to(self, service: str) -> None:
        """Route all requests to a Service, and wait until a pod of it answers one."""
        await self.mesh.apply(route(SPACE, "edge", {"name": "edge"}, {"/": service}))

        async def is_answered() -> bool:
            answer = await request(self.target, "/", within=10.0)
            assert answer.status == 200, answer
            return lines_of(answer.body.decode(), "Hostname")[0].startswith(f"{service}-")

        await eventually(is_answered, what=f"{service} answers at the edge", within=30, interval=0.2)

    async def signed_by(self, root: CertificateAuthority) -> bool:
        """Whether the certificate with which it dials is of this root, and no other root is trusted."""
        dump = await self.mesh.ask_proxy(SPACE, "edge", "/config_dump?resource=dynamic_active_secrets")
        texts = {
            entry["name"]: base64.b64decode(source["inline_bytes"])
            for entry in dump["configs"]
            for kind, field in (("tls_certificate", "certificate_chain"), ("validation_context", "trusted_ca"))
            if (source := entry["secret"].get(kind, {}).get(field)) is not None
        }
        (own, *_between) = x509.load_pem_x509_certificates(texts["default"])
        with contextlib.suppress(InvalidSignature, ValueError):
            own.verify_directly_issued_by(root.certificate)
            return x509.load_pem_x509_certificates(texts["ROOTCA"]) == [root.certificate]
        return False


async def test_no_request_fails_while_the_mesh_gets_another_root(waypoint: Waypoint) -> None:
    """Neither at the waypoint nor at an ingress Gateway, which reaches the same pods by HBONE."""
    mesh = waypoint.mesh
    edge = Edge(mesh)
    await edge.deploy()
    istiod, friend = mesh.istiod, f"spiffe://cluster.local/ns/{SPACE}/sa/friend"
    old, new = await own_root(mesh), CertificateAuthority.create("the mesh's second root")
    both = old.root + new.root
    of_new = new.issue(uris=[friend])
    await mesh.apply(reviews_route({"/": "reviews"}))
    await waypoint.answer("/", await mesh.identity(SPACE, "friend"), pod="reviews-")
    assert not await accepts(waypoint, Leaf(of_new.chain, of_new.key, both))
    of_old = await mesh.identity(SPACE, "friend")
    former = Leaf(of_old.chain, of_old.key, both)
    traffic = Traffic(waypoint, of_old)
    try:
        async with running(traffic.run), Load(edge.target, clients=1, pause=0.02, reuse=False) as load:
            await traffic.more()
            # The second root is trusted, and nothing is signed by it.
            await asyncio.to_thread(istiod.sign_with, old, new)
            trusted = Leaf(of_new.chain, of_new.key, both)
            await eventually(lambda: accepts(waypoint, trusted), what="both roots are trusted", within=60)
            traffic.identity = await mesh.identity(SPACE, "friend")
            assert traffic.identity.root.strip() == both.strip()
            await traffic.more()
            # It signs: for the waypoint, for the client, and for another destination.
            await asyncio.to_thread(istiod.sign_with, new, old)
            await eventually(lambda: accepts(waypoint, of_new), what="the waypoint has a new certificate", within=60)
            traffic.identity = await mesh.identity(SPACE, "friend")
            await mesh.echo(SPACE, "reviews-late")
            await mesh.apply(reviews_route({"/": "reviews-late"}))
            await waypoint.answer("/", traffic.identity, pod="reviews-late-")
            await edge.send_to("reviews-late")
            await traffic.more()
            # The first one is gone.
            assert await accepts(waypoint, former)
            await asyncio.to_thread(istiod.sign_with, new)
            traffic.identity = await mesh.identity(SPACE, "friend")

            async def is_refused() -> bool:
                return not await accepts(waypoint, former)

            await eventually(is_refused, what="the first root is trusted no more", within=60)
            await eventually(lambda: edge.signed_by(new), what="the ingress Gateway has the second only", within=60)
            await traffic.more()
            await load.at_least(50)
    finally:
        await asyncio.to_thread(istiod.sign_with_its_own)
    assert traffic.failed == []
    assert traffic.done >= 80
    assert (load.report.failed, load.report.samples) == (0, [])
