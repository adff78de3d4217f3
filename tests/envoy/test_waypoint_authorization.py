"""Policies at a waypoint on real Envoy: what a refused client learns, and what no spelling gets past."""

from __future__ import annotations

import pytest

from tests.envoy.waypoint_world import DB, ECHO, World, allow, deny, greeting
from tests.rig.mesh import policy

# --- Authorization of HTTP -----------------------------------------------------------------------------------------


async def test_a_refused_request_gets_403_and_reaches_nobody(world: World) -> None:
    world.mesh.add(policy("p", allow("{from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]}")))
    async with world.mesh.run():
        assert await world.get() == 200
        async with world.mesh.client("other") as client:
            response = await client.request(ECHO)
        assert (response.status, response.body) == (403, b"RBAC: access denied")
    assert world.echo.count() == 1


async def test_namespaces_methods_paths_and_hosts_decide(world: World) -> None:
    world.mesh.add(
        policy(
            "p",
            allow(
                "{from: [{source: {namespaces: [web]}}], to: [{operation: {methods: [GET], paths: [/open*],"
                " notPaths: [/open/secret], hosts: [echo.example]}}]},"
                " {from: [{source: {principals: ['*/sa/admin'], notNamespaces: [web]}}]}"
            ),
        ),
    )
    good = {"namespace": "web", "path": "/open/x", "host": "Echo.EXAMPLE"}
    async with world.mesh.run():
        assert await world.get(**good) == 200  # type: ignore[arg-type]
        for wrong in (
            {"namespace": "web2"},
            {"path": "/shut"},
            {"path": "/open/secret?x=/open"},
            {"host": "other.example"},
            {"method": "PUT"},
        ):
            assert await world.get(**{**good, **wrong}) == 403, wrong  # type: ignore[arg-type]
        assert await world.get("admin", "/shut") == 200
        assert await world.get("admin", "/shut", namespace="web") == 403


@pytest.mark.parametrize(("rules", "status"), [("rules: []", 403), ("rules: [{}]", 200)])
async def test_an_allow_policy_with_and_without_rules(world: World, rules: str, status: int) -> None:
    world.mesh.add(policy("p", rules))
    async with world.mesh.run():
        assert await world.get() == status


async def test_deny_beats_allow(world: World) -> None:
    world.mesh.add(policy("a", allow("{}")), policy("d", deny("{to: [{operation: {methods: [GET]}}]}")))
    async with world.mesh.run():
        assert await world.get() == 403
        assert await world.get(method="PUT") == 200


async def test_an_unsupported_policy_denies_its_target_and_no_other(world: World) -> None:
    world.mesh.add(policy("p", allow("{when: [{key: source.ip, values: [127.0.0.1]}]}")))
    async with world.mesh.run():
        assert await world.get() == 403
        assert await world.connect(DB) == 200


NORMALIZED = [
    "/admin",
    "/admin?x=1",
    "//admin",
    "/./admin",
    "/x/../admin",
    "/%2e/admin",
    "/x/%2e%2e/admin",
    "/%61dmin",
    "/x%2F..%2Fadmin",
    "/%2Fadmin",
    "/x%5C..%5Cadmin",
    "/admin#x",
    "/secret/a",
    "/secret%2Fa",
    "/x/..//secret/./a",
]


async def test_no_spelling_of_a_denied_path_gets_through(world: World) -> None:
    world.mesh.add(policy("p", deny("{to: [{operation: {paths: [/admin, /secret/*]}}]}")))
    async with world.mesh.run(), world.mesh.client() as client:
        for http in ("1.1", "2"):
            for path in NORMALIZED:
                status = (await client.request(ECHO, path, http=http)).status  # type: ignore[arg-type]
                assert status in {307, 400, 403}, path
        assert (await client.request(ECHO, "/administrator")).status == 200
    assert world.echo.count() == 1


HOSTS = [
    "bad.example",
    "BAD.Example",
    "bad.example:80",
    "bad.example.",
    "bad.example.:80",
    "bad.example:",
    "x.BAD.org:1",
]


async def test_no_spelling_of_a_denied_host_gets_through(world: World) -> None:
    world.mesh.add(policy("p", deny("{to: [{operation: {hosts: [bad.example, '*.bad.org']}}]}")))
    async with world.mesh.run(), world.mesh.client() as client:
        for host in HOSTS:
            assert (await client.request(ECHO, host=host)).status == 403, host
            assert (await client.request(ECHO, host=host, http="2")).status == 403, host
        assert (await client.request(ECHO, host="good.example")).status == 200


async def test_bytes_that_are_no_utf_8_do_not_slip_past_a_negative_condition(world: World) -> None:
    world.mesh.add(policy("p", allow("{to: [{operation: {notPaths: ['*/admin'], notHosts: ['*.bad.org']}}]}")))
    async with world.mesh.run(), world.mesh.client() as client:
        assert (await client.request(ECHO, "/ok")).status == 200
        assert (await client.request(ECHO, "/%ff/admin")).status == 403
        tunnel = await client.connect(ECHO)
        await tunnel.write(b"GET /ok HTTP/1.1\r\nhost: \xff.bad.org\r\n\r\n")
        assert (await tunnel.read()).split()[1] in {b"400", b"403"}
    assert world.echo.count() == 1


# --- Authorization of connections ----------------------------------------------------------------------------------


async def test_a_refused_connection_gets_nothing_of_what_the_server_says_first(world: World) -> None:
    spec = deny("{from: [{source: {principals: [cluster.local/ns/default/sa/evil]}}]}")
    world.mesh.add(policy("p", spec, target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB, "evil") == 403
        assert world.node.connects == []
        assert world.db.received == []
        async with world.mesh.client() as client:
            assert await greeting(await client.connect(DB)) == b"hello\n"


async def test_connections_are_allowed_by_peer_and_port(world: World) -> None:
    rule = "{from: [{source: {namespaces: [web]}}], to: [{operation: {ports: ['3306']}}]}"
    world.mesh.add(policy("p", allow(rule), target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB, namespace="web") == 200
        assert await world.connect(DB) == 403


async def test_http_conditions_close_a_tcp_port(world: World) -> None:
    world.mesh.add(policy("p", allow("{to: [{operation: {methods: [GET]}}]}"), target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB) == 403


async def test_http_conditions_do_not_narrow_a_denial_on_tcp(world: World) -> None:
    rule = "{from: [{source: {namespaces: [evil]}}], to: [{operation: {paths: [/admin]}}]}"
    world.mesh.add(policy("p", deny(rule), target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB, namespace="evil") == 403
        assert await world.connect(DB) == 200


async def test_the_waypoints_policies_guard_workloads_by_port(world: World) -> None:
    world.mesh.add(
        policy("p", deny("{to: [{operation: {ports: ['3306']}}]}"), target="Gateway waypoint"),
        policy("q", deny("{from: [{source: {namespaces: [evil]}}]}"), target="Gateway waypoint"),
    )
    async with world.mesh.run():
        assert await world.connect(f"{world.address}:8080") == 200
        assert await world.connect(f"{world.address}:3306") == 403
        assert await world.connect(f"{world.address}:33060") == 200
        assert await world.connect(f"{world.address}:8080", namespace="evil") == 403
        assert await world.connect(DB) == 403
        assert await world.get(namespace="evil") == 403
        assert await world.get() == 200


async def test_a_services_policy_does_not_reach_its_workloads(world: World) -> None:
    world.mesh.add(policy("p", "rules: []", target="Service db"))
    async with world.mesh.run():
        assert await world.connect(DB) == 403
        assert await world.connect(f"{world.address}:3306") == 200
