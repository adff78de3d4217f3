"""A waypoint on real Envoy: what gets through, to whom, and what a change disturbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.envoy.waypoint_world import BEHIND, DB, ECHO, World, connect, deny, greeting
from tests.rig.addresses import next_loopback
from tests.rig.backends import Backends
from tests.rig.clients import HttpClient
from tests.rig.hbone import TunnelRefusedError
from tests.rig.http2 import StreamResetError
from tests.rig.mesh import endpoints, pod, policy, service
from tests.rig.waiting import eventually

# --- The path ------------------------------------------------------------------------------------------------------


async def test_http_goes_through_both_tunnels_as_the_waypoint(world: World) -> None:
    async with world.mesh.run(), world.mesh.client() as client:
        response = await client.request(ECHO, "/hello?x=1")
        assert (response.status, response.echo.path) == (200, "/hello?x=1")
        assert (await client.request(ECHO, http="2")).status == 200
    assert {(item.authority, item.peer) for item in world.node.connects} == {
        (f"{world.address}:8080", "spiffe://cluster.local/ns/default/sa/waypoint")
    }


async def test_a_server_may_speak_first(world: World) -> None:
    async with world.mesh.run(), world.mesh.client() as client:
        tunnel = await client.connect(DB)
        assert await greeting(tunnel) == b"hello\n"
        await tunnel.write(b"ping")
        assert await tunnel.read_exactly(4) == b"ping"


async def test_a_workload_is_reached_at_any_of_its_ports(world: World) -> None:
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(f"{world.address}:8080")).status == 200
        assert await greeting(await client.connect(f"{world.address}:3306")) == b"hello\n"
    assert [item.authority for item in world.node.connects] == [f"{world.address}:8080", f"{world.address}:3306"]


async def test_a_workload_outside_of_the_mesh_is_reached_directly(world: World, backends: Backends) -> None:
    host = next_loopback()
    plain = await backends.echo("plain", host=host)
    world.mesh.add(
        pod("plain", host, hbone=False, labels=BEHIND),
        service("plain", "10.96.0.3", "[{name: http, port: 80}]"),
        endpoints("plain", {"http": plain.port}, host),
    )
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(f"{host}:{plain.port}")).echo.pod == "plain"
        assert (await client.request("10.96.0.3:80")).echo.pod == "plain"
    assert world.node.connects == []


async def test_both_ip_families_are_served(world: World) -> None:
    dual = '"10.96.0.1", clusterIPs: ["10.96.0.1", "FD00:10:0::1"]'
    world.mesh.text = world.mesh.text.replace('clusterIP: "10.96.0.1"', f"clusterIP: {dual}")
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request("[fd00:10::1]:80")).status == 200
        assert (await client.request(ECHO)).status == 200


async def test_routes_of_the_service_decide_where_requests_go(world: World, backends: Backends) -> None:
    second, address = await backends.echo("v2"), next_loopback()
    await world.mesh.node(address, account="app-v2", p8080=second.address)
    world.mesh.add(
        service("echo-v2", "10.96.0.9", "[{name: http, port: 80}]", waypoint="none"),
        endpoints("echo-v2", {"http": 8080}, address),
        pod("app-v2", address, account="app-v2"),
        """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: echo, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: echo}]
  rules:
  - matches: [{path: {value: /v}, headers: [{name: x-version, value: v2}]}]
    backendRefs: [{name: echo-v2, port: 80}]
  - matches: [{path: {value: /v}}]
    backendRefs: [{name: echo, port: 80}]
""",
        policy("p", deny("{from: [{source: {principals: [cluster.local/ns/default/sa/evil]}}]}")),
    )
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(ECHO, "/v")).echo.pod == "v1"
        assert (await client.request(ECHO, "/v", headers={"x-version": "v2"})).echo.pod == "v2"
        assert (await client.request(ECHO, "/other")).status == 404
        async with world.mesh.client("evil") as evil:
            assert (await evil.request(ECHO, "/v")).status == 403
            assert (await evil.request(ECHO, "/other")).status == 403
        assert await connect(client, "10.96.0.9:80") == 404


# --- Identity of the destination -----------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ["other", "app2", "ap"])
async def test_a_destination_that_is_someone_else_is_not_talked_to(
    world: World, backends: Backends, account: str
) -> None:
    address, trap = next_loopback(), await backends.echo("trap")
    await world.mesh.node(address, account=account, p8080=trap.address, p3306=trap.address)
    world.mesh.text = world.mesh.text.replace(world.address, address)
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(ECHO)).status == 503
        for target in (DB, f"{address}:8080"):
            with pytest.raises((TunnelRefusedError, StreamResetError, ConnectionError)):
                await (await client.connect(target)).read_exactly(1)
    assert trap.hits == []


# --- Changes while it runs -----------------------------------------------------------------------------------------


async def test_a_policy_holds_for_connections_that_are_open_already(world: World, tmp_path: Path) -> None:
    async with world.mesh.serve(tmp_path) as (_envoy, push), world.mesh.client() as client, client.http(ECHO) as http:
        assert (await http.request("GET")).status == 200
        first = (await http.request("GET")).echo.connection
        push(policy("p", deny("{to: [{operation: {paths: [/shut]}}]}")))
        await eventually(lambda: _status(http, "/shut", 403), what="403")
        assert (await http.request("GET", "/open")).echo.connection == first
        push(policy("p", deny("{to: [{operation: {paths: [/other]}}]}")))
        await eventually(lambda: _status(http, "/shut", 200), what="200 again")


async def test_a_policy_for_tcp_holds_for_the_next_tunnel_of_an_open_connection(world: World, tmp_path: Path) -> None:
    async with world.mesh.serve(tmp_path) as (_envoy, push), world.mesh.client() as client:
        assert await connect(client, DB) == 200
        push(policy("p", "rules: []", target="Service db"))

        async def refused() -> bool:
            return await connect(client, DB) == 403

        await eventually(refused, what="403")


async def test_a_new_service_disturbs_no_tunnel(world: World, tmp_path: Path) -> None:
    async with world.mesh.serve(tmp_path) as (envoy, push), world.mesh.client() as client:
        tunnel = await client.connect(DB)
        assert await greeting(tunnel) == b"hello\n"
        push(service("new", "10.96.0.7", "[{name: http, port: 80}]"))

        async def served() -> bool:
            return await connect(client, "10.96.0.7:80") == 200

        await eventually(served, what="the new service")
        await tunnel.write(b"still here")
        assert await tunnel.read_exactly(10) == b"still here"
        stats = await envoy.admin.stats("listener_manager")
        assert stats["listener_manager.listener_in_place_updated"] == 1
        assert stats["listener_manager.total_filter_chains_draining"] == 0
        assert stats["listener_manager.total_listeners_draining"] == 0


async def _status(client: HttpClient, path: str, status: int) -> bool:
    return (await client.request("GET", path)).status == status


# --- What is said --------------------------------------------------------------------------------------------------


async def test_the_log_names_the_client(world: World) -> None:
    async with world.mesh.run() as envoy:
        assert await world.get("teller") == 200
        await eventually(
            lambda: '"principal":"spiffe://cluster.local/ns/default/sa/teller"' in envoy.log(), what="the principal"
        )
