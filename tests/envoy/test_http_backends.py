"""Where requests end up: shares, answers without a backend, timeouts, retries, sessions, protocols and endpoints."""

from __future__ import annotations

import asyncio

import grpc
import httpcore
import pytest

from tests.envoy.gateway import (
    Document,
    endpoint_slice,
    gateway,
    grant,
    listener,
    namespace,
    path,
    route,
    serve,
    service,
    site,
    to,
)
from tests.rig.addresses import free_port
from tests.rig.backends import Backends
from tests.rig.clients import HttpClient, grpc_call, websocket

EXTENSION = {"type": "ExtensionRef", "extensionRef": {"group": "example.test", "kind": "Magic", "name": "x"}}


def backend(name: str, weight: int = 1, **fields: object) -> Document:
    return {"name": name, "port": 80, "weight": weight, **fields}


async def test_weights_share_the_traffic(loopback: str, backends: Backends) -> None:
    rule = {"backendRefs": [backend("a", 9), backend("b", 1), backend("c", 0)]}
    async with site(loopback, backends, gateway(), route([rule]), names="abc") as served:
        pods = await served.pods(500)
    assert set(pods) == {"a", "b"}
    assert 20 <= pods.count("b") <= 85


@pytest.mark.parametrize(
    ("refs", "why"),
    [
        ([], "no backends"),
        ([backend("a", 0)], "only backends without a weight"),
        ([backend("missing")], "a Service that does not exist"),
        ([{"name": "a", "port": 81}], "a port that the Service has not"),
        ([backend("a", kind="Pod")], "not a Service"),
        ([backend("a", group="example.test", kind="Bucket")], "a kind nobody knows"),
        ([backend("a", namespace="other")], "no grant"),
    ],
)
async def test_a_rule_without_a_usable_backend_answers_500(
    loopback: str, backends: Backends, refs: list[Document], why: str
) -> None:
    rules = [{"matches": [path("Exact", "/bad")], "backendRefs": refs}, to("a")]
    async with site(loopback, backends, gateway(), route(rules), names="a") as served:
        assert await served.pods(2, "/bad") == ["500"] * 2, why
        assert await served.pods(1, "/") == ["a"]


async def test_the_share_of_an_unusable_backend_answers_500(loopback: str, backends: Backends) -> None:
    rule = {"backendRefs": [backend("a"), backend("missing"), backend("b", filters=[EXTENSION])]}
    async with site(loopback, backends, gateway(), route([rule])) as served:
        pods = await served.pods(300)
    assert set(pods) == {"a", "500"}
    assert 60 <= pods.count("a") <= 140


async def test_a_rule_that_cannot_be_served_answers_500_and_its_neighbours_serve(
    loopback: str, backends: Backends
) -> None:
    rules = [to("a", path("PathPrefix", "/bad"), filters=[EXTENSION]), to("b")]
    async with site(loopback, backends, gateway(), route(rules)) as served:
        assert await served.pods(1, "/bad") == ["500"]
        assert await served.pods(1, "/good") == ["b"]
        assert [finding.code for finding in served.findings("MG4")] == ["MG4003"]


async def test_a_service_without_ready_endpoints_answers_503(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    async with serve(loopback, gateway(), route([to("a")]), service("a", unready=[pod.address])) as served:
        assert await served.pods(2) == ["503"] * 2
        assert pod.count() == 0
        assert [finding.code for finding in served.findings("MG2")] in ([], ["MG2005"])


async def test_unready_endpoints_get_nothing_while_others_serve(loopback: str, backends: Backends) -> None:
    ready, unready = await backends.echo("ready"), await backends.echo("unready")
    app = service("a", ready.address, unready=[unready.address])
    async with serve(loopback, gateway(), route([to("a")]), app) as served:
        assert set(await served.pods(30)) == {"ready"}


async def test_all_ready_endpoints_of_a_service_serve(loopback: str, backends: Backends) -> None:
    pods = [await backends.echo(f"pod-{number}") for number in range(3)]
    async with serve(loopback, gateway(), route([to("a")]), service("a", *(p.address for p in pods))) as served:
        assert set(await served.pods(60)) == {"pod-0", "pod-1", "pod-2"}


async def test_headless_services_serve_at_their_pods_ports(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("pod")
    headless = service("a", pod.address)
    headless[0]["spec"]["clusterIP"] = "None"
    async with serve(loopback, gateway(), route([to("a")]), headless) as served:
        assert await served.pods(2) == ["pod"] * 2


async def test_services_without_selector_serve_what_their_slices_name(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("pod")
    objects = service("a")
    del objects[0]["spec"]["selector"]
    async with serve(loopback, gateway(), route([to("a")]), objects, endpoint_slice("by-hand", "a", pod.address)) as s:
        assert await s.pods(2) == ["pod"] * 2


async def test_a_grant_opens_a_service_of_another_namespace(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("pod")
    objects = [namespace("other"), service("a", pod.address, namespace="other"), grant("default", "other")]
    rule = {"backendRefs": [backend("a", namespace="other")]}
    async with serve(loopback, gateway(), route([rule]), *objects) as served:
        assert await served.pods(1) == ["pod"]


async def test_a_request_that_takes_too_long_answers_504(loopback: str, backends: Backends) -> None:
    rules = [
        to("a", path("PathPrefix", "/request"), timeouts={"request": "200ms"}),
        to("a", path("PathPrefix", "/try"), timeouts={"request": "5s", "backendRequest": "200ms"}),
        to("a", path("PathPrefix", "/none"), timeouts={"request": "0s"}),
    ]
    async with site(loopback, backends, gateway(), route(rules), names="a") as served:
        assert await served.pods(1, "/request") == ["a"]
        clock = asyncio.get_running_loop().time
        for slow in ("/request?delay=3", "/try?delay=3"):
            began = clock()
            assert await served.pods(1, slow) == ["504"], slow
            assert clock() - began < 1.5
        assert await served.pods(1, "/none?delay=0.5") == ["a"]


async def test_retries_follow_their_codes_and_number(loopback: str, backends: Backends) -> None:
    retry = {"codes": [500, 503], "attempts": 2, "backoff": "5ms"}
    async with site(loopback, backends, gateway(), route([to("a", retry=retry)]), names="a") as served:
        pod = served.backends["a"]
        assert await served.pods(1, "/?fail=2&id=ok&code=503") == ["a"]
        assert await served.pods(1, "/?fail=3&id=many&code=500") == ["500"]
        assert pod.count("/?fail=3") == 3
        assert await served.pods(1, "/?fail=1&id=other&code=502") == ["502"]
        assert pod.count("/?fail=1") == 1


async def test_a_reset_connection_is_retried_when_retries_are_asked_for(loopback: str, backends: Backends) -> None:
    rules = [to("a", path("PathPrefix", "/retry"), retry={"attempts": 1}), to("a")]
    async with site(loopback, backends, gateway(), route(rules), names="a") as served:
        assert await served.pods(1, "/retry?fail=1&id=one&code=reset") == ["a"]
        assert (await served.pods(1, "/?fail=1&id=two&code=reset"))[0] in {"502", "503"}
        assert served.backends["a"].count("/?fail") == 1  # nobody asked: it might not be safe to repeat


async def test_retries_avoid_a_dead_endpoint(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("pod")
    app = service("a", pod.address, ("127.0.0.1", free_port()))
    async with serve(loopback, gateway(), route([to("a", retry={"attempts": 3})]), app) as served:
        assert await served.pods(40) == ["pod"] * 40


async def test_a_session_cookie_keeps_a_client_at_its_endpoint(loopback: str, backends: Backends) -> None:
    pods = [await backends.echo(f"pod-{number}") for number in range(3)]
    sticky = {"sessionName": "session", "type": "Cookie"}
    rule = to("a", sessionPersistence=sticky)
    async with serve(loopback, gateway(), route([rule]), service("a", *(p.address for p in pods))) as served:
        first = await served.get()
        cookie = (first.header("set-cookie") or "").split(";")[0]
        assert cookie.startswith("session=")
        assert set(await served.pods(30, headers={"cookie": cookie})) == {first.pod}
        assert len(set(await served.pods(60))) == 3


async def test_a_session_header_keeps_a_client_at_its_endpoint(loopback: str, backends: Backends) -> None:
    pods = [await backends.echo(f"pod-{number}") for number in range(3)]
    rule = to("a", sessionPersistence={"sessionName": "x-session", "type": "Header"})
    async with serve(loopback, gateway(), route([rule]), service("a", *(p.address for p in pods))) as served:
        first = await served.get()
        token = first.header("x-session")
        assert token
        assert set(await served.pods(30, headers={"x-session": token})) == {first.pod}


@pytest.mark.parametrize(
    ("app_protocol", "proto"),
    [(None, "HTTP/1.1"), ("kubernetes.io/h2c", "HTTP/2"), ("kubernetes.io/ws", "HTTP/1.1"), ("http", "HTTP/1.1")],
)
async def test_backends_are_spoken_to_in_their_protocol(
    loopback: str, backends: Backends, app_protocol: str | None, proto: str
) -> None:
    pod = await backends.echo("pod")
    app = service("a", pod.address, app_protocol=app_protocol)
    async with serve(loopback, gateway(), route([to("a")]), app) as served:
        assert (await served.get()).echo.proto == proto


async def test_clients_may_speak_h2c_with_prior_knowledge(loopback: str, backends: Backends) -> None:
    async with site(loopback, backends, gateway(), route([to("a")], "site.test"), names="a") as served:
        async with HttpClient(served.target(), http="2") as client:
            answers = await asyncio.gather(*(client.get(f"/{number}", host="site.test") for number in range(20)))
        assert {(answer.version, answer.pod) for answer in answers} == {("HTTP/2", "a")}


@pytest.mark.parametrize("app_protocol", [None, "kubernetes.io/ws"])
async def test_websockets_pass(loopback: str, backends: Backends, app_protocol: str | None) -> None:
    pod = await backends.echo("pod")
    app = service("a", pod.address, app_protocol=app_protocol)
    rule = to("a", path("PathPrefix", "/ws"), timeouts={"request": "0s"})
    async with serve(loopback, gateway(), route([rule], "site.test"), app) as served:
        async with websocket(served.target(), "/ws/x", host="site.test") as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
        assert pod.hits[0].path == "/ws/x"


GRPC = {"kind": "GRPCRoute"}


async def test_grpc_calls_match_by_service_and_method(loopback: str, backends: Backends) -> None:
    pods = {name: await backends.grpc(name) for name in "abc"}
    rules = """
    - matches: [{method: {service: echo.Echo, method: Say}}]
      backendRefs: [{name: a, port: 80}]
    - matches: [{method: {service: echo.Echo}}]
      backendRefs: [{name: b, port: 80}]
    - matches: [{method: {type: RegularExpression, service: "other\\\\..*", method: "Do[A-Z].*"}}]
      backendRefs: [{name: c, port: 80}]
    """
    objects = [service(name, pod.address) for name, pod in pods.items()]
    async with serve(loopback, gateway(), route(rules, "grpc.test", **GRPC), *objects) as served:
        wanted = {"/echo.Echo/Say": "a", "/echo.Echo/Other": "b", "/other.Thing/DoIt": "c"}
        for method, name in wanted.items():
            result = await grpc_call(served.target(), method, authority="grpc.test")
            assert result.ok, (method, result.details)
            assert result.pod == name
        missing = await grpc_call(served.target(), "/other.Thing/dont", authority="grpc.test")
        assert missing.code is grpc.StatusCode.UNIMPLEMENTED


async def test_grpc_calls_match_by_metadata_and_share_by_weight(loopback: str, backends: Backends) -> None:
    pods = {name: await backends.grpc(name) for name in "abc"}
    rules = """
    - matches: [{headers: [{name: version, value: two}]}]
      backendRefs: [{name: c, port: 80}]
    - backendRefs: [{name: a, port: 80, weight: 3}, {name: b, port: 80, weight: 1}]
    """
    objects = [service(name, pod.address, app_protocol="kubernetes.io/h2c") for name, pod in pods.items()]
    async with serve(loopback, gateway(), route(rules, **GRPC), *objects) as served:
        assert (await grpc_call(served.target(), metadata=[("version", "two")])).pod == "c"
        seen = [(await grpc_call(served.target())).pod for _ in range(60)]
    assert set(seen) == {"a", "b"}
    assert seen.count("a") > seen.count("b")


async def test_grpc_streams_messages_and_statuses(loopback: str, backends: Backends) -> None:
    pod = await backends.grpc("a")
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-by", "value": "rule"}]}}]
    objects = [route([to("a", filters=filters)], **GRPC), service("a", pod.address)]
    objects[0]["spec"]["rules"][0].pop("matches")
    async with serve(loopback, gateway(), *objects) as served:
        result = await grpc_call(served.target(), messages=(b"one", b"two", b"three"))
        assert [message["message"] for message in result.messages] == ["one", "two", "three"]
        assert result.messages[0]["metadata"]["x-by"] == "rule"
        failed = await grpc_call(served.target(), metadata=[("x-echo-status", "5")])
        assert (failed.code, failed.details) == (grpc.StatusCode.NOT_FOUND, "asked for NOT_FOUND")


async def test_a_grpc_route_without_backend_is_unavailable(loopback: str) -> None:
    rules = [{"backendRefs": [{"name": "missing", "port": 80}]}]
    async with serve(loopback, gateway(), route(rules, **GRPC)) as served:
        result = await grpc_call(served.target())
        assert result.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}


@pytest.mark.parametrize(
    "asked",
    ["/public/../private", "/public/%2e%2e/private", "/public/..%2fprivate", "//private", "/./private", "/%70rivate"],
)
async def test_no_spelling_of_a_path_slips_past_a_rule(loopback: str, backends: Backends, asked: str) -> None:
    rules = [to("a", path("PathPrefix", "/")), to("b", path("PathPrefix", "/private"))]
    async with site(loopback, backends, gateway(), route(rules)) as served:
        answer = await served.get(asked)
        if answer.status in {301, 302, 307, 308}:  # an escaped slash: the client is sent to the plain spelling
            assert answer.header("location") is not None
            answer = await served.get((answer.header("location") or "").removeprefix("http://site.test"))
        assert answer.status == 400 or answer.pod == "b" or not answer.echo.path.startswith("/private")
        assert all(not hit.path.startswith(("/private", "//private")) for hit in served.backends["a"].hits)


async def test_header_names_keep_their_underscores(loopback: str, backends: Backends) -> None:
    async with site(loopback, backends, gateway(), route([to("a")]), names="a") as served:
        answer = await served.get(headers={"x_under": "1"})
        assert (answer.status, answer.echo.header("x_under")) == (200, "1")


async def test_headers_up_to_60_kib_pass_and_more_is_refused(loopback: str, backends: Backends) -> None:
    async with site(loopback, backends, gateway(), route([to("a")]), names="a") as served:
        fine = await served.get(headers={"x-large": "x" * 50_000})
        assert len(fine.echo.header("x-large") or "") == 50_000
        assert (await served.get(headers={"x-large": "x" * 70_000})).status == 431
        assert await served.pods(1) == ["a"]


async def test_requests_that_could_be_two_are_refused(loopback: str, backends: Backends) -> None:
    async with site(loopback, backends, gateway(), route([to("a")]), names="a") as served:
        smuggled = (
            b"POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n"
        )
        answer = await served.raw(smuggled)
        assert answer.startswith(b"HTTP/1.1 400")
        assert served.backends["a"].count("/smuggled") == 0


async def test_bodies_of_many_megabytes_pass(loopback: str, backends: Backends) -> None:
    async with site(loopback, backends, gateway(), route([to("a")]), names="a") as served:
        answer = await served.get("/?size=5000000")
        assert len(answer.body) > 5_000_000
        sent = await served.request("POST", "/", body=b"x" * 5_000_000)
        assert sent.echo.header("content-length") == "5000000"


async def test_a_backend_that_hangs_up_is_an_error_of_the_gateway(loopback: str, backends: Backends) -> None:
    async with site(loopback, backends, gateway(), route([to("a")]), names="a") as served:
        assert (await served.get("/?reset=1")).status in {502, 503}
        assert await served.pods(1) == ["a"]


async def test_a_gateway_listens_on_its_own_ports_alone(loopback: str, backends: Backends) -> None:
    ports = gateway(listener(), listener("second", port=8080))
    async with site(loopback, backends, ports, route([to("a")]), names="a") as served:
        assert await served.pods(1) == await served.pods(1, port=8080) == ["a"]
        with pytest.raises(httpcore.ConnectError):
            await served.get(port=9090)
