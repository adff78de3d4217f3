"""The controller at a real API server, with Envoys that start from what it deploys and get the rest over xDS."""

from __future__ import annotations

import asyncio
import functools
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode, ssl_channel_credentials
from grpc.aio import AioRpcError, secure_channel

from meshgw.cluster.scope import EVERYWHERE
from tests.cluster.apiserver import ApiServer
from tests.cluster.controllers import GATEWAY_API, condition, run_controller
from tests.cluster.site import Site, answers, backend, gateway, route
from tests.rig.addresses import free_ports, own_address
from tests.rig.backends import Backends
from tests.rig.certs import authority
from tests.rig.load import Load
from tests.rig.waiting import eventually
from tests.unit.xds.peers import Proxy, names
from tests.unit.xds.playbook import LDS, RDS, subscribe

pytestmark = pytest.mark.timeout(300)

_SERIAL = itertools.count(1)


@pytest.fixture
async def site(apiserver: ApiServer, tmp_path: Path) -> AsyncIterator[Site]:
    async with run_controller(apiserver, tmp_path, f"site-{next(_SERIAL)}", "--no-mesh") as controller:
        yield Site(apiserver, controller)


async def test_objects_become_traffic_through_envoys_that_prove_who_they_are(site: Site, backends: Backends) -> None:
    echo = await backends.echo("echo", host=own_address())
    ports = dict(zip(("one", "two"), free_ports(2), strict=True))
    gateways = [gateway(site.controller, name, port) for name, port in ports.items()]
    await site.apply(*gateways, *backend(site.controller, echo), route(site.controller, "both", ["one", "two"]))
    for name in ports:
        await eventually(lambda name=name: site.has_objects(name), what=f"the objects of {name}", within=15)
    assert (await site.programmed("one"))[:2] == ("False", "AddressNotAssigned")
    await site.run("one", "192.0.2.7")
    await eventually(lambda: _is(site.programmed("one"), "True"), what="one is programmed", within=15)
    one = await site.get("gateway", "one")
    assert one["status"]["addresses"] == [{"type": "IPAddress", "value": "192.0.2.7"}]
    assert one["status"]["listeners"][0]["attachedRoutes"] == 1
    parents = (await site.get("httproute", "both"))["status"]["parents"]
    assert {parent["controllerName"] for parent in parents} == {site.controller.controller_name}
    assert [condition({"status": parent}, "Accepted")[0] for parent in parents] == ["True", "True"]

    async with site.envoy("one") as log:
        await eventually(lambda: _is(answers(ports["one"]), 200), what=f"one serves: {log}", within=20)
        await site.apply(route(site.controller, "both", ["one", "two"], "/only"))
        await eventually(lambda: _is(answers(ports["one"]), 404), what="the edit is live", within=5)
        assert await answers(ports["one"], "/only") == 200
        assert "gateway/one" not in log.read_text()
        async with site.envoy("two"):
            await eventually(lambda: _is(answers(ports["two"], "/only"), 200), what="two serves", within=20)

        # A class is made anew to change what is fixed in it. Meanwhile its Gateways serve, and take changes.
        class_ = site.controller.class_()
        await asyncio.to_thread(site.access.kubectl, "delete", "gatewayclass", class_)
        accepted = functools.partial(_accepted_because, site, "one")
        await eventually(lambda: _is(accepted(), "Invalid"), what="the Gateway says that it has no class", within=15)
        await site.apply(route(site.controller, "both", ["one", "two"], "/without"))
        await eventually(lambda: _is(answers(ports["one"], "/without"), 200), what="an edit is live", within=5)
        metadata = {"name": class_, "labels": {"meshgw.dev/role": "ingress"}}
        again = {"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": metadata}
        await site.apply({**again, "spec": {"controllerName": site.controller.controller_name}})
        await eventually(lambda: _is(accepted(), "Accepted"), what="its class is back", within=15)
        assert await answers(ports["one"], "/without") == 200

        text = (await site.controller.ask("/metrics", site.controller.metrics))[1]
        assert "meshgw_xds_refused_streams_total{" not in text
        assert 'meshgw_token_reviews_total{outcome="accepted"}' in text
        assert "meshgw_leader 1.0" in text


async def test_a_killed_controller_costs_no_request_and_the_next_one_goes_on(site: Site, backends: Backends) -> None:
    echo = await backends.echo("echo", host=own_address())
    (port,) = free_ports(1)
    await site.apply(gateway(site.controller, "kept", port), *backend(site.controller, echo))
    await site.apply(route(site.controller, "kept", ["kept"]))
    await eventually(lambda: site.has_objects("kept"), what="the objects", within=15)
    async with site.envoy("kept") as log:
        await eventually(lambda: _is(answers(port), 200), what="the proxy serves", within=20)
        async with Load(("127.0.0.1", port), clients=2, pause=0.01) as load:
            await site.controller.end(signal.SIGKILL)
            await site.apply(route(site.controller, "more", ["kept"], "/more"))
            await site.controller.start("--no-mesh")
            await site.controller.ready()
            await site.apply(route(site.controller, "gone", ["kept"], "/gone"))
            parent = functools.partial(site.get, "httproute", "gone")
            await eventually(lambda: _accepted(parent()), what="the next holder of the lease writes", within=40)
            before = load.report.total
            await eventually(lambda: load.report.total > before + 100)
        assert (load.report.failed, load.report.samples) == (0, []), log.read_text()


async def test_an_account_by_the_name_of_a_gateways_gets_no_configuration(site: Site) -> None:
    """Whoever may make ServiceAccounts and pods, but not read a Gateway's Secrets, does not get them by a name."""
    space, objects = site.controller.name, f"coveted-{site.controller.class_()}"
    other = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": objects, "namespace": space}}
    await site.apply(other, gateway(site.controller, "coveted", 8080))

    async def taken() -> bool:
        return objects in (await site.programmed("coveted"))[2]

    await eventually(taken, what="the Gateway says that the name is taken", within=15)
    roots = (await site.get("configmap", objects))["data"]["ca.crt"].encode()

    @asynccontextmanager
    async def connected() -> AsyncIterator[Proxy]:
        """A pod of the account, as a client of the controller that has asked for listeners."""
        metadata = [("authorization", f"Bearer {await site.make_pod('coveted')}")]
        async with secure_channel(f"127.0.0.1:{site.controller.xds}", ssl_channel_credentials(roots)) as channel:
            proxy = Proxy(channel, metadata=metadata)
            try:
                await proxy.send(subscribe(LDS, node_id=f"{space}/coveted/coveted-pod"))
                yield proxy
            finally:
                proxy.call.cancel()

    with pytest.raises(AioRpcError) as refused:
        async with connected() as proxy:
            await proxy.receive()
    assert refused.value.code() is StatusCode.PERMISSION_DENIED
    assert "the ServiceAccount of no Gateway" in str(refused.value.details())

    remove = ("-n", space, "delete", "--now", f"serviceaccount/{objects}", "pod/coveted-pod")
    await asyncio.to_thread(site.access.kubectl, *remove)

    await eventually(lambda: site.has_objects("coveted"), what="it has an account of its own", within=15)
    async with connected() as proxy:
        listeners = await proxy.receive()
        assert names(listeners) == ["tcp/8080"]
        await proxy.answer(listeners)
        await proxy.answer(await proxy.ask(subscribe(RDS, "http/8080")))

        # What a proxy refuses is told to who changed it.
        await site.apply(route(site.controller, "blamed", ["coveted"]))
        await proxy.answer(await proxy.receive(), error="no such thing")

        async def told() -> set[str]:
            found = (await asyncio.to_thread(site.access.get, "-n", space, "events.events.k8s.io"))["items"]
            refusals = (event for event in found if event["reason"] == "ConfigurationRefused")
            return {f"{event['regarding']['kind']} {event['regarding']['uid'] != ''}" for event in refusals}

        await eventually(lambda: _is(told(), {"Gateway True", "HTTPRoute True"}), what="Events", within=15)


async def test_secrets_are_read_where_gateways_of_ours_are_and_nowhere_else(site: Site, apiserver: ApiServer) -> None:
    space, leaf = site.controller.name, authority().issue("a.example.com")

    def watched() -> set[str]:
        asked = (event for event in apiserver.audit() if event.get("userAgent", "").startswith("meshgw/"))
        about = (event["objectRef"] for event in asked if event["verb"] in {"list", "watch"})
        return {ref.get("namespace", "") for ref in about if ref["resource"] == "secrets"}

    before = await asyncio.to_thread(watched)
    secured = gateway(site.controller, "secured", 8443)
    secured["spec"]["listeners"] = [
        {
            "name": "https",
            "port": 8443,
            "protocol": "HTTPS",
            "tls": {"certificateRefs": [{"name": "certificate"}]},
        }
    ]
    await site.apply(leaf.secret("certificate", space))
    await site.apply(secured)

    async def resolved() -> tuple[str, str]:
        listeners = (await site.get("gateway", "secured")).get("status", {}).get("listeners", ())
        return condition({"status": listeners[0] if listeners else {}}, "ResolvedRefs")[:2]

    def writes() -> int:
        refs = (event["objectRef"] for event in apiserver.audit() if event["verb"] == "patch")
        return sum(1 for ref in refs if (ref["name"], ref.get("subresource")) == ("secured", "status"))

    await eventually(lambda: _is(resolved(), "True"), what="the Secret is seen", within=15)
    assert await asyncio.to_thread(writes) == 1  # nobody was told that it is missing
    await asyncio.to_thread(site.access.kubectl, "-n", space, "delete", "secret", "certificate")
    await eventually(lambda: _is(resolved(), "False"), what="a missing Secret is told", within=15)
    assert await asyncio.to_thread(watched) - before == {space}
    assert EVERYWHERE not in before


async def test_an_istiod_that_is_away_is_a_condition_and_costs_the_rest_nothing(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    roots = authority("mesh").root.decode()
    bundle = {"name": "istio-ca-root-cert", "namespace": "alone"}
    flags = ("--istiod-address", "127.0.0.1:1", "--root-namespace", "alone")
    async with run_controller(apiserver, tmp_path, "alone", *flags) as controller:
        site = Site(apiserver, controller)
        published = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": bundle, "data": {"root-cert.pem": roots}}
        way = gateway(controller, "way", 15008)
        way["spec"] |= {
            "gatewayClassName": controller.class_("meshgw-waypoint"),
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        }
        await site.apply(published, way, gateway(controller, "edge", 8080))

        async def conditions(name: str) -> tuple[str, str]:
            found = await site.get("gateway", name)
            return condition(found, "meshgw.dev/MeshIdentity")[1], condition(found, "Programmed")[1]

        for name, programmed in (("way", "Pending"), ("edge", "AddressNotAssigned")):
            expected = ("Unavailable", programmed)
            check = functools.partial(conditions, name)
            await eventually(lambda check=check, expected=expected: _same(check(), expected), within=30)
        found = await site.get("gateway", "way")
        assert [address["type"] for address in found["status"]["addresses"]] == ["Hostname", "IPAddress"]
        text = (await controller.ask("/metrics", controller.metrics))[1]
        assert 'certificate_failures_total{code="UNAVAILABLE"' in text


async def _accepted_because(site: Site, name: str) -> str:
    return condition(await site.get("gateway", name), "Accepted")[1]


async def _same(found: Any, wanted: Any) -> bool:
    outcome = await found
    assert outcome == wanted
    return True


async def _accepted(found: Any) -> bool:
    parents = (await found).get("status", {}).get("parents", ())
    return bool(parents) and condition({"status": parents[0]}, "Accepted")[0] == "True"


async def _is(found: Any, wanted: Any) -> bool:
    outcome = await found
    return bool(outcome == wanted or (isinstance(outcome, tuple) and outcome[0] == wanted))
