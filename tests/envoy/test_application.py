"""A running instance: edits go live, mistakes cost themselves, processes that end come back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack

import httpcore
import pytest

from meshgw.emit.resource import ROUTE_CONFIGURATION, Resource
from meshgw.standalone.lock import InUseError
from tests.envoy.application import Instance, alive, application, placed
from tests.envoy.gateway import (
    Manifest,
    endpoint_slice,
    gateway,
    grant,
    https_listener,
    listener,
    manifest,
    namespace,
    path,
    route,
    service,
    to,
)
from tests.rig.addresses import free_port
from tests.rig.backends import Backends
from tests.rig.certs import CertificateAuthority
from tests.rig.clients import HttpClient, request
from tests.rig.load import Load
from tests.rig.tls import ClientTls
from tests.rig.waiting import eventually

LIVE_WITHIN = 0.2
"""Seconds from the event of an edit to the first request that shows it."""


async def status(instance: Instance, path_: str = "/", *, port: int = 80) -> int | None:
    """The status of one request on a connection of its own, None where nobody listens."""
    try:
        return (await request(instance.target(port), path_, host="site.test")).status
    except httpcore.ConnectError:
        return None


async def pod_of(instance: Instance) -> str | None:
    """Which backend answers."""
    return (await request(instance.target(), host="site.test")).pod


async def shows(instance: Instance, wanted: int | None, path_: str = "/", *, port: int = 80) -> bool:
    """Whether requests have that outcome now."""
    return await status(instance, path_, port=port) == wanted


async def test_an_edited_route_is_live_in_time_and_no_request_fails(loopback: str, backends: Backends) -> None:
    pods = {name: await backends.echo(name) for name in "ab"}
    services = [service(name, pod.address) for name, pod in pods.items()]
    delays = []
    async with application(loopback, placed(loopback), services) as instance:
        instance.write("route", route([to("a")]))
        await eventually(lambda: shows(instance, 200), what="the first route")
        async with Load(instance.target(), clients=2) as load, HttpClient(instance.target()) as client:
            await eventually(lambda: load.report.total)
            clock = asyncio.get_running_loop().time
            for turn in range(12):
                wanted = "ba"[turn % 2]
                instance.write("route", route([to(wanted)]))
                began = clock()
                instance.app.reload()  # the event: polling is not what is measured
                while (await client.get()).pod != wanted:
                    assert clock() - began < 5
                delays.append(clock() - began)
        report = load.report
    assert (report.failed, report.samples) == (0, [])
    assert sorted(delays)[len(delays) // 2] < LIVE_WITHIN / 2
    assert sorted(delays)[-2] < LIVE_WITHIN


async def test_an_edited_file_is_noticed(loopback: str, backends: Backends) -> None:
    pods = {name: await backends.echo(name) for name in "ab"}
    services = [service(name, pod.address) for name, pod in pods.items()]
    async with application(loopback, placed(loopback), services, route([to("a")])) as instance:
        assert await pod_of(instance) == "a"
        instance.write("main", placed(loopback), services, route([to("b")]))

        async def edited() -> bool:
            return await pod_of(instance) == "b"

        await eventually(edited, within=2)


async def test_a_new_file_adds_and_a_deleted_one_takes_away(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    async with application(loopback, placed(loopback), service("a", pod.address)) as instance:
        assert await status(instance) == 404
        instance.write("route", route([to("a")]))
        await eventually(lambda: shows(instance, 200))
        instance.remove("route")
        await eventually(lambda: shows(instance, 404))


async def test_broken_yaml_is_reported_and_everything_serves_on(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    main = [placed(loopback), service("a", pod.address)]
    async with application(loopback, *main, route([to("a")])) as instance:
        async with Load(instance.target()) as load:
            instance.write_text("broken", "kind: HTTPRoute\n  spec: [\n")
            found = await instance.found("MG9101")
            assert "broken.yaml:2" in found.message
            instance.write_text("main", "{")
            await eventually(lambda: len(instance.findings("MG9101")) == 2)
            await load.at_least(50)
            instance.write("main", *main, route([to("a", path("PathPrefix", "/new")), to("a")]))
            instance.remove("broken")
            await instance.gone("MG9101")
        assert load.report.failed == 0, load.report.samples
        assert await status(instance, "/new") == 200


@pytest.mark.parametrize("step", ["truncate", "rename"])
async def test_a_file_replaced_in_two_steps_takes_nothing_away(loopback: str, backends: Backends, step: str) -> None:
    pods = {name: await backends.echo(name) for name in "ab"}
    rest = [placed(loopback), *(service(name, pod.address) for name, pod in pods.items())]
    async with application(loopback, *rest, route([to("a")])) as instance:
        file = instance.path / "main.yaml"
        pid = instance.pid()
        async with Load(instance.target()) as load:
            for name in "baba":
                if step == "truncate":
                    file.write_text("")
                else:
                    file.rename(instance.path / "main.yaml~")
                instance.app.reload()
                file.write_text(manifest(*rest, route([to(name)])))
                await eventually(lambda wanted=name: answered_by(instance, wanted, "/"))
        assert load.report.failed == 0, load.report.samples
        assert instance.pid() == pid


async def test_a_document_of_the_wrong_shape_leaves_its_last_good_version(loopback: str, backends: Backends) -> None:
    pods = {name: await backends.echo(name) for name in "ab"}
    services = [service(name, pod.address) for name, pod in pods.items()]
    async with application(loopback, placed(loopback), services) as instance:
        instance.write("route", route([to("a")]))
        await eventually(lambda: shows(instance, 200))
        wrong = route([to("b")])
        wrong["spec"]["rules"][0]["backendRefs"][0]["weight"] = "many"
        instance.write("route", wrong)
        found = await instance.found("MG9102")
        assert (found.object.kind, found.object.name) == ("HTTPRoute", "route")
        assert "weight" in found.field
        assert await pod_of(instance) == "a"
        instance.write("route", route([to("b")]))
        await instance.gone("MG9102")

        async def mended() -> bool:
            return await pod_of(instance) == "b"

        await eventually(mended)


async def test_a_reference_grant_opens_and_closes_live(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    far = {"backendRefs": [{"name": "a", "namespace": "other", "port": 80}]}
    objects = [placed(loopback), namespace("other"), service("a", pod.address, namespace="other"), route([far])]
    async with application(loopback, *objects) as instance:
        assert await status(instance) == 500
        instance.write("grant", grant("default", "other"))
        await eventually(lambda: shows(instance, 200))
        instance.remove("grant")
        await eventually(lambda: shows(instance, 500))


async def test_listeners_come_and_go_live(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    rest = [service("a", pod.address), route([to("a")])]
    async with application(loopback, placed(loopback), *rest) as instance:
        assert await status(instance, port=8080) is None
        pid = instance.pid()
        async with Load(instance.target()) as load:
            instance.write("main", placed(loopback, listener(), listener("more", port=8080)), *rest)
            await eventually(lambda: shows(instance, 200, port=8080))
            instance.write("main", placed(loopback), *rest)
            await eventually(lambda: shows(instance, None, port=8080))
        assert load.report.failed == 0, load.report.samples
        assert instance.pid() == pid


async def test_moved_endpoints_take_the_traffic_and_no_request_fails(loopback: str, backends: Backends) -> None:
    pods = [await backends.echo(f"pod-{number}") for number in range(2)]
    app = service("a")
    async with application(loopback, placed(loopback), app, route([to("a")])) as instance:
        assert await status(instance) == 503
        instance.write("slice", endpoint_slice("x", "a", pods[0].address))
        await eventually(lambda: shows(instance, 200))
        async with Load(instance.target()) as load:
            for turn in range(1, 7):
                instance.write("slice", endpoint_slice("x", "a", pods[turn % 2].address))
                pods[turn % 2].hits.clear()
                await pods[turn % 2].wait_hits(5)
        assert load.report.failed == 0, load.report.samples


async def test_services_may_be_replaced_in_one_edit_and_no_request_fails(loopback: str, backends: Backends) -> None:
    """The old cluster leaves only once nothing names it, the new one is there before anything does."""
    pods = [await backends.echo(f"pod-{number}") for number in range(2)]

    def objects(turn: int) -> list[Manifest]:
        return [route([to(f"app-{turn}")]), service(f"app-{turn}", pods[turn % 2].address)]

    async with application(loopback, placed(loopback)) as instance:
        instance.write("app", *objects(0))
        await eventually(lambda: shows(instance, 200))
        async with Load(instance.target(), clients=3) as load, Load(instance.target(), http="2", clients=1) as second:
            for turn in range(1, 31):
                pods[turn % 2].hits.clear()
                instance.write("app", *objects(turn))
                instance.app.reload()
                await pods[turn % 2].wait_hits(5)
        assert (load.report.failed, second.report.failed) == (0, 0), load.report.samples + second.report.samples


async def test_a_storm_of_edits_ends_with_the_last_and_no_request_fails(loopback: str, backends: Backends) -> None:
    pods = {name: await backends.echo(name) for name in "ab"}
    services = [service(name, pod.address) for name, pod in pods.items()]
    async with application(loopback, placed(loopback), services) as instance:
        instance.write("route", route([to("a")]))
        await eventually(lambda: shows(instance, 200))
        async with Load(instance.target(), clients=2) as load:
            for number in range(100):
                instance.write("route", route([to("ab"[number % 2], path("PathPrefix", f"/{number}")), to("a")]))
                instance.app.reload()
                if number % 10 == 9:
                    await load.at_least(5)
            await eventually(lambda: answered_by(instance, "b", "/99"))
        assert load.report.failed == 0, load.report.samples
        assert not instance.findings("MG6")


async def answered_by(instance: Instance, pod: str, path_: str) -> bool:
    """Whether that backend answers now."""
    return (await request(instance.target(), path_, host="site.test")).pod == pod


async def test_an_https_listener_beside_another_harms_no_connection(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    pod = await backends.echo("a")
    secret = ca.issue("one.site.test", "two.site.test").secret("cert")
    rest = [service("a", pod.address), route([to("a")]), secret]
    one, two = (https_listener(name, hostname=f"{name}.site.test") for name in ("one", "two"))
    tls = ClientTls(ca=ca.root)
    async with application(loopback, placed(loopback, one), *rest) as instance:
        kept = Load(instance.target(443), host="one.site.test", tls=tls, clients=2)
        fresh = Load(instance.target(443), host="one.site.test", tls=tls, clients=1, reuse=False)
        async with kept, fresh:
            for listeners in ((one, two), (one,), (two, one)):
                instance.write("main", placed(loopback, *listeners), *rest)
                await eventually(lambda wanted=two in listeners: serves(instance, "two.site.test", tls, wanted))
                await kept.at_least(20)
        assert (kept.report.failed, fresh.report.failed) == (0, 0), kept.report.samples + fresh.report.samples


async def serves(instance: Instance, host: str, tls: ClientTls, wanted: object) -> bool:
    """Whether a TLS name is served now, if that is wanted."""
    try:
        return (await request(instance.target(443), host=host, tls=tls)).status == 200 and bool(wanted)
    except (httpcore.ConnectError, httpcore.RemoteProtocolError, httpcore.ReadError):
        return not wanted


async def test_what_is_broken_at_the_start_costs_itself(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    wrong = route([to("a", path("Exact", "no slash"))], name="wrong")
    documents = [placed(loopback), service("a", pod.address), "kind: [", "---\nkind: Unknown", wrong, route([to("a")])]
    async with application(loopback, *documents) as instance:
        assert await status(instance) == 200
        assert {"MG9101", "MG9102"} <= {finding.code for finding in instance.findings("MG91")}


async def test_a_deleted_gateway_takes_its_envoy_along_and_others_stay(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    async with application(loopback, placed(loopback), service("a", pod.address), route([to("a")])) as instance:
        other = placed(loopback, listener(port=8080), name="other")
        instance.write("other", other)
        await eventually(lambda: shows(instance, 404, port=8080))
        keeper, pid = instance.pid(), instance.pid("other")
        assert pid
        assert keeper != pid
        instance.remove("other")
        await eventually(lambda: not alive(pid), what="the Envoy is gone", within=15)
        assert await status(instance, port=8080) is None
        assert (await status(instance), instance.pid()) == (200, keeper)


async def test_a_crashed_envoy_is_started_again_with_its_configuration(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    async with application(loopback, placed(loopback), service("a", pod.address), route([to("a")])) as instance:
        before = instance.pid()
        assert before
        os.kill(before, signal.SIGKILL)
        await instance.found("MG6002")
        await instance.gone("MG6002", within=15)
        assert instance.pid() != before
        assert await status(instance) == 200


def broken(row: Resource) -> Resource:
    """A RouteConfiguration with a name that Envoy refuses; anything else as it is."""
    if row.type_url != ROUTE_CONFIGURATION:
        return row
    return Resource.of(row.type_url, row.name, row.body + b"\x0a\x01\x00")


async def test_what_envoy_refuses_is_a_finding_and_the_last_good_serves(
    loopback: str, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = await backends.echo("a")
    async with application(loopback, placed(loopback), service("a", pod.address), route([to("a")])) as instance:
        publish = instance.app.server.publish

        def spoil(group: str, changes: Mapping[tuple[str, str], Resource | None], *, ready: bool) -> None:
            spoiled = {key: broken(row) if row is not None else None for key, row in changes.items()}
            publish(group, spoiled, ready=ready)

        monkeypatch.setattr(instance.app.server, "publish", spoil)
        instance.write("main", placed(loopback), service("a", pod.address), route([to("a", path("Exact", "/x"))]))
        found = await instance.found("MG6001")
        assert found.object.name == "gw"
        assert "RDS http/80" in found.message
        assert await status(instance, "/y") == 200
        monkeypatch.undo()
        instance.write("main", placed(loopback), service("a", pod.address), route([to("a", path("Exact", "/z"))]))
        await instance.gone("MG6001")
        await eventually(lambda: shows(instance, 404, "/y"))


async def test_two_gateways_of_one_port_get_an_address_each(backends: Backends) -> None:
    pod = await backends.echo("a")
    port = free_port()
    gateways = [gateway(listener(port=port), name=name) for name in ("one", "two")]
    attached = route([to("a")], parents=[{"name": "one"}, {"name": "two"}])
    async with application("127.0.0.1", *gateways, service("a", pod.address), attached) as instance:
        await instance.board.wait(lambda picture: len(picture.gateways) == 2)
        addresses = {line.address for line in instance.board.last.gateways}
        assert len(addresses) == 2
        for address in addresses:
            assert (await request((address, port), host="site.test")).pod == "a"


async def test_a_port_in_use_refuses_the_start_and_names_the_port(loopback: str, backends: Backends) -> None:
    async with AsyncExitStack() as stack:
        squatter = await asyncio.start_server(lambda _r, w: w.close(), loopback, 10_080)
        stack.push_async_callback(squatter.wait_closed)
        stack.callback(squatter.close)
        with pytest.raises(ExceptionGroup) as caught:
            async with application(loopback, placed(loopback)):
                pass
    assert caught.group_contains(InUseError, match=rf"{loopback}:10080.* is in use; stop what listens there")


async def test_a_listener_on_a_port_in_use_is_reported_and_the_rest_serves(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    rest = [service("a", pod.address), route([to("a")])]
    squatter = await asyncio.start_server(lambda _r, w: w.close(), loopback, 8080)
    async with application(loopback, placed(loopback), *rest) as instance:
        instance.write("main", placed(loopback, listener(), listener("taken", port=8080)), *rest)
        found = await instance.found("MG6003")
        assert f"{loopback}:8080/tcp is in use" in found.message
        assert await status(instance) == 200
        squatter.close()
        await squatter.wait_closed()
        await eventually(lambda: shows(instance, 200, port=8080), what="the freed port serves")
        await instance.gone("MG6003")


async def test_an_address_that_is_not_loopback_is_never_bound(loopback: str) -> None:
    async with application(loopback, placed("192.0.2.1"), live=False) as instance:
        await instance.board.wait(lambda picture: bool(picture.gateways))
        (line,) = instance.board.last.gateways
        assert line.address.startswith("127.")
        assert not line.programmed
        assert line.reason.startswith("AddressNotUsable")
