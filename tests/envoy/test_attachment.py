"""Who may attach where: namespaces, section names, ports, ListenerSets, and conflicts of listeners."""

from __future__ import annotations

from typing import Any

import httpcore
import pytest

from tests.envoy.gateway import GROUP, Document, gateway, listener, namespace, resource, route, serve, service, site, to
from tests.rig.addresses import free_port
from tests.rig.backends import Backends
from tests.rig.clients import request


def allowing(**namespaces: Any) -> Document:
    return {"allowedRoutes": {"namespaces": namespaces}}


@pytest.mark.parametrize(
    ("allowed", "status"),
    [
        ({"from": "Same"}, 404),
        ({"from": "All"}, 200),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "blue"}}}, 200),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "red"}}}, 404),
        ({"from": "Selector", "selector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}, 200),
    ],
)
async def test_a_listener_says_which_namespaces_may_attach(
    loopback: str, backends: Backends, allowed: Document, status: int
) -> None:
    pod = await backends.echo("pod")
    objects = [
        gateway(listener(**allowing(**allowed))),
        namespace("other", team="blue"),
        route([to("a")], namespace="other", parents=[{"name": "gw", "namespace": "default"}]),
        service("a", pod.address, namespace="other"),
    ]
    async with serve(loopback, *objects) as served:
        assert (await served.get()).status == status


@pytest.mark.parametrize(
    ("parent", "ports"),
    [
        ({"name": "gw"}, {80, 8080}),
        ({"name": "gw", "sectionName": "second"}, {8080}),
        ({"name": "gw", "port": 80}, {80}),
        ({"name": "gw", "sectionName": "second", "port": 80}, set()),
    ],
)
async def test_a_route_attaches_to_the_listeners_it_names(
    loopback: str, backends: Backends, parent: Document, ports: set[int]
) -> None:
    both = gateway(listener(), listener("second", port=8080))
    async with site(loopback, backends, both, route([to("a")], parents=[parent]), names="a") as served:
        assert {port for port in (80, 8080) if (await served.get(port=port)).status == 200} == ports


async def test_one_route_may_have_several_parents(loopback: str, backends: Backends) -> None:
    both = gateway(listener(), listener("second", port=8080), listener("third", port=8081))
    parents = [{"name": "gw", "sectionName": name} for name in ("http", "third")]
    async with site(loopback, backends, both, route([to("a")], parents=parents), names="a") as served:
        seen = {port: (await served.get(port=port)).status for port in (80, 8080, 8081)}
    assert seen == {80: 200, 8080: 404, 8081: 200}


async def test_a_listener_may_refuse_kinds(loopback: str, backends: Backends) -> None:
    grpc_only = listener(allowedRoutes={"kinds": [{"kind": "GRPCRoute"}]})
    async with site(loopback, backends, gateway(grpc_only), route([to("a")]), names="a") as served:
        assert (await served.get()).status == 404
        assert [finding.code for finding in served.findings("MG1")] == ["MG1002"]


def listener_set(name: str, *listeners: Document, space: str = "default", **meta: str) -> Document:
    spec = {"parentRef": {"name": "gw", "namespace": "default"}, "listeners": list(listeners)}
    return resource("ListenerSet", name, spec, namespace=space, **meta)


def from_set(name: str, **section: str) -> list[Document]:
    return [{"group": GROUP, "kind": "ListenerSet", "name": name, **section}]


ADMITTING = gateway(allowedListeners={"namespaces": {"from": "Same"}})


async def test_a_listener_set_serves_beside_its_gateway(loopback: str, backends: Backends) -> None:
    extra = listener_set("extra", listener("more", port=8080))
    routes = [route([to("a")], name="own"), route([to("b")], name="extra", parents=from_set("extra"))]
    async with site(loopback, backends, ADMITTING, extra, *routes) as served:
        assert await served.pods(1) == ["a"]
        assert await served.pods(1, port=8080) == ["b"]


@pytest.mark.parametrize("admits", [{}, {"allowedListeners": {"namespaces": {"from": "None"}}}])
async def test_a_gateway_admits_no_listener_sets_by_default(
    loopback: str, backends: Backends, admits: Document
) -> None:
    extra = listener_set("extra", listener("more", port=8080))
    routes = [route([to("a")], name="own"), route([to("b")], name="extra", parents=from_set("extra"))]
    async with site(loopback, backends, gateway(**admits), extra, *routes) as served:
        assert await served.pods(1) == ["a"]
        with pytest.raises(httpcore.ConnectError):
            await served.get(port=8080)


async def test_listener_sets_share_a_port_by_host_name_and_the_gateway_comes_first(
    loopback: str, backends: Backends
) -> None:
    own = gateway(listener(hostname="own.test"), allowedListeners={"namespaces": {"from": "Same"}})
    sets = [
        listener_set("first", listener("x", hostname="first.test"), listener("clash", hostname="own.test")),
        listener_set("second", listener("x", hostname="second.test")),
    ]
    routes = [
        route([to("a")], name="own", parents=[{"name": "gw"}]),
        route([to("b")], name="first", parents=from_set("first")),
        route([to("c")], name="second", parents=from_set("second", sectionName="x")),
    ]
    async with site(loopback, backends, own, *sets, *routes, names="abc") as served:
        wanted = {"own.test": "a", "first.test": "b", "second.test": "c", "other.test": "404"}
        assert {host: (await served.pods(1, host=host))[0] for host in wanted} == wanted


async def test_listeners_in_conflict_leave_other_ports_alone(loopback: str, backends: Backends) -> None:
    conflicting = gateway(listener(), listener("one", port=8080), listener("two", port=8080, protocol="TCP"))
    async with site(loopback, backends, conflicting, route([to("a")]), names="a") as served:
        assert await served.pods(1) == ["a"]
        with pytest.raises(httpcore.ConnectError):
            await served.get(port=8080)
        assert {finding.code for finding in served.findings("MG1004")} == {"MG1004"}


async def test_an_unknown_protocol_costs_its_listener_alone(loopback: str, backends: Backends) -> None:
    odd = gateway(listener(), listener("odd", port=8080, protocol="example.test/quic"))
    async with site(loopback, backends, odd, route([to("a")]), names="a") as served:
        assert await served.pods(1) == ["a"]
        with pytest.raises(httpcore.ConnectError):
            await served.get(port=8080)
        assert [finding.code for finding in served.findings("MG1005")] == ["MG1005"]


async def test_two_gateways_keep_their_routes_apart(loopback: str, backends: Backends) -> None:
    other = gateway(name="other")
    routes = [route([to("a")], name="mine"), route([to("b")], name="theirs", parents=[{"name": "other"}])]
    async with site(loopback, backends, gateway(), other, *routes) as served:
        assert await served.pods(3) == ["a"] * 3


async def test_a_listener_of_both_families_is_reached_by_both(backends: Backends) -> None:
    port, pod = free_port(), await backends.echo("a")
    async with serve("::", gateway(listener(port=port)), route([to("a")]), service("a", pod.address)):
        for host in ("127.0.0.1", "::1"):
            assert (await request((host, port), host="site.test")).status == 200
