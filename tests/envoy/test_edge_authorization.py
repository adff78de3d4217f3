"""AuthorizationPolicies of an ingress Gateway: what real Envoys let in."""

from __future__ import annotations

import asyncio

import pytest

from tests.envoy.gateway import Document, gateway, listener, path, resource, route, serve, service, site, to
from tests.rig.backends import Backends
from tests.rig.clients import tcp_exchange

PORT = 9000


def policy(spec: str, name: str = "policy") -> Document:
    refs = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]"
    document = resource("AuthorizationPolicy", name, f"{{{refs}, {spec}}}")
    return {**document, "apiVersion": "security.istio.io/v1"}


async def test_what_no_policy_allows_is_denied(loopback: str, backends: Backends) -> None:
    allow = policy("rules: [{to: [{operation: {methods: [GET], paths: ['/public*']}}]}]")
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "other.test"}}
    rules = [to("a"), {"matches": [path("Exact", "/moved")], "filters": [redirect]}]
    async with site(loopback, backends, gateway(), route(rules), allow) as served:
        assert await served.pods(1, "/public") == ["a"]
        assert await served.pods(1, "/private") == ["403"]
        assert await served.pods(1, "/moved") == ["403"]
        assert (await served.request("POST", "/public")).status == 403


async def test_what_a_policy_denies_is_denied_and_the_rest_is_served(loopback: str, backends: Backends) -> None:
    deny = policy("action: DENY, rules: [{to: [{operation: {hosts: [blocked.test]}}]}]")
    async with site(loopback, backends, gateway(), route([to("a")]), deny) as served:
        assert await served.pods(1) == ["a"]
        for host in ("blocked.test", "BLOCKED.test", "blocked.test:80"):
            assert await served.pods(1, host=host) == ["403"], host


@pytest.mark.parametrize(
    "spec",
    [
        "rules: [{from: [{source: {principals: ['*']}}]}]",
        "action: DENY, rules: [{from: [{source: {namespaces: [x]}}]}]",
        "rules: [{when: [{key: source.ip, values: [127.0.0.1]}]}]",
        "rules: [{to: [{operation: {path: [/]}}]}]",
    ],
)
async def test_what_cannot_be_asked_there_or_not_be_read_closes_the_gateway(
    loopback: str, backends: Backends, spec: str
) -> None:
    async with site(loopback, backends, gateway(), route([to("a")]), policy(spec)) as served:
        assert await served.pods(2) == ["403"] * 2


async def test_connections_are_let_in_by_port_alone(loopback: str, backends: Backends) -> None:
    pod = await backends.tcp("a")
    tcp = [{"backendRefs": [{"name": "a", "port": 80}]}]
    objects = [
        gateway(*(listener(f"tcp-{port}", port=port, protocol="TCP") for port in (PORT, PORT + 1))),
        route(tcp, kind="TCPRoute", version="v1alpha2"),
        service("a", pod.address),
        policy(f"rules: [{{to: [{{operation: {{ports: ['{PORT}']}}}}]}}]"),
    ]
    async with serve(loopback, *objects) as served:
        assert await tcp_exchange(served.target(PORT), b"x")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await tcp_exchange(served.target(PORT + 1), b"x")
