"""Everything changes at once, under load on every kind of path, and no request notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from meshgw.config import MeshSettings
from meshgw.identity.spiffe import SpiffeId
from meshgw.names import HBONE_PORT
from tests.envoy.application import Instance, application, placed
from tests.envoy.gateway import Document, endpoint_slice, https_listener, listener, route, service, to
from tests.rig.addresses import next_loopback
from tests.rig.backends import Backends, EchoBackend
from tests.rig.certs import CertificateAuthority, Leaf
from tests.rig.clients import HttpClient, tcp
from tests.rig.hbone import HboneClient, HboneServer
from tests.rig.load import Load, Report
from tests.rig.tls import ClientTls, describe
from tests.rig.waiting import eventually

ROUTE_EDITS, ENDPOINT_SWAPS, LISTENERS, SECRET_ROTATIONS, MESH_ROTATIONS = 200, 30, 10, 5, 5
SHOP = "10.96.0.50:80"


@dataclass
class World:
    """An instance with an ingress and a waypoint, and what its parts are reached by."""

    instance: Instance
    ca: CertificateAuthority
    ingress: str
    waypoint: str
    pods: list[EchoBackend]
    listeners: list[Document] = field(default_factory=list)

    def write_gateway(self) -> None:
        rows = [listener(), https_listener(), *self.listeners]
        self.instance.write("gateway", placed(self.ingress, *rows))

    def write_certificate(self) -> Leaf:
        leaf = self.ca.issue("site.test")
        self.instance.write("certificate", leaf.secret("cert"))
        return leaf

    def write_route(self, number: int) -> None:
        edit = {"set": [{"name": "x-edit", "value": str(number)}]}
        rule = to("app", filters=[{"type": "ResponseHeaderModifier", "responseHeaderModifier": edit}])
        self.instance.write("route", route([rule]))

    def write_endpoint(self, number: int) -> EchoBackend:
        pod = self.pods[number % len(self.pods)]
        self.instance.write("endpoints", endpoint_slice("app", "app", pod.address))
        return pod

    async def mesh_leaf(self, account: str) -> Leaf:
        """Return a certificate of the instance's own mesh CA."""
        assert self.instance.app.identities is not None
        source = self.instance.app.identities.rotator._source
        row = await source.fetch(SpiffeId(trust_domain="cluster.local", namespace="default", service_account=account))
        return Leaf(row.chain_pem, row.private_key.reveal(), row.roots_pem)

    def through_mesh(self, leaf: Leaf) -> HboneClient:
        return HboneClient((self.waypoint, HBONE_PORT), ca=leaf.root, identity=leaf)


def mesh_objects(waypoint: str, pod: str) -> list[Document]:
    """A waypoint and a Service behind it whose one Pod speaks HBONE."""
    gateway = placed(
        waypoint, listener("mesh", port=HBONE_PORT, protocol="HBONE"), name="waypoint", gateway_class="meshgw-waypoint"
    )
    shop = service("shop", (pod, 8080))
    shop[0]["spec"]["clusterIP"] = SHOP.partition(":")[0]
    shop[0]["spec"]["ports"][0]["appProtocol"] = "http"
    shop[0]["metadata"]["labels"] = {"istio.io/use-waypoint": "waypoint"}
    workload = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "shop",
            "namespace": "default",
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {"serviceAccountName": "shop", "containers": [{"name": "app", "image": "example.test/app"}]},
        "status": {"phase": "Running", "podIP": pod},
    }
    return [gateway, *shop, workload]


@pytest.fixture
async def world(loopback: str, backends: Backends, ca: CertificateAuthority) -> AsyncIterator[World]:
    waypoint, workload = next_loopback(), next_loopback()
    pods = [await backends.echo(f"pod-{number}") for number in range(3)]
    inner = await backends.echo("shop")
    objects = [*mesh_objects(waypoint, workload), service("app")]
    async with application(loopback, *objects, mesh=MeshSettings(), live=False) as instance:
        world = World(instance, ca, loopback, waypoint, pods)
        world.write_certificate()
        world.write_endpoint(0)
        world.write_gateway()
        world.write_route(0)
        await eventually(lambda: instance.app.identities and len(instance.app.control.gateways()) == 2)
        leaf = await world.mesh_leaf("shop")
        node = HboneServer(leaf, leaf.root, host=workload, port=HBONE_PORT, routes={f"{workload}:8080": inner.address})
        async with node:
            await instance.live()
            yield world


@asynccontextmanager
async def load(world: World) -> AsyncIterator[dict[str, Report]]:
    """Load on kept and new connections, plain, by TLS and through the mesh; yields the reports by name."""
    ingress, tls = world.instance.target(), ClientTls(ca=world.ca.root)
    leaf = await world.mesh_leaf("client")
    async with world.through_mesh(leaf) as tunnel:
        loads = {
            "kept": Load(ingress, clients=2, host="site.test"),
            "new": Load(ingress, clients=1, host="site.test", reuse=False, pause=0.01),
            "kept h2": Load(ingress, clients=1, host="site.test", http="2", pause=0.01),
            "tls": Load(world.instance.target(443), clients=1, host="site.test", tls=tls, reuse=False, pause=0.01),
            "mesh": Load(ingress, clients=1, host="shop", pause=0.01, open_client=lambda: tunnel.http(SHOP)),
        }
        reports = {name: one.report for name, one in loads.items()}
        async with asyncio.TaskGroup() as tasks:
            reports["mesh new"] = fresh = Report()
            stop = asyncio.Event()
            tasks.create_task(greet_anew(world, leaf, fresh, stop), name="mesh, new connections")
            try:
                for one in loads.values():
                    await one.__aenter__()
                yield reports
            finally:
                stop.set()
                await asyncio.gather(*(one.stop() for one in loads.values()))


async def greet_anew(world: World, leaf: Leaf, report: Report, stop: asyncio.Event) -> None:
    """One request after the other through a mesh connection of its own each."""
    while not stop.is_set():
        try:
            async with world.through_mesh(leaf) as tunnel:
                answer = await tunnel.request(SHOP, host="shop")
            if answer.status == 200:
                report.statuses[200] += 1
            else:
                report.errors[f"status {answer.status}"] += 1
        except Exception as error:  # noqa: BLE001 - any failure of the path under test is a counted error
            report.errors[f"{type(error).__name__}: {error}"] += 1


async def edit_routes(world: World) -> None:
    """Edit the route, each time once the edit before is live."""
    async with HttpClient(world.instance.target()) as client:
        for number in range(1, ROUTE_EDITS + 1):
            world.write_route(number)
            world.instance.app.reload()

            async def live(wanted: str = str(number)) -> bool:
                return (await client.get(host="site.test")).header("x-edit") == wanted

            await eventually(live, what=f"edit {number}", interval=0.005)


async def swap_endpoints(world: World) -> None:
    """Move the Service to another Pod, each time once the Pod before has traffic."""
    for number in range(1, ENDPOINT_SWAPS + 1):
        pod = world.write_endpoint(number)
        pod.hits.clear()
        await pod.wait_hits(5)


async def add_listeners(world: World) -> None:
    """Add listener after listener, each time once the one before serves."""
    for number in range(LISTENERS):
        port = 9000 + number
        world.listeners.append(listener(f"more-{number}", port=port))
        world.write_gateway()
        async with HttpClient(world.instance.target(port)) as client:
            await eventually(lambda: answers(client), what=f"listener {port}")


async def answers(client: HttpClient) -> bool:
    try:
        return (await client.get(host="site.test")).status == 200
    except Exception as error:
        raise AssertionError(str(error)) from error


async def rotate_secret(world: World) -> None:
    """Give the HTTPS listener a new certificate, each time once the one before is shown."""
    target = world.instance.target(443)
    for _ in range(SECRET_ROTATIONS):
        leaf = world.write_certificate()

        async def shown(wanted: int = leaf.serial) -> bool:
            async with tcp(target, tls=ClientTls(ca=world.ca.root, sni="site.test")) as (_reader, writer):
                return describe(writer.get_extra_info("ssl_object")).peer_serial == wanted

        await eventually(shown, what="the new certificate")


async def rotate_identity(world: World) -> None:
    """Renew the waypoint's mesh certificate, each time once the one before is shown."""
    leaf = await world.mesh_leaf("client")

    async def serial() -> int | None:
        async with world.through_mesh(leaf) as tunnel:
            assert tunnel.info is not None
            return tunnel.info.peer_serial

    assert world.instance.app.identities is not None
    for _ in range(MESH_ROTATIONS):
        before = await serial()
        world.instance.app.identities.renew()

        async def renewed(old: int | None = before) -> bool:
            return await serial() != old

        await eventually(renewed, what="a new waypoint certificate")


async def test_no_request_fails_while_everything_changes(world: World) -> None:
    pids = {name: world.instance.pid(name) for name in ("gw", "waypoint")}
    async with asyncio.timeout(60), load(world) as reports, asyncio.TaskGroup() as tasks:
        for change in (edit_routes, swap_endpoints, add_listeners, rotate_secret, rotate_identity):
            tasks.create_task(change(world), name=change.__name__)
    assert {name: report.errors for name, report in reports.items() if report.failed} == {}
    assert all(report.total > 50 for report in reports.values()), {n: r.total for n, r in reports.items()}
    assert {name: world.instance.pid(name) for name in pids} == pids
    assert world.instance.findings("MG6") == []
